//! `millpond-bench read`: reads a directory, a store or a cluster and says how fast, beside
//! the limit of the machine measured in the same run.
//!
//! | module | holds |
//! |---|---|
//! | `args`, `shape` | flags; orders, sizes and numbers of reads, and what they are called |
//! | `layout`, `order` | files as numbered blocks, and the orders to visit them in; pure |
//! | `dataset` | files whose bytes follow from a seed |
//! | `source`, `workload` | what is read, and the threads that read it |
//! | `kernel`, `verify` | the kernel's pages; comparing every byte |
//! | `target`, `given` | what the user named, and its cases |
//! | `gaps` | rows of cases that could not be measured |
//! | `standard` | the cases that the goals name |

mod args;
pub(crate) mod dataset;
pub(crate) mod gaps;
pub(crate) mod given;
pub(crate) mod kernel;
pub(crate) mod layout;
pub(crate) mod order;
mod shape;
pub(crate) mod source;
mod standard;
mod target;
pub(crate) mod verify;
mod workload;

use anyhow::Result;

use crate::record::Row;
use crate::scenario::Context;

pub use args::{Pattern, ReadArgs};

const SCENARIO: &str = "read";

/// Measures the wanted cases.
///
/// # Errors
/// [`UsageError`](millpond_process::UsageError) for arguments without sense; the target's error
/// when it cannot be listed or opened. Errors of single reads are counted in the rows instead.
pub fn run(context: &Context, args: &ReadArgs) -> Result<Vec<Row>> {
    args.validate()?;
    match args.target() {
        Some(kind) => given::run(context, args, kind),
        None => standard::run(context, args),
    }
}
