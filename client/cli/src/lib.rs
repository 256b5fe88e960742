//! The `millpond` command: parse, call, print.
//!
//! | module | holds |
//! |---|---|
//! | `cli` | the commands and the way to them |
//! | `connect` | the flags and connections of commands that talk to a cluster or a store |
//! | `output` | all that goes to stdout |
//! | `mount` | `millpond mount` and `umount` |
//! | `mounted` | mounts of this host, through their control files |
//! | `stats`, `info` | what a mount does; all about one file |
//! | `mounts` | the mount table |
//! | `fs` | `ls`, `stat`, `cat`, `cp`, `du`, `find`, `prefetch`; `put`, `rm`, `mv`, `mkdir`, `touch`, `write` |
//! | `gc` | what writers that died have left in a store |
//! | `status`, `ring` | a look at the cluster |
//! | `dev` | a whole cluster on one machine |
//! | `child` | the processes that `dev` starts |

mod child;
mod cli;
mod connect;
mod coordinators;
mod dev;
mod fs;
mod gc;
mod info;
mod mount;
mod mounted;
mod mounts;
mod options;
mod output;
mod ring;
mod stats;
mod status;
mod token;

/// What of the memory limit of `millpond mount` is not for data.
pub use mount::BESIDE_DATA as MEMORY_BESIDE_DATA;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Runs the command with `args`, of which the first is the program's name, and says how it
/// ended. Other programs of ours use it to start mounts, coordinators and nodes of
/// themselves, so that one executable is enough.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter().peekable();
    if mount::helper::is_helper(args.peek()) {
        return mount::helper::run(args.skip(1));
    }
    let cli = cli::Cli::parse_from(args);
    millpond_process::run::main(cli::run(cli))
}
