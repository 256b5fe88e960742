//! The control plane of a Millpond cluster: who is in it, what is mounted, who is certified.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | [`CoordinatorArgs`], [`Config`]: flags, file, environment |
//! | [`mod@run`] | [`run()`], [`run_with_args`]: the body of the process |
//! | [`coordinator`] | [`Coordinator`]: the parts wired together |
//! | [`engine`] | the cluster as a pure state machine |
//! | [`raft`] | the engine behind a replicated log on disk |
//! | [`liveness`] | who was heard when, and who is dead |
//! | [`authority`] | the cluster's certificate authority |
//! | [`service`] | the gRPC service |
//! | [`group`] | the other coordinators |
//! | [`secret`] | what the coordinators of a group share |
//! | [`data_dir`] | the directory that one process holds |
//! | [`metrics`] | what is counted |
//!
//! A command goes `service` → `raft` (log, on disk) → `engine` (state) → every watcher.

pub mod authority;
pub mod config;
pub mod coordinator;
pub mod data_dir;
pub mod engine;
pub mod group;
pub mod liveness;
pub mod metrics;
pub mod raft;
pub mod run;
pub mod secret;
pub mod service;

pub use config::{Config, CoordinatorArgs, FirstStart};
pub use coordinator::{Coordinator, StartError};
pub use run::{run, run_with_args};
