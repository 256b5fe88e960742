//! Directories on the local disk that hold what can be fetched again: a node's blocks, a
//! mount's files.
//!
//! ```text
//! <dir>/millpond-….json     format and cluster of the directory
//! <dir>/lock                locked by the process that has the directory open
//! <dir>/1f/…                whatever has an id that begins with 1f
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`breaker`] | [`Breaker`]: when a sick disk is gone round |
//! | [`dir`] | [`CacheDir`]: whose a directory is, and the walk over what is in it |
//! | [`error`] | [`DiskError`]: why a directory cannot be used |
//! | [`health`] | [`Health`]: when writes to a failing disk pause |

pub mod breaker;
pub mod dir;
pub mod error;
pub mod health;

pub use breaker::{Breaker, BreakerState, Trouble};
pub use dir::{CacheDir, DirKind, DirLock, Tenure};
pub use error::DiskError;
pub use health::Health;
