//! `millpond-bench epochs`.

use anyhow::Result;
use clap::Args;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

/// Run training epochs over a tier smaller than the data set.
#[derive(Debug, Clone, Args)]
pub struct EpochsArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// Measures the wanted cases.
///
/// # Errors
/// When the measurement cannot be set up.
pub fn run(_context: &Context, _args: &EpochsArgs) -> Result<Vec<Row>> {
    Ok(Vec::new())
}
