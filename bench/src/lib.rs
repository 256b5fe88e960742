//! Measuring Millpond, and clusters of real processes for tests.
//!
//! - [`read`] is the harness behind `millpond-bench read`.
//! - [`process_cluster`] starts coordinator, nodes and mounts as processes and takes them
//!   down again whatever happens.

pub mod process_cluster;
pub mod read;
