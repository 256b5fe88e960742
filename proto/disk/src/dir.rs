//! Whose a directory is, and the walk over what is in it.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use millpond_proto::ClusterId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::DiskError;

/// What a directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirKind {
    /// One file per block.
    Blocks,
    /// One sparse file per file version.
    Files,
}

/// A directory of a cache; not necessarily there, or ours, before it is claimed.
#[derive(Debug)]
pub struct CacheDir {
    path: PathBuf,
    kind: DirKind,
}

/// Keeps other processes out of a directory while it lives. The system frees it when the
/// process dies.
#[derive(Debug)]
pub struct DirLock {
    file: File,
    /// The file system of the directory.
    device: u64,
}

impl Drop for DirLock {
    /// Closing the file would not do at once: a child that another thread is just starting
    /// has it open too, until it runs its program.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// What has become of a directory that was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenure {
    /// It is there and ours.
    Ours,
    /// It was removed. What is there now is on the same file system: it may be claimed again.
    Lost,
    /// Another file system is where it was, such as the one that it was mounted on. Nothing
    /// may be written there.
    Replaced,
}

/// Says that a directory is ours.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    /// Hexadecimal; absent in the directory of a standalone client.
    cluster: Option<String>,
}

const LOCK: &str = "lock";

/// What a new file system puts into its root.
const LOST_AND_FOUND: &str = "lost+found";

/// Threads that list directories: listing waits for the disk, not for the CPU.
const SCANNERS: usize = 4;

impl DirKind {
    const ALL: [Self; 2] = [Self::Blocks, Self::Files];

    const fn marker(self) -> &'static str {
        match self {
            Self::Blocks => "millpond-store.json",
            Self::Files => "millpond-cache.json",
        }
    }

    /// The layout of directories that this release reads and writes.
    const fn format(self) -> u32 {
        match self {
            Self::Blocks | Self::Files => 1,
        }
    }
}

impl fmt::Display for DirKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocks => "block directory",
            Self::Files => "cache directory",
        })
    }
}

