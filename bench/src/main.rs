//! `millpond-bench`: measures Millpond, and anything else, beside the limits of the machine.

mod cli;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use millpond_bench::limits::{self, child::AS_LIMIT};
use millpond_bench::process_cluster::{AS_MILLPOND, can_be_millpond, end_with_parent};
use millpond_bench::verdict;

fn main() -> ExitCode {
    // The clusters that it starts are processes of this very executable.
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == AS_MILLPOND) {
        args.remove(1);
        end_with_parent();
        return millpond::main(args);
    }
    if args.get(1).is_some_and(|arg| arg == AS_LIMIT) {
        return limits::child::main();
    }
    can_be_millpond();
    verdict::main(cli::run(cli::Cli::parse()))
}
