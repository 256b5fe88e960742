//! Names in a block directory, and whose it is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use millpond_proto::{BlockId, ClusterId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// The layout of directories that this release reads and writes.
const FORMAT: u32 = 1;

const MARKER: &str = "millpond-store.json";
const LOCK: &str = "lock";
const TMP: &str = "tmp";

/// What a new file system puts into its root.
const LOST_AND_FOUND: &str = "lost+found";

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    /// Hexadecimal; absent in the directory of a standalone client.
    cluster: Option<String>,
}

/// The paths of one block directory.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of the files whose ids begin with these two digits.
    pub(super) fn fan(&self, first: u8) -> PathBuf {
        self.dir.join(hex::encode([first]))
    }

    /// The file of a block.
    pub(super) fn block(&self, id: &BlockId) -> PathBuf {
        let mut path = self.fan(id.file.0[0]);
        path.push(hex::encode([id.file.0[1]]));
        path.push(id.to_string());
        path
    }

    /// The file that a block is written to.
    pub(super) fn tmp(&self, number: u64) -> PathBuf {
        self.dir.join(TMP).join(number.to_string())
    }

    /// Creates the directory that a block's file is in.
    pub(super) fn ensure_parent(&self, id: &BlockId) -> io::Result<()> {
        let path = self.block(id);
        match path.parent() {
            Some(parent) => fs::create_dir_all(parent),
            None => Ok(()),
        }
    }

    /// Takes the directory for this process and `cluster`, making it one of ours if it is
    /// new or empty. The returned file holds the lock.
    pub(super) fn claim(&self, cluster: Option<&ClusterId>) -> Result<File, StoreError> {
        fs::create_dir_all(&self.dir).map_err(|e| self.io("create", &self.dir, e))?;
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
            Err(error) => return Err(self.io("read", &marker_path, error)),
        }
        Ok(lock)
    }

    /// Empties `tmp/`: nobody writes there while we hold the lock.
    pub(super) fn clear_tmp(&self) -> Result<(), StoreError> {
        let tmp = self.dir.join(TMP);
        fs::create_dir_all(&tmp).map_err(|e| self.io("create", &tmp, e))?;
        let entries = fs::read_dir(&tmp).map_err(|e| self.io("list", &tmp, e))?;
        for entry in entries {
            let path = entry.map_err(|e| self.io("list", &tmp, e))?.path();
            fs::remove_file(&path).map_err(|e| self.io("remove", &path, e))?;
        }
        Ok(())
    }

    fn refuse_foreign(&self) -> Result<(), StoreError> {
        let entries = fs::read_dir(&self.dir).map_err(|e| self.io("list", &self.dir, e))?;
        for entry in entries {
            let name = entry
                .map_err(|e| self.io("list", &self.dir, e))?
                .file_name();
            // A first start that was killed leaves the lock file alone behind.
            if name != LOCK && name != LOST_AND_FOUND && name != format!("{MARKER}.tmp").as_str() {
                return Err(StoreError::NotOurs {
                    path: self.dir.clone(),
                    entry: name.to_string_lossy().into_owned(),
                });
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = self.dir.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| self.io("open", &path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse {
                path: self.dir.clone(),
            }),
            Err(error) => Err(self.io("lock", &path, error.into())),
        }
    }

    fn check_marker(&self, text: &[u8], cluster: Option<String>) -> Result<(), StoreError> {
        let path = || self.dir.clone();
        let marker: Marker = serde_json::from_slice(text)
            .map_err(|e| self.io("understand", &self.dir.join(MARKER), io::Error::other(e)))?;
        if marker.format != FORMAT {
            return Err(StoreError::Format {
                path: path(),
                found: marker.format,
                expected: FORMAT,
            });
        }
        if marker.cluster != cluster {
            let name = |c: Option<String>| c.unwrap_or_else(|| "none (standalone)".to_owned());
            return Err(StoreError::OtherCluster {
                path: path(),
                found: name(marker.cluster),
                expected: name(cluster),
            });
        }
        Ok(())
    }

    fn write_marker(&self, path: &Path, cluster: Option<String>) -> Result<(), StoreError> {
        let marker = Marker {
            format: FORMAT,
            cluster,
        };
        let aside = self.dir.join(format!("{MARKER}.tmp"));
        serde_json::to_vec_pretty(&marker)
            .map_err(io::Error::other)
            .and_then(|text| fs::write(&aside, text))
            .and_then(|()| fs::rename(&aside, path))
            .map_err(|e| self.io("write", path, e))
    }

    #[allow(clippy::unused_self, reason = "reads better where it is used")]
    fn io(&self, doing: &'static str, path: &Path, source: io::Error) -> StoreError {
        StoreError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}
