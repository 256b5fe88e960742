//! How everything here is measured: one kind of sample, interleaved runs, medians with spread.
//!
//! | module | holds |
//! |---|---|
//! | [`sample`] | [`Sample`]: what one run did |
//! | [`interleave`](mod@interleave) | [`Arm`]s run in turn, so that drift hits all alike |
//! | [`spread`] | [`Spread`]: median, least, most |
//! | [`histogram`] | latencies |
//! | [`series`] | throughput over time |
//! | [`interrupt`] | Ctrl-C |
//! | [`cpu`] | CPU time of this and other processes |

pub mod cpu;
pub mod histogram;
pub mod interleave;
pub mod interrupt;
pub mod sample;
pub mod series;
pub mod spread;

pub use cpu::CpuMeter;
pub use histogram::Histogram;
pub use interleave::{Arm, interleave};
pub use sample::Sample;
pub use series::{Series, SeriesRecorder};
pub use spread::Spread;
