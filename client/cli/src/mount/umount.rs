//! `millpond umount`.

use std::path::PathBuf;

use millpond_fuse::unmount::{Force, unmount};

/// Unmount a directory that millpond mounted.
///
/// Its process ends by itself then. Works also when that process is gone ("transport
/// endpoint is not connected").
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UmountArgs {
    /// The mount point
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Take it out of sight at once; who uses it goes on until done
    #[arg(long, conflicts_with = "force")]
    lazy: bool,
    /// Abort what is under way: who uses it gets errors
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  millpond umount /mnt/data
  millpond umount --lazy /mnt/data";

/// Unmounts.
pub(crate) async fn run_umount(args: UmountArgs) -> anyhow::Result<()> {
    let force = match (args.lazy, args.force) {
        (_, true) => Force::Abort,
        (true, false) => Force::Lazy,
        (false, false) => Force::Clean,
    };
    // The kernel may wait for the mount's process.
    tokio::task::spawn_blocking(move || unmount(&args.dir, force)).await??;
    Ok(())
}
