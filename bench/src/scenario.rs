//! What all scenarios share: the common flags, which cases are wanted, and where to work.

mod context;
mod flags;
mod wanted;

pub use context::Context;
pub use flags::{CommonArgs, OutputArgs};
pub use wanted::Wanted;
