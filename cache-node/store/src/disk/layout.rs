//! Names in a block directory.

use std::io;
use std::path::{Path, PathBuf};

use millpond_disk::{CacheDir, DirKind, DirLock, DiskError};
use millpond_proto::{BlockId, ClusterId};

use super::files::Files;

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

    /// The file that a probe writes. It has no account: it is small, and gone at once.
    pub(super) fn probe(&self) -> PathBuf {
        self.dir.path().join(TMP).join("probe")
    }

    /// Makes the directories that a block's file is in, in that of the tier. That one is not
    /// made: when it is gone, what is in its place may be another file system.
    pub(super) fn ensure_parent(&self, files: &Files, id: &BlockId) -> io::Result<()> {
        let path = self.block(id);
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        match ensure(files, parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ensure(files, &self.dir.fan(id.file.0[0]))?;
                ensure(files, parent)
            }
            outcome => outcome,
        }
    }

    /// Makes the directory of files that are being written, in that of the tier.
    pub(super) fn ensure_tmp(&self, files: &Files) -> io::Result<()> {
        ensure(files, &self.dir.path().join(TMP))
    }
}

fn ensure(files: &Files, dir: &Path) -> io::Result<()> {
    match files.make_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}