impl CacheDir {
    /// The directory at `path`, which is not touched.
    pub const fn new(path: PathBuf, kind: DirKind) -> Self {
        Self { path, kind }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that says whose the directory is; not empty once it is claimed.
    pub fn marker(&self) -> PathBuf {
        self.path.join(self.kind.marker())
    }

    /// The directory of what has an id that begins with this byte.
    pub fn fan(&self, first: u8) -> PathBuf {
        self.path.join(format!("{first:02x}"))
    }

    /// Takes the directory for this process and `cluster`, making it one of ours if it is
    /// new or empty. Nothing is written into one that is somebody else's.
    ///
    /// # Errors
    /// - `Busy` when another process has it.
    /// - `Invalid` when it belongs to another cluster, is of another format or kind, or is
    ///   somebody else's.
    /// - `Denied` or `Unavailable` when it cannot be used.
    pub fn claim(&self, cluster: Option<&ClusterId>) -> Result<DirLock, DiskError> {
        fs::create_dir_all(&self.path).map_err(|e| DiskError::io("create", &self.path, e))?;
        let marker = self.marker();
        if !marker.exists() {
            self.refuse_foreign()?;
        }
        let lock = self.lock()?;
        let cluster = cluster.map(ToString::to_string);
        match fs::read(&marker) {
            Ok(text) => self.check_marker(&text, cluster)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.write_marker(cluster)?,
            Err(error) => return Err(DiskError::io("read", &marker, error)),
        }
        Ok(lock)
    }

    /// Whether the directory is still the one that `lock` was got for.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn tenure(&self, lock: &DirLock) -> io::Result<Tenure> {
        match fs::metadata(self.path.join(LOCK)) {
            Ok(found) => {
                let held = lock.file.metadata()?;
                if (found.dev(), found.ino()) == (held.dev(), held.ino()) {
                    return Ok(Tenure::Ours);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for path in self.path.ancestors() {
            match fs::metadata(path) {
                Ok(found) if found.dev() == lock.device => return Ok(Tenure::Lost),
                Ok(_) => return Ok(Tenure::Replaced),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Tenure::Replaced)
    }

    /// Makes a directory in it and removes the files that are there. Only for who has the
    /// lock.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn empty(&self, name: &str) -> Result<(), DiskError> {
        let dir = self.path.join(name);
        fs::create_dir_all(&dir).map_err(|e| DiskError::io("create", &dir, e))?;
        for entry in fs::read_dir(&dir).map_err(|e| DiskError::io("list", &dir, e))? {
            let path = entry.map_err(|e| DiskError::io("list", &dir, e))?.path();
            fs::remove_file(&path).map_err(|e| DiskError::io("remove", &path, e))?;
        }
        Ok(())
    }

    /// What `scan_fan` finds in all 256 directories of ids, in no order. Several are looked
    /// at at one time.
    ///
    /// # Errors
    /// The first that comes, as [`DiskError::Io`].
    pub fn scan<T: Send>(
        &self,
        scan_fan: impl Fn(&Path) -> io::Result<Vec<T>> + Sync,
    ) -> Result<Vec<T>, DiskError> {
        let next = AtomicU32::new(0);
        let all = Mutex::new(Ok(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..SCANNERS {
                scope.spawn(|| {
                    while let Ok(first) = u8::try_from(next.fetch_add(1, Ordering::Relaxed)) {
                        let path = self.fan(first);
                        let found = scan_fan(&path);
                        let mut all = all.lock();
                        match (found, &mut *all) {
                            (_, Err(_)) => return,
                            (Ok(mut found), Ok(all)) => Vec::append(all, &mut found),
                            (Err(e), all) => *all = Err(DiskError::io("scan", &path, e)),
                        }
                    }
                });
            }
        });
        all.into_inner()
    }

    /// Where the marker is written before it gets its name.
    fn marker_aside(&self) -> String {
        format!("{}.tmp", self.kind.marker())
    }

    fn refuse_foreign(&self) -> Result<(), DiskError> {
        for other in DirKind::ALL {
            if other != self.kind && self.path.join(other.marker()).exists() {
                return Err(DiskError::OtherKind {
                    path: self.path.clone(),
                    found: other,
                    wanted: self.kind,
                });
            }
        }
        let list = |e| DiskError::io("list", &self.path, e);
        let aside = self.marker_aside();
        for entry in fs::read_dir(&self.path).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            // A first start that was killed leaves the lock file alone behind.
            if name != LOCK && name != LOST_AND_FOUND && name != aside.as_str() {
                return Err(DiskError::NotOurs {
                    kind: self.kind,
                    path: self.path.clone(),
                    entry: name.to_string_lossy().into_owned(),
                });
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<DirLock, DiskError> {
        let path = self.path.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| DiskError::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {
                let dir = fs::metadata(&self.path).map_err(|e| DiskError::io("read", &path, e))?;
                let device = dir.dev();
                Ok(DirLock { file, device })
            }
            Err(TryLockError::WouldBlock) => Err(DiskError::InUse {
                kind: self.kind,
                path: self.path.clone(),
            }),
            Err(TryLockError::Error(error)) => Err(DiskError::io("lock", &path, error)),
        }
    }

    fn check_marker(&self, text: &[u8], cluster: Option<String>) -> Result<(), DiskError> {
        let marker: Marker = serde_json::from_slice(text)
            .map_err(|e| DiskError::io("understand", &self.marker(), io::Error::other(e)))?;
        let kind = self.kind;
        let path = self.path.clone();
        if marker.format != kind.format() {
            return Err(DiskError::Format {
                kind,
                path,
                found: marker.format,
                expected: kind.format(),
            });
        }
        if marker.cluster != cluster {
            let name = |c: Option<String>| c.unwrap_or_else(|| "none (standalone)".to_owned());
            return Err(DiskError::OtherCluster {
                kind,
                path,
                found: name(marker.cluster),
                expected: name(cluster),
            });
        }
        Ok(())
    }

    fn write_marker(&self, cluster: Option<String>) -> Result<(), DiskError> {
        let format = self.kind.format();
        let path = self.marker();
        let aside = self.path.join(self.marker_aside());
        serde_json::to_vec_pretty(&Marker { format, cluster })
            .map_err(io::Error::other)
            .and_then(|text| fs::write(&aside, text))
            .and_then(|()| fs::rename(&aside, &path))
            .map_err(|e| DiskError::io("write", &path, e))
    }
}

#[cfg(test)]
mod tests {
    use millpond_proto::ErrorKind;
    use tempfile::TempDir;

    use super::*;

    fn dir(temp: &TempDir, kind: DirKind) -> CacheDir {
        CacheDir::new(temp.path().to_owned(), kind)
    }

    #[test]
    fn a_directory_is_free_at_once_though_a_child_has_its_lock_open() {
        let temp = tempfile::tempdir().unwrap();
        let dir = dir(&temp, DirKind::Blocks);
        let held = dir.claim(None).unwrap();
        let in_a_child = held.file.try_clone().unwrap();
        assert!(dir.claim(None).is_err());
        drop(held);
        drop(dir.claim(None).unwrap());
        drop(in_a_child);
    }

    #[test]
    fn a_directory_serves_one_process_and_one_cluster() {
        let temp = tempfile::tempdir().unwrap();
        let (one, two) = (ClusterId([1; 16]), ClusterId([2; 16]));
        for kind in DirKind::ALL {
            let dir = CacheDir::new(temp.path().join(kind.marker()), kind);
            let held = dir.claim(Some(&one)).unwrap();
            let error = dir.claim(Some(&one)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy);
            assert!(error.to_string().contains(&kind.to_string()), "{error}");
            drop(held);
            for other in [Some(&two), None] {
                let error = dir.claim(other).unwrap_err();
                assert!(matches!(error, DiskError::OtherCluster { .. }), "{error}");
                assert!(error.to_string().contains(&one.to_string()), "{error}");
            }
            drop(dir.claim(Some(&one)).unwrap());
            fs::write(dir.marker(), r#"{"format":9,"cluster":null}"#).unwrap();
            let error = dir.claim(None).unwrap_err();
            assert!(matches!(error, DiskError::Format { found: 9, .. }));
            fs::write(dir.marker(), "{").unwrap();
            let error = dir.claim(None).unwrap_err();
            assert!(error.to_string().contains("cannot understand"), "{error}");
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.tex"), "x").unwrap();
        let error = dir(&temp, DirKind::Files).claim(None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_of_the_other_kind_is_named_as_what_it_is() {
        for [is, wanted] in [
            [DirKind::Blocks, DirKind::Files],
            [DirKind::Files, DirKind::Blocks],
        ] {
            let temp = tempfile::tempdir().unwrap();
            drop(dir(&temp, is).claim(None).unwrap());
            let error = dir(&temp, wanted).claim(None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let text = error.to_string();
            assert!(
                text.contains(&format!("is a {is}, not a {wanted}")),
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_killed_start_and_mkfs_leave_is_no_hindrance() {
        let temp = tempfile::tempdir().unwrap();
        let dir = dir(&temp, DirKind::Blocks);
        fs::create_dir(temp.path().join(LOST_AND_FOUND)).unwrap();
        fs::write(temp.path().join(LOCK), "").unwrap();
        fs::write(temp.path().join(dir.marker_aside()), "half").unwrap();
        drop(dir.claim(None).unwrap());
        dir.claim(None).unwrap();
    }

    #[test]
    fn a_directory_that_was_removed_or_made_anew_is_lost_until_it_is_claimed_again() {
        let temp = tempfile::tempdir().unwrap();
        let dir = CacheDir::new(temp.path().join("a/b"), DirKind::Blocks);
        let lock = dir.claim(None).unwrap();
        assert_eq!(dir.tenure(&lock).unwrap(), Tenure::Ours);
        fs::remove_dir_all(temp.path().join("a")).unwrap();
        assert_eq!(dir.tenure(&lock).unwrap(), Tenure::Lost);
        let again = dir.claim(None).unwrap();
        assert_eq!(dir.tenure(&lock).unwrap(), Tenure::Lost);
        assert_eq!(dir.tenure(&again).unwrap(), Tenure::Ours);
    }

    #[test]
    fn another_file_system_in_its_place_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let dir = dir(&temp, DirKind::Blocks);
        let mut lock = dir.claim(None).unwrap();
        fs::remove_file(temp.path().join(LOCK)).unwrap();
        assert_eq!(dir.tenure(&lock).unwrap(), Tenure::Lost);
        lock.device ^= 1;
        assert_eq!(dir.tenure(&lock).unwrap(), Tenure::Replaced);
    }

    #[test]
    fn a_directory_is_made_and_emptied() {
        let temp = tempfile::tempdir().unwrap();
        let dir = dir(&temp, DirKind::Files);
        dir.empty("trash").unwrap();
        fs::write(temp.path().join("trash/1"), "x").unwrap();
        dir.empty("trash").unwrap();
        let left = fs::read_dir(temp.path().join("trash")).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_scan_visits_every_directory_once_and_tells_what_fails() {
        let temp = tempfile::tempdir().unwrap();
        let dir = dir(&temp, DirKind::Blocks);
        let mut all = dir.scan(|path| Ok(vec![path.to_owned()])).unwrap();
        all.sort_unstable();
        let expected: Vec<_> = (0..=u8::MAX).map(|first| dir.fan(first)).collect();
        assert_eq!(all, expected);

        let failing = dir.fan(0xa7);
        let scan = |path: &Path| {
            if path == failing {
                return Err(io::Error::other("bad sector"));
            }
            Ok(vec![()])
        };
        let error = dir.scan(scan).unwrap_err().to_string();
        assert!(error.contains("/a7"), "{error}");
    }
}
