//! `millpond-bench checkpoint`.

use anyhow::Result;
use clap::Args;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

/// Write a checkpoint and read it back elsewhere.
#[derive(Debug, Clone, Args)]
pub struct CheckpointArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// Measures the wanted cases.
///
/// # Errors
/// When the measurement cannot be set up.
pub fn run(_context: &Context, _args: &CheckpointArgs) -> Result<Vec<Row>> {
    Ok(Vec::new())
}
