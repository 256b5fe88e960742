//! `millpond-bench limits`.

pub mod child;
pub mod content;
pub mod files;
pub mod null_fuse;
pub(crate) mod order;
pub mod pages;
pub mod quinn;
pub mod streams;
pub mod workers;

use anyhow::Result;
use clap::Args;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

pub use null_fuse::{NullFuse, NullFuseSettings, PassthroughFuse};
pub use quinn::QuinnLimit;
pub use streams::StreamLimit;

/// Measure what this machine can do at best: memory, disk, FUSE, network.
#[derive(Debug, Clone, Args)]
pub struct LimitsArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// Measures the wanted cases.
///
/// # Errors
/// When the measurement cannot be set up.
pub fn run(_context: &Context, _args: &LimitsArgs) -> Result<Vec<Row>> {
    Ok(Vec::new())
}
