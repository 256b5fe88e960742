//! `millpond-bench limits`.

use anyhow::Result;
use clap::Args;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

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
