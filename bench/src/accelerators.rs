//! `millpond-bench accelerators`.

use anyhow::Result;
use clap::Args;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

/// Feed simulated accelerators by MLPerf Storage's method.
#[derive(Debug, Clone, Args)]
pub struct AcceleratorsArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// Measures the wanted cases.
///
/// # Errors
/// When the measurement cannot be set up.
pub fn run(_context: &Context, _args: &AcceleratorsArgs) -> Result<Vec<Row>> {
    Ok(Vec::new())
}
