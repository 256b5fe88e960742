//! Mounts whose process has ended without taking them away: killed, or crashed.
//!
//! The kernel keeps such a mount, and answers every call below it with "transport endpoint is
//! not connected".

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::unmount::{Force, UnmountError, detach, find, is_ours};

/// Where the mount of ours at `dir` is, without links, if its process has ended. None if it
/// lives, or something else or nothing is mounted there.
///
/// # Errors
/// [`UnmountError::Failed`] when the kernel's list of mounts cannot be read.
pub fn dead_mount(dir: &Path) -> Result<Option<PathBuf>, UnmountError> {
    match find(dir) {
        Ok((place, entry)) if is_ours(&entry) && answers_dead(&place) => Ok(Some(place)),
        Ok(_) | Err(UnmountError::NotMounted { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes away all mounts of ours at `dir` whose processes have ended; the number of them.
///
/// # Errors
/// See [`UnmountError`].
pub fn clear(dir: &Path) -> Result<usize, UnmountError> {
    let mut cleared = 0;
    while let Some(place) = dead_mount(dir)? {
        // Whoever still has a file of it open gets errors in any case.
        detach(&place, Force::Lazy)?;
        tracing::warn!(mount = %place.display(), "took away a mount whose process had ended");
        cleared += 1;
    }
    Ok(cleared)
}

/// Whether the process behind the FUSE mount at `dir` is gone. A mount that does not answer
/// in time counts as alive.
pub(crate) fn answers_dead(dir: &Path) -> bool {
    let (sender, receiver) = mpsc::sync_channel(1);
    let dir = dir.to_owned();
    let asked = std::thread::Builder::new().spawn(move || {
        let dead = File::open(&dir)
            .and_then(|file| file.metadata())
            .is_err_and(|error| is_dead(&error));
        let _ = sender.send(dead);
    });
    asked.is_ok() && receiver.recv_timeout(PATIENCE).unwrap_or(false)
}

/// "Transport endpoint is not connected".
pub(crate) fn is_dead(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOTCONN | libc::ECONNABORTED)
    )
}

/// How long a mount may take to show that it is alive.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lives_or_is_not_ours_stays() {
        let temp = tempfile::tempdir().unwrap();
        for dir in [Path::new("/proc"), temp.path(), &temp.path().join("none")] {
            assert_eq!(dead_mount(dir).unwrap(), None);
            assert_eq!(clear(dir).unwrap(), 0);
        }
    }
}
