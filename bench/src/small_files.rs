//! `millpond-bench small-files`: many small files listed, looked at and read, beside the same
//! files on the local file system.
//!
//! | module | holds |
//! |---|---|
//! | `args` | flags |
//! | `tree` | so many files in so many directories; pure |
//! | `work` | the threads that list, stat and read |
//! | `given` | the cases of a directory that the user named |
//! | `standard` | the cases that the goals name |

mod args;
mod given;
mod standard;
mod tree;
pub(crate) mod work;

use anyhow::Result;

use crate::record::Row;
use crate::scenario::Context;

pub use args::SmallFilesArgs;

const SCENARIO: &str = "small-files";

/// Measures the wanted cases.
///
/// # Errors
/// [`UsageError`](millpond_process::UsageError) for arguments without sense; when directories
/// cannot be listed or written. Errors of single files are counted in the rows instead.
pub fn run(context: &Context, args: &SmallFilesArgs) -> Result<Vec<Row>> {
    args.validate()?;
    match &args.dir {
        Some(dir) => given::run(context, args, dir),
        None => standard::run(context, args),
    }
}
