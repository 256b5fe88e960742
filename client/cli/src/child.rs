//! The processes that `millpond dev` starts: the coordinator and cache nodes of this very
//! executable, so that one binary is enough to try a whole cluster.

use millpond_cache_node::NodeArgs;
use millpond_coordinator::CoordinatorArgs;
use millpond_process::UsageError;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// A coordinator that ends with the process that started it.
#[derive(Debug, clap::Args)]
pub(crate) struct DevCoordinatorArgs {
    #[command(flatten)]
    parent: ParentArgs,
    #[command(flatten)]
    args: CoordinatorArgs,
}

/// A cache node that ends with the process that started it.
#[derive(Debug, clap::Args)]
pub(crate) struct DevNodeArgs {
    #[command(flatten)]
    parent: ParentArgs,
    #[command(flatten)]
    args: NodeArgs,
}

#[derive(Debug, clap::Args)]
struct ParentArgs {
    /// The process that this one must not outlive
    #[arg(long, value_name = "PID")]
    parent: Option<i32>,
}

pub(crate) async fn coordinator(args: DevCoordinatorArgs) -> anyhow::Result<()> {
    args.parent.follow()?;
    millpond_coordinator::run_with_args(args.args).await?;
    Ok(())
}

pub(crate) async fn node(args: DevNodeArgs) -> anyhow::Result<()> {
    args.parent.follow()?;
    millpond_cache_node::run_with_args(args.args).await?;
    Ok(())
}

impl ParentArgs {
    /// Has the kernel kill this process when its parent ends, however that happens.
    fn follow(&self) -> anyhow::Result<()> {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the line above took effect.
        if getppid() != Pid::from_raw(parent) {
            return Err(UsageError(format!("process {parent} did not start this one")).into());
        }
        Ok(())
    }
}
