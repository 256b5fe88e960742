//! `millpond-bench small-files`.

use anyhow::Result;
use clap::Args;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

/// Read, list and stat many small files.
#[derive(Debug, Clone, Args)]
pub struct SmallFilesArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// Measures the wanted cases.
///
/// # Errors
/// When the measurement cannot be set up.
pub fn run(_context: &Context, _args: &SmallFilesArgs) -> Result<Vec<Row>> {
    Ok(Vec::new())
}
