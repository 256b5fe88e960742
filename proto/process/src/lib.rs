//! What every Millpond process does at start-up and at its end.
//!
//! | module | holds |
//! |---|---|
//! | [`crypto`] | the one TLS provider of the process |
//! | [`logging`] | log flags and the subscriber |
//! | [`config`] | layers: defaults, TOML file, environment, flags; [`Size`]; data directories |
//! | [`metrics`] | the shared registry |
//! | [`admin`] | `/metrics`, `/healthz`, `/readyz` |
//! | [`shutdown`] | SIGINT and SIGTERM |
//! | [`run`] | the runtime, error printing, exit codes |
//! | [`ready`] | the line on stdout that says a process is up |

pub mod admin;
pub mod config;
pub mod crypto;
pub mod error;
pub mod logging;
pub mod metrics;
pub mod ready;
pub mod run;
pub mod shutdown;

pub use admin::{AdminServer, Readiness};
pub use config::{ConfigError, Size, default_data_dir};
pub use crypto::init_crypto;
pub use error::{ProcessError, UsageError};
pub use metrics::{SharedRegistry, shared_registry};
pub use ready::announce_ready;
