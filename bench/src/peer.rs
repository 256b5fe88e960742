//! `millpond-bench peer`.

use anyhow::Result;
use clap::Args;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

/// Read blocks from one node, beside the bare transport.
#[derive(Debug, Clone, Args)]
pub struct PeerArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// Measures the wanted cases.
///
/// # Errors
/// When the measurement cannot be set up.
pub fn run(_context: &Context, _args: &PeerArgs) -> Result<Vec<Row>> {
    Ok(Vec::new())
}
