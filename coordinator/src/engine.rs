//! The cluster as a pure state machine: `State::apply(command) -> Applied`.
//!
//! Nothing here knows a clock, a disk or a network; the same commands give the same state on
//! every coordinator. What follows from a command beyond the state itself is returned as
//! [`Effect`]s for the shell to act on.
//!
//! | module | holds |
//! |---|---|
//! | [`command`] | what can be asked of the cluster, as it is written to the log |
//! | [`state`] | the state and its rules |
//! | [`members`], `mounts` | the rules of joins, leaves and deaths, and of the mount table |
//! | [`tokens`] | the rules of tokens |
//! | [`outcome`] | what came of a command: result, refusal, effects |
//!
//! # The log can be read by later releases
//! Commands and snapshots are JSON with a format number. A later release may add commands and
//! optional fields under the same number. It may never change what an existing command does
//! to a state, because replaying an old log must give the old result: a changed rule is a new
//! command. Checks that may grow stricter (paths, URIs, sizes) are therefore not made here but
//! at the door, before a command is proposed. A number that this release does not know is an
//! error, never a guess.

pub mod command;
pub mod members;
mod mounts;
pub mod outcome;
pub mod state;
#[cfg(test)]
mod tests;
pub mod tokens;

pub use command::{Command, Hidden, Join, MountChange, NewMount, NewToken, Op, TokenRole};
pub use members::is_live;
pub use outcome::{Applied, Effect, Outcome, Refused};
pub use state::State;
