//! Taking a mount away.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use millpond_proto::ErrorKind;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::mountinfo::{self, MountEntry};

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Only if nobody uses it.
    Clean,
    /// Take it out of sight now; who uses it goes on until done.
    Lazy,
    /// Abort what is under way with an I/O error, then take it away.
    Abort,
}

/// Why a mount could not be taken away.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Nothing is mounted there.
    #[error("nothing is mounted at {}", dir.display())]
    NotMounted {
        /// The directory.
        dir: PathBuf,
    },
    /// Something else is mounted there.
    #[error(
        "{} is not a mount of millpond: {source_name} (type {fs_type}) is mounted there; use umount",
        dir.display()
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// What is mounted there.
        source_name: String,
        /// Of what type.
        fs_type: String,
    },
    /// A process has an open file or its working directory there.
    #[error(
        "{} is in use (see `fuser -vm {}`); close what uses it, or take it away with --lazy \
         (users go on until done) or --force (their calls fail)",
        dir.display(),
        dir.display()
    )]
    Busy {
        /// The directory.
        dir: PathBuf,
    },
    /// This user may not unmount it.
    #[error(
        "no right to unmount {}: run as root or as the user who mounted it (which needs \
         fusermount3 from the package fuse3)",
        dir.display()
    )]
    Denied {
        /// The directory.
        dir: PathBuf,
    },
    /// The kernel refused for another reason.
    #[error("cannot unmount {}", dir.display())]
    Failed {
        /// The directory.
        dir: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl UnmountError {
    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotMounted { .. } => ErrorKind::NotFound,
            Self::NotOurs { .. } => ErrorKind::Invalid,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Failed { .. } => ErrorKind::Internal,
        }
    }
}

/// Unmounts the Millpond mount at `dir`, whoever made it, whether its process lives or not.
///
/// # Errors
/// See [`UnmountError`].
pub fn unmount(dir: &Path, force: Force) -> Result<(), UnmountError> {
    let (dir, entry) = find(dir)?;
    if !is_ours(&entry) {
        return Err(UnmountError::NotOurs {
            dir,
            source_name: entry.source,
            fs_type: entry.fs_type,
        });
    }
    detach(&dir, force)
}

/// The source of every mount of ours begins with this.
pub(crate) const SOURCE_PREFIX: &str = "millpond";

/// Unmounts whatever is at `dir`, an absolute path without links.
pub(crate) fn detach(dir: &Path, force: Force) -> Result<(), UnmountError> {
    let dir = || dir.to_owned();
    let flags = match force {
        // Links were resolved; one that appeared since is not followed.
        Force::Clean => MntFlags::UMOUNT_NOFOLLOW,
        Force::Lazy => MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
        // MNT_FORCE aborts the connection, so that nobody waits any more. Files that are
        // open would still keep it busy.
        Force::Abort => {
            let _ = umount2(&dir(), MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW);
            MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW
        }
    };
    match umount2(&dir(), flags) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(UnmountError::Busy { dir: dir() }),
        Err(Errno::EPERM) => detach_with_helper(&dir(), force),
        // The forced attempt took it away already, or somebody else did.
        Err(Errno::EINVAL | Errno::ENOENT) if force == Force::Abort => Ok(()),
        Err(Errno::EINVAL | Errno::ENOENT) => Err(UnmountError::NotMounted { dir: dir() }),
        Err(errno) => Err(UnmountError::Failed {
            dir: dir(),
            source: errno.into(),
        }),
    }
}

/// Users other than root unmount through the set-user-id helper of libfuse.
fn detach_with_helper(dir: &Path, force: Force) -> Result<(), UnmountError> {
    for helper in ["fusermount3", "fusermount"] {
        let mut command = Command::new(helper);
        command.arg("-u").arg("-q");
        if force != Force::Clean {
            command.arg("-z");
        }
        command.arg("--").arg(dir).stdin(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(_) if force == Force::Clean && is_mounted(dir) => {
                return Err(UnmountError::Busy {
                    dir: dir.to_owned(),
                });
            }
            Ok(_) | Err(_) => {}
        }
    }
    Err(UnmountError::Denied {
        dir: dir.to_owned(),
    })
}

fn is_mounted(dir: &Path) -> bool {
    mountinfo::mount_at(dir).is_ok_and(|entry| entry.is_some())
}

pub(crate) fn is_ours(entry: &MountEntry) -> bool {
    let named = entry.source == SOURCE_PREFIX
        || entry
            .source
            .strip_prefix(SOURCE_PREFIX)
            .is_some_and(|rest| rest.starts_with(':'));
    entry.fs_type.starts_with("fuse") && named
}

/// The mount at `dir`, which may be a link to it.
pub(crate) fn find(dir: &Path) -> Result<(PathBuf, MountEntry), UnmountError> {
    let not_mounted = || UnmountError::NotMounted {
        dir: dir.to_owned(),
    };
    let failed = |source| UnmountError::Failed {
        dir: dir.to_owned(),
        source,
    };
    let place = mountinfo::locate(dir).map_err(|_| not_mounted())?;
    if let Some(entry) = mountinfo::mount_at(&place).map_err(failed)? {
        return Ok((place, entry));
    }
    let place = dir.canonicalize().map_err(|_| not_mounted())?;
    let entry = mountinfo::mount_at(&place).map_err(failed)?;
    entry.map(|entry| (place, entry)).ok_or_else(not_mounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_ours_are_taken_away() {
        let error = unmount(Path::new("/proc"), Force::Clean).unwrap_err();
        assert!(matches!(error, UnmountError::NotOurs { .. }), "{error}");
        let temp = tempfile::tempdir().unwrap();
        for dir in [temp.path().to_owned(), temp.path().join("missing")] {
            let error = unmount(&dir, Force::Clean).unwrap_err();
            assert!(matches!(error, UnmountError::NotMounted { .. }), "{error}");
        }
    }

    #[test]
    fn a_mount_is_ours_by_type_and_source() {
        let entry = |fs_type: &str, source: &str| MountEntry {
            device: (0, 1),
            mount_point: PathBuf::from("/m"),
            fs_type: fs_type.to_owned(),
            source: source.to_owned(),
        };
        assert!(is_ours(&entry("fuse", "millpond")));
        assert!(is_ours(&entry("fuse.millpond", "millpond:s3://b")));
        assert!(!is_ours(&entry("fuse", "millpondish")));
        assert!(!is_ours(&entry("ext4", "millpond")));
    }
}
