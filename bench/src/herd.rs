//! `millpond-bench herd`.

use anyhow::Result;
use clap::Args;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

/// Start many cold clients on the same data at once.
#[derive(Debug, Clone, Args)]
pub struct HerdArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// Measures the wanted cases.
///
/// # Errors
/// When the measurement cannot be set up.
pub fn run(_context: &Context, _args: &HerdArgs) -> Result<Vec<Row>> {
    Ok(Vec::new())
}
