//! Names in a cache directory.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_disk::{CacheDir, DirKind, DirLock, DiskError};
use millpond_proto::{ClusterId, FileId};

const TRASH: &str = "trash";

/// How the file with a cached file's bytes is called, after its id.
pub(super) const DATA: &str = "data";

/// How the file that says which of them are there is called.
pub(super) const MAP: &str = "map";

/// The paths of one cache directory.
#[derive(Debug)]
pub(super) struct Layout {
    dir: CacheDir,
    next_trash: AtomicU64,
}

impl Layout {
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self {
            dir: CacheDir::new(dir, DirKind::Files),
            next_trash: AtomicU64::new(0),
        }
    }

    pub(super) const fn dir(&self) -> &CacheDir {
        &self.dir
    }

    /// Takes the directory, makes the directories there are to be, and finishes what an
    /// earlier process was removing.
    pub(super) fn claim(&self, cluster: Option<&ClusterId>) -> Result<DirLock, DiskError> {
        let lock = self.dir.claim(cluster)?;
        for dir in (0..=u8::MAX).map(|first| self.dir.fan(first)) {
            fs::create_dir_all(&dir).map_err(|e| DiskError::io("create", &dir, e))?;
        }
        self.dir.empty(TRASH)?;
        Ok(lock)
    }

    /// The file with the bytes of a cached file.
    pub(super) fn data(&self, file: FileId) -> PathBuf {
        self.dir.fan(file.0[0]).join(format!("{file}.{DATA}"))
    }

    /// The file that says which of them are there.
    pub(super) fn map(&self, file: FileId) -> PathBuf {
        self.dir.fan(file.0[0]).join(format!("{file}.{MAP}"))
    }

    /// Makes the names of a cached file free, at once and whatever its size. What is left to
    /// be unlinked, for as long as that takes, is returned.
    ///
    /// # Errors
    /// Those of renaming the bytes; the file is then still there, but without its map, so
    /// that the next start removes it.
    pub(super) fn put_aside(&self, file: FileId) -> io::Result<PathBuf> {
        absent_is_fine(fs::remove_file(self.map(file)))?;
        let number = self.next_trash.fetch_add(1, Ordering::Relaxed);
        let trash = self.dir.path().join(TRASH).join(number.to_string());
        absent_is_fine(fs::rename(self.data(file), &trash))?;
        Ok(trash)
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
