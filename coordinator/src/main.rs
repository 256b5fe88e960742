//! The `coordinator` binary.

use std::process::ExitCode;

use clap::Parser;
use millpond_coordinator::{CoordinatorArgs, run_with_args};

/// The control plane of a Millpond cluster: members, mounts, certificates.
///
/// Start it alone and it makes a cluster of its own: `coordinator`. Cache nodes then enter with
/// `cache-node --join HOST:7000`. Its replicated log is in --data-dir; as long as that
/// directory lives, nothing that was acknowledged is lost. Three or five that share a secret are a
/// group that goes on without a minority of them: start each with --peers, or add one to a
/// running group with --join.
#[derive(Parser)]
///
/// Every setting can also be given in the --config file, or in the environment: MILLPOND_LISTEN
/// for `listen`, MILLPOND_LOG__LEVEL for `level` in section `[log]`. Flags win over the
/// environment, the environment over the file.
#[command(name = "coordinator", version)]
#[command(after_help = "Examples:
  coordinator
  coordinator --advertise 10.0.0.1:7000 --secret-file group.secret \\
      --peers 10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000
  coordinator --advertise 10.0.0.4:7000 --secret-file group.secret --join 10.0.0.1:7000")]
struct Cli {
    #[command(flatten)]
    args: CoordinatorArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    millpond_process::run::main(run_with_args(cli.args))
}
