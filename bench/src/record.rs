//! What a run leaves: one JSON document that says what was measured, beside what, on which
//! machine and how far to trust it.
//!
//! | module | holds |
//! |---|---|
//! | [`run`] | [`RunRecord`]: the document |
//! | [`row`] | [`Row`]: one figure beside its limit |
//! | [`proof`] | [`Proof`]: what makes a figure believable |
//! | [`tool`] | [`Tool`]: which build of the harness |
//! | [`machine`] | [`Machine`] |
//! | [`noise`] | [`Noise`]: what else the machine did meanwhile |

pub mod machine;
pub mod noise;
pub mod proof;
pub mod row;
pub mod run;
pub mod tool;

pub use machine::Machine;
pub use noise::{Noise, NoiseMeter};
pub use proof::{KernelCache, Proof};
pub use row::{Better, Detail, Figure, Latency, Limit, Row, Status};
pub use run::{GoalRow, Recorder, RunRecord, SCHEMA};
pub use tool::Tool;
