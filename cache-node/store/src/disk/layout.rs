//! Names in a block directory.

use std::fs;
use std::io;
use std::path::PathBuf;

use millpond_disk::{CacheDir, DirKind, DirLock, DiskError};
use millpond_proto::{BlockId, ClusterId};

const TMP: &str = "tmp";

/// The paths of one block directory.
#[derive(Debug)]
pub(super) struct Layout {
    dir: CacheDir,
}

impl Layout {
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self {
            dir: CacheDir::new(dir, DirKind::Blocks),
        }
    }

    pub(super) const fn dir(&self) -> &CacheDir {
        &self.dir
    }

    /// Takes the directory, and removes what an earlier process left half-written.
    pub(super) fn claim(&self, cluster: Option<&ClusterId>) -> Result<DirLock, DiskError> {
        let lock = self.dir.claim(cluster)?;
        self.dir.empty(TMP)?;
        Ok(lock)
    }

    /// The file of a block.
    pub(super) fn block(&self, id: &BlockId) -> PathBuf {
        let mut path = self.dir.fan(id.file.0[0]);
        path.push(hex::encode([id.file.0[1]]));
        path.push(id.to_string());
        path
    }

    /// The file that a block is written to.
    pub(super) fn tmp(&self, number: u64) -> PathBuf {
        self.dir.path().join(TMP).join(number.to_string())
    }

    /// Creates the directory that a block's file is in.
    pub(super) fn ensure_parent(&self, id: &BlockId) -> io::Result<()> {
        let path = self.block(id);
        match path.parent() {
            Some(parent) => fs::create_dir_all(parent),
            None => Ok(()),
        }
    }
}
