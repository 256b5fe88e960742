//! Names in a cache directory, and whose it is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_proto::{ClusterId, FileId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::DiskError;

/// The layout of directories that this release reads and writes.
const FORMAT: u32 = 1;

const MARKER: &str = "millpond-cache.json";
const LOCK: &str = "lock";
const TRASH: &str = "trash";

/// The marker of a directory of blocks.
const BLOCK_MARKER: &str = "millpond-store.json";

/// What a new file system puts into its root.
const LOST_AND_FOUND: &str = "lost+found";

/// How the file with a cached file's bytes is called, after its id.
pub(super) const DATA: &str = "data";

/// How the file that says which of them are there is called.
pub(super) const MAP: &str = "map";

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    /// Hexadecimal; absent in the directory of a standalone client.
    cluster: Option<String>,
}

/// The paths of one cache directory.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
    next_trash: AtomicU64,
}

impl Layout {
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            next_trash: AtomicU64::new(0),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of the files whose ids begin with this byte.
    pub(super) fn fan(&self, first: u8) -> PathBuf {
        self.dir.join(format!("{first:02x}"))
    }

    /// The file with the bytes of a cached file.
    pub(super) fn data(&self, file: FileId) -> PathBuf {
        self.fan(file.0[0]).join(format!("{file}.{DATA}"))
    }

    /// The file that says which of them are there.
    pub(super) fn map(&self, file: FileId) -> PathBuf {
        self.fan(file.0[0]).join(format!("{file}.{MAP}"))
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
        let trash = self.dir.join(TRASH).join(number.to_string());
        absent_is_fine(fs::rename(self.data(file), &trash))?;
        Ok(trash)
    }

    /// Takes the directory for this process and `cluster`, making it one of ours if it is
    /// new or empty. The returned file holds the lock.
    pub(super) fn claim(&self, cluster: Option<&ClusterId>) -> Result<File, DiskError> {
        fs::create_dir_all(&self.dir).map_err(|e| DiskError::io("create", &self.dir, e))?;
        let marker_path = self.dir.join(MARKER);
        if !marker_path.exists() {
            self.refuse_foreign()?;
        }
        let lock = self.lock()?;
        let cluster = cluster.map(ToString::to_string);
        match fs::read(&marker_path) {
            Ok(text) => self.check_marker(&text, cluster)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.write_marker(&marker_path, cluster)?;
            }
            Err(error) => return Err(DiskError::io("read", &marker_path, error)),
        }
        Ok(lock)
    }

    /// Makes the directories there are to be, and empties `trash/`: nobody else uses it while
    /// we hold the lock.
    pub(super) fn prepare(&self) -> Result<(), DiskError> {
        let trash = self.dir.join(TRASH);
        for dir in (0..=u8::MAX)
            .map(|first| self.fan(first))
            .chain([trash.clone()])
        {
            fs::create_dir_all(&dir).map_err(|e| DiskError::io("create", &dir, e))?;
        }
        let entries = fs::read_dir(&trash).map_err(|e| DiskError::io("list", &trash, e))?;
        for entry in entries {
            let path = entry.map_err(|e| DiskError::io("list", &trash, e))?.path();
            fs::remove_file(&path).map_err(|e| DiskError::io("remove", &path, e))?;
        }
        Ok(())
    }

    fn refuse_foreign(&self) -> Result<(), DiskError> {
        if self.dir.join(BLOCK_MARKER).exists() {
            return Err(DiskError::Blocks {
                path: self.dir.clone(),
            });
        }
        let list = |e| DiskError::io("list", &self.dir, e);
        for entry in fs::read_dir(&self.dir).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            // A first start that was killed leaves the lock file alone behind.
            if name != LOCK && name != LOST_AND_FOUND && name != format!("{MARKER}.tmp").as_str() {
                return Err(DiskError::NotOurs {
                    path: self.dir.clone(),
                    entry: name.to_string_lossy().into_owned(),
                });
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<File, DiskError> {
        let path = self.dir.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| DiskError::io("open", &path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DiskError::InUse {
                path: self.dir.clone(),
            }),
            Err(error) => Err(DiskError::io("lock", &path, error.into())),
        }
    }

    fn check_marker(&self, text: &[u8], cluster: Option<String>) -> Result<(), DiskError> {
        let path = || self.dir.clone();
        let marker: Marker = serde_json::from_slice(text).map_err(|e| {
            DiskError::io("understand", &self.dir.join(MARKER), io::Error::other(e))
        })?;
        if marker.format != FORMAT {
            return Err(DiskError::Format {
                path: path(),
                found: marker.format,
                expected: FORMAT,
            });
        }
        if marker.cluster != cluster {
            let name = |c: Option<String>| c.unwrap_or_else(|| "none (standalone)".to_owned());
            return Err(DiskError::OtherCluster {
                path: path(),
                found: name(marker.cluster),
                expected: name(cluster),
            });
        }
        Ok(())
    }

    fn write_marker(&self, path: &Path, cluster: Option<String>) -> Result<(), DiskError> {
        let marker = Marker {
            format: FORMAT,
            cluster,
        };
        let aside = self.dir.join(format!("{MARKER}.tmp"));
        serde_json::to_vec_pretty(&marker)
            .map_err(io::Error::other)
            .and_then(|text| fs::write(&aside, text))
            .and_then(|()| fs::rename(&aside, path))
            .map_err(|e| DiskError::io("write", path, e))
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
