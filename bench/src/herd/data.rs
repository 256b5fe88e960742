//! The files, cold under a new name in each run.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use millpond_s3_fixture::pattern;

use crate::scenario::Context;

/// Files with known bytes. Each round has links to them in a directory of its own: to the
/// cluster these are other files, of which it has nothing yet.
#[derive(Debug)]
pub(super) struct Data {
    root: PathBuf,
    files: Arc<[Bytes]>,
}

impl Data {
    /// Writes `files` files of `size` bytes together, for so many rounds.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub(super) fn write(context: &Context, size: u64, files: usize, rounds: usize) -> Result<Self> {
        let root = context.new_dir("herd-data")?;
        let share = size / files as u64;
        let mut contents = Vec::new();
        for number in 0..files as u64 {
            let rest = if number == 0 { size % files as u64 } else { 0 };
            let len = usize::try_from(share + rest).context("a file is too large")?;
            contents.push(pattern(context.seed ^ (number << 40), 0, len));
        }
        let data = Self {
            root,
            files: contents.into(),
        };
        // Links change the files they link to: all of them before anything is read.
        for round in 0..rounds {
            let dir = data.root.join(round.to_string());
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            for (number, bytes) in data.files.iter().enumerate() {
                let path = data.root.join(Self::path(round, number));
                let written = match round {
                    0 => fs::write(&path, bytes),
                    _ => fs::hard_link(data.root.join(Self::path(0, number)), &path),
                };
                written.with_context(|| format!("writing {}", path.display()))?;
            }
        }
        Ok(data)
    }

    /// The UFS that holds them.
    pub(super) fn uri(&self) -> String {
        format!("file://{}", self.root.display())
    }

    /// The path of a file in a round, below the UFS.
    pub(super) fn path(round: usize, number: usize) -> String {
        format!("{round}/{number:05}")
    }

    /// What the files hold.
    pub(super) fn files(&self) -> &Arc<[Bytes]> {
        &self.files
    }

    /// How many blocks of that size they have.
    pub(super) fn blocks(&self, block_size: u64) -> u64 {
        let of_file = |bytes: &Bytes| (bytes.len() as u64).div_ceil(block_size);
        self.files.iter().map(of_file).sum()
    }
}
