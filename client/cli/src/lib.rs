//! The `millpond` command: parse, call, print.
//!
//! | module | holds |
//! |---|---|
//! | `cli` | the commands and the way to them |
//! | `connect` | the flags and connections of commands that talk to a cluster or a store |
//! | `output` | all that goes to stdout |
//! | `mount` | `millpond mount` and `umount` |
//! | `mounts` | the mount table |
//! | `fs` | `ls`, `stat`, `cat`, `cp`, `du`, `find` |
//! | `status`, `ring` | a look at the cluster |
//! | `dev` | a whole cluster on one machine |
//! | `child` | the processes that `dev` starts |

mod child;
mod cli;
mod connect;
mod dev;
mod fs;
mod mount;
mod mounts;
mod options;
mod output;
mod ring;
mod status;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Runs the command with `args`, of which the first is the program's name, and says how it
/// ended. Other programs of ours use it to start mounts, coordinators and nodes of
/// themselves, so that one executable is enough.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = cli::Cli::parse_from(args);
    millpond_process::run::main(cli::run(cli))
}
