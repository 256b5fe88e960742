//! Measuring Millpond, and clusters of real processes for tests.
//!
//! | module | holds |
//! |---|---|
//! | [`measure`] | samples, interleaved runs, medians with spread |
//! | [`record`] | the JSON document of a run |
//! | [`scenario`] | what all scenarios share |
//! | [`limits`], [`read`], [`peer`], [`small_files`], [`herd`], [`epochs`], [`accelerators`], [`checkpoint`], [`faults`], [`field`], [`ring`], [`memory`], [`soak`] | the scenarios, one subcommand each |
//! | [`cluster`] | the clusters that scenarios measure, in this process or as processes |
//! | [`goals`] | `bench/goals.toml`, held against figures |
//! | [`plan`] | all scenarios, one after the other |
//! | [`report`] | runs as one page, or as tables for a document |
//! | [`compare`] | a later run beside an earlier one |
//! | [`summary`] | a record as tables |
//! | [`verdict`] | exit code 3: what was measured is not what was demanded |
//! | [`ufs_reads`] | what the under-store alone can do: parallel ranged GETs |
//! | [`process_cluster`] | coordinator, nodes and mounts as processes, taken down again whatever happens |

pub mod accelerators;
pub mod checkpoint;
pub mod cluster;
pub mod compare;
pub mod epochs;
pub mod faults;
pub mod field;
pub mod goals;
pub mod herd;
pub mod limits;
pub mod measure;
pub mod memory;
pub mod peer;
pub mod plan;
pub mod process_cluster;
pub mod read;
pub mod record;
pub mod report;
pub mod ring;
pub mod scenario;
pub mod small_files;
pub mod soak;
pub mod summary;
pub mod ufs_reads;
pub mod verdict;
