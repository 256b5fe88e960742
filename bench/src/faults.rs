//! `millpond-bench faults`.

use anyhow::Result;
use clap::Args;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

/// Kill, stop, cut off and slow down nodes while clients read.
#[derive(Debug, Clone, Args)]
pub struct FaultsArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// Measures the wanted cases.
///
/// # Errors
/// When the measurement cannot be set up.
pub fn run(_context: &Context, _args: &FaultsArgs) -> Result<Vec<Row>> {
    Ok(Vec::new())
}
