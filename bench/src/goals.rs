//! The project's goals: what `bench/goals.toml` demands, and whether a run meets it.
//!
//! | module | holds |
//! |---|---|
//! | `file` | [`Goal`], [`Goals`]: the file, parsed and checked |
//! | `judge` | a goal held against the figures of a run |

mod file;
mod judge;

pub use file::{Comparison, Goal, Goals};
pub use judge::judge;
