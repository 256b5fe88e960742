//! `millpond-bench ring`.

use anyhow::Result;
use clap::Args;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

/// Check the balance and the movement of the consistent-hash ring.
#[derive(Debug, Clone, Args)]
pub struct RingArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// Measures the wanted cases.
///
/// # Errors
/// When the measurement cannot be set up.
pub fn run(_context: &Context, _args: &RingArgs) -> Result<Vec<Row>> {
    Ok(Vec::new())
}
