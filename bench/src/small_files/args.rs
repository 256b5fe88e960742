//! The flags of `millpond-bench small-files`.

use std::path::PathBuf;

use clap::Args;
use millpond_process::{Size, UsageError};

use crate::scenario::CommonArgs;

/// The most threads.
const MAX_WORKERS: usize = 1024;
/// The most files that are made.
const MAX_FILES: usize = 10_000_000;
/// The largest file that is small.
const MAX_SIZE: u64 = 64 << 20;

const EXAMPLES: &str = "\
Examples:
  2,000 files of 128 KiB in 20 directories, on a mount of its own:
    millpond-bench small-files
  More and smaller ones, through the nodes of a cluster:
    millpond-bench small-files --files 20000 --size 4KiB --dirs 200 --nodes 3
  Whatever is on another product's mount:
    millpond-bench small-files --dir /mnt/other --workers 1,8,32";

/// List, stat and read many small files, and say how many a second, beside the same files on
/// the local file system; without --dir on a mount of its own.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct SmallFilesArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
    /// Directory whose files are read: any mount, ours or another's, or a local one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["files", "size", "dirs", "nodes"])]
    pub dir: Option<PathBuf>,
    /// Files [default: 2000, with --quick 600]
    #[arg(long, value_name = "N")]
    pub files: Option<usize>,
    /// Bytes of each file
    #[arg(long, value_name = "SIZE", default_value = "128KiB")]
    pub size: Size,
    /// Directories that they are in [default: one for 100 files]
    #[arg(long, value_name = "N")]
    pub dirs: Option<usize>,
    /// Threads that read at once; several are measured one after the other [default: 1,8,32]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub workers: Vec<usize>,
    /// Mount a cluster of so many cache nodes in place of the store itself; cases then begin
    /// with `cluster` in place of `fuse`
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub nodes: usize,
}

impl SmallFilesArgs {
    /// All flags but the common ones at their defaults.
    pub const fn standard(common: CommonArgs) -> Self {
        Self {
            common,
            dir: None,
            files: None,
            size: Size(128 << 10),
            dirs: None,
            workers: Vec::new(),
            nodes: 0,
        }
    }

    /// Checks what the parser cannot.
    ///
    /// # Errors
    /// [`UsageError`] that names the flag.
    pub(super) fn validate(&self) -> Result<(), UsageError> {
        let wrong = |message: String| Err(UsageError::new(message));
        if let Some(dir) = &self.dir
            && !dir.is_dir()
        {
            return wrong(format!("{} is not a directory", dir.display()));
        }
        if let Some(files) = self.files.filter(|files| !(1..=MAX_FILES).contains(files)) {
            return wrong(format!("--files {files} is not in 1..={MAX_FILES}"));
        }
        if !(1..=MAX_SIZE).contains(&self.size.bytes()) {
            return wrong(format!("--size {} is not in 1B..=64MiB", self.size));
        }
        if self.dirs == Some(0) {
            return wrong("--dirs 0 has no place for a file".to_owned());
        }
        let workers = self.workers.iter().find(|n| !(1..=MAX_WORKERS).contains(n));
        if let Some(workers) = workers {
            return wrong(format!("--workers {workers} is not in 1..={MAX_WORKERS}"));
        }
        if self.nodes > 64 {
            return wrong(format!("--nodes {} is more than 64", self.nodes));
        }
        Ok(())
    }

    pub(super) fn workers(&self) -> &[usize] {
        match &*self.workers {
            [] => &[1, 8, 32],
            given => given,
        }
    }
}
