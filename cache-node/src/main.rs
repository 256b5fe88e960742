//! The `cache-node` command.

use std::process::ExitCode;

use clap::Parser;

use millpond_cache_node::{NodeArgs, memory, run_with_args};

/// A cache node: joins a Millpond cluster and serves blocks of its files.
#[derive(Debug, Parser)]
#[command(name = "cache-node", version, about)]
struct Cli {
    #[command(flatten)]
    args: NodeArgs,
}

fn main() -> ExitCode {
    // Before the runtime starts threads, each of which would get an arena of its own.
    memory::tune_allocator();
    let cli = Cli::parse();
    millpond_process::run::main(run_with_args(cli.args))
}
