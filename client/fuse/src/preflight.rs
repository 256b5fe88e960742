//! What is checked before a mount, so that each obstacle gets a message that says what to do.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::dead::{answers_dead, is_dead};
use crate::mounted::MountError;
use crate::mountinfo;

/// Whether a FUSE mount can be made by this process at all.
///
/// # Errors
/// [`MountError::NoDevice`] and [`MountError::DeviceDenied`].
pub fn check_device() -> Result<(), MountError> {
    let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
    match opened.map(drop) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(MountError::DeviceDenied { source: error })
        }
        Err(error) => Err(MountError::NoDevice { source: error }),
    }
}

/// Whether this process may mount: by itself, or through `fusermount3`.
///
/// # Errors
/// [`MountError::NoRight`], and those of [`check_device`].
pub fn check_right() -> Result<(), MountError> {
    check_device()?;
    if may_mount() || has_fusermount() {
        Ok(())
    } else {
        Err(MountError::NoRight)
    }
}

/// Whether CAP_SYS_ADMIN is among the effective capabilities (capabilities(7), proc(5)).
fn may_mount() -> bool {
    const SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set & (1 << SYS_ADMIN) != 0)
}

fn has_fusermount() -> bool {
    let version = Command::new("fusermount3")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// Whether something can be mounted at `dir`; returns its absolute path without links.
///
/// # Errors
/// [`MountError::Missing`], [`MountError::NotADirectory`], [`MountError::NotEmpty`],
/// [`MountError::AlreadyMounted`], [`MountError::Dead`], [`MountError::Unreadable`].
pub fn check_mount_point(dir: &Path) -> Result<PathBuf, MountError> {
    let unreadable = |source| MountError::Unreadable {
        dir: dir.to_owned(),
        source,
    };
    check_mounted(dir)?;
    let metadata = match std::fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::Missing {
                dir: dir.to_owned(),
            });
        }
        Err(error) if is_dead(&error) => {
            // The way there leads through a link.
            let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
            return Err(MountError::Dead { dir });
        }
        other => other.map_err(unreadable)?,
    };
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory {
            dir: dir.to_owned(),
        });
    }
    let dir = dir.canonicalize().map_err(unreadable)?;
    // The way there may have led through links.
    check_mounted(&dir)?;
    match std::fs::read_dir(&dir).map_err(unreadable)?.next() {
        None => Ok(dir),
        Some(_) => Err(MountError::NotEmpty { dir }),
    }
}

fn check_mounted(dir: &Path) -> Result<(), MountError> {
    let Ok(place) = mountinfo::locate(dir) else {
        // Its parent does not exist: the caller's own check says so.
        return Ok(());
    };
    let entry = mountinfo::mount_at(&place).map_err(|source| MountError::Unreadable {
        dir: place.clone(),
        source,
    })?;
    match entry {
        None => Ok(()),
        Some(entry) if entry.fs_type.starts_with("fuse") && answers_dead(&place) => {
            Err(MountError::Dead { dir: place })
        }
        Some(entry) => Err(MountError::AlreadyMounted {
            dir: place,
            source_name: entry.source,
            fs_type: entry.fs_type,
        }),
    }
}

const DEVICE: &str = "/dev/fuse";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_mount_point_is_an_empty_directory() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("mnt");
        let error = check_mount_point(&dir).unwrap_err();
        assert!(matches!(error, MountError::Missing { .. }), "{error}");
        let error = check_mount_point(&dir.join("below")).unwrap_err();
        assert!(matches!(error, MountError::Missing { .. }), "{error}");

        std::fs::write(&dir, "x").unwrap();
        let error = check_mount_point(&dir).unwrap_err();
        assert!(matches!(error, MountError::NotADirectory { .. }), "{error}");

        std::fs::remove_file(&dir).unwrap();
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(
            check_mount_point(&dir).unwrap(),
            dir.canonicalize().unwrap()
        );

        std::fs::write(dir.join("file"), "x").unwrap();
        let error = check_mount_point(&dir).unwrap_err();
        assert!(error.to_string().contains("empty directory"), "{error}");
    }

    #[test]
    fn a_mount_point_in_use_is_refused_with_what_is_there() {
        let error = check_mount_point(Path::new("/proc")).unwrap_err();
        let message = error.to_string();
        assert!(
            matches!(error, MountError::AlreadyMounted { .. }),
            "{message}"
        );
        assert!(message.contains("proc"), "{message}");
    }
}
