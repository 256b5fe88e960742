//! The body of the `coordinator` process, for its own binary and for those that start it
//! under another name.

use anyhow::Context;
use millpond_process::{UsageError, announce_ready, logging, shutdown};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, CoordinatorArgs};
use crate::coordinator::{Coordinator, StartError};

/// Loads the configuration, starts the logs and runs until SIGINT or SIGTERM. Prints the
/// configuration and returns at once when asked to.
///
/// # Errors
/// Wrong input as [`UsageError`] or `ConfigError` (exit code 2); everything else as it comes.
pub async fn run_with_args(args: CoordinatorArgs) -> anyhow::Result<()> {
    let settings = args.settings()?;
    let config = settings.validate()?;
    if args.print_config {
        return print(&millpond_process::config::to_toml(&settings)?);
    }
    logging::init(&settings.log)?;
    run(config, shutdown::token()).await
}

#[allow(clippy::print_stdout, reason = "the user asked for it on stdout")]
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .context("cannot print the configuration")
}

/// Runs a coordinator until `shutdown` is cancelled. Prints the ready line on stdout as soon
/// as it serves: `ready listen=IP:PORT admin=IP:PORT|none cluster=HEX`.
///
/// # Errors
/// What keeps it from starting, or from going on.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    // A group without a majority may keep it waiting for long.
    let started = tokio::select! {
        started = Coordinator::start(config) => started,
        () = shutdown.cancelled() => return Ok(()),
    };
    let coordinator = match started {
        Ok(coordinator) => coordinator,
        Err(error @ StartError::BlockSize { .. }) => {
            return Err(UsageError::new(error.to_string()).into());
        }
        Err(error) => return Err(error.into()),
    };
    let admin = coordinator.admin_addr();
    announce_ready(&[
        ("listen", coordinator.addr().to_string()),
        (
            "admin",
            admin.map_or_else(|| "none".to_owned(), |a| a.to_string()),
        ),
        ("cluster", coordinator.cluster().to_string()),
        ("id", coordinator.id().to_string()),
    ]);
    let failure = tokio::select! {
        () = shutdown.cancelled() => None,
        reason = coordinator.failed() => Some(reason),
    };
    coordinator.shutdown().await;
    match failure {
        None => Ok(()),
        Some(reason) => Err(anyhow::anyhow!("the coordinator cannot go on: {reason}")),
    }
}
