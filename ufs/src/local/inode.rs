//! What an inode says of a file, and when its version can be trusted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millpond_proto::{ErrorKind, FileVersion};
use rustix::fs::{FileType, OFlags, Stat};

use crate::error::{Op, UfsError};
use crate::local::blocking;
use crate::local::failure::failure;
use crate::local::root::Root;
use crate::metadata::{FileKind, Metadata};

/// What `path` is, once its version can be trusted.
///
/// A version is trusted when the inode was left alone for longer than the kernel's clock
/// ticks: any later change then gets another time. A file that does not come to rest within
/// a few ticks is given a version that no read will find, so that none of its changing bytes
/// are ever taken for one another.
pub(super) async fn settled(root: Arc<Root>, op: Op, path: String) -> Result<Metadata, UfsError> {
    let uri = root.uri_of(&path);
    let mut waits = 0;
    loop {
        let (whole, at) = (Arc::clone(&root), path.clone());
        let stat = blocking(op, &uri, move || describe(&whole, op, &at)).await?;
        let Some(mut metadata) = metadata(&stat) else {
            return Err(UfsError::new(
                ErrorKind::NotFound,
                op,
                uri,
                "it is a device, socket or pipe, which are not shown",
            ));
        };
        let fresh = metadata
            .version
            .as_ref()
            .filter(|_| is_fresh(&stat, SystemTime::now()));
        let restless = fresh.is_some_and(|version| !root.is_own(version));
        if restless && waits < MAX_WAITS {
            waits += 1;
            tokio::time::sleep(CLOCK_TICK).await;
            continue;
        }
        if restless && let Some(FileVersion::Local { ctime_ns, .. }) = &mut metadata.version {
            *ctime_ns -= 1;
        }
        return Ok(metadata);
    }
}

/// What an inode says; `None` for what is neither a file, a directory nor a link.
pub(super) fn metadata(stat: &Stat) -> Option<Metadata> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => return None,
    };
    Some(Metadata {
        kind,
        size: match kind {
            FileKind::Directory => 0,
            FileKind::File | FileKind::Symlink => u64::try_from(stat.st_size).unwrap_or(0),
        },
        version: (kind == FileKind::File).then(|| version(stat)),
        mtime: Some(time(nanos(stat.st_mtime, stat.st_mtime_nsec))),
        atime: Some(time(nanos(stat.st_atime, stat.st_atime_nsec))),
        ctime: Some(time(nanos(stat.st_ctime, stat.st_ctime_nsec))),
        mode: Some(stat.st_mode & 0o7777),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
        nlink: Some(u32::try_from(stat.st_nlink).unwrap_or(u32::MAX)),
    })
}

/// The version of a file.
pub(super) fn version(stat: &Stat) -> FileVersion {
    FileVersion::Local {
        mtime_ns: nanos(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: nanos(stat.st_ctime, stat.st_ctime_nsec),
        ino: stat.st_ino,
    }
}

/// The modification time in nanoseconds.
pub(super) fn mtime(stat: &Stat) -> i64 {
    nanos(stat.st_mtime, stat.st_mtime_nsec)
}

/// Whether the modification time is another than that of the last change, which the kernel's
/// clock gave. A write within the same tick would make the two the same, and one in a later
/// tick has a later time; so the version tells every write that comes, however fresh it is.
pub(super) fn differs_from_clock(stat: &Stat) -> bool {
    mtime(stat) != nanos(stat.st_ctime, stat.st_ctime_nsec)
}

/// Whether the inode changed so shortly before `now` that a further change could get the
/// same time. A time far in the future is a clock of another machine, not a fresh change.
pub(super) fn is_fresh(stat: &Stat, now: SystemTime) -> bool {
    let changed = time(nanos(stat.st_ctime, stat.st_ctime_nsec));
    match now.duration_since(changed) {
        Ok(age) => age < CLOCK_TICK,
        Err(ahead) => ahead.duration() < Duration::from_secs(1),
    }
}

fn describe(root: &Root, op: Op, path: &str) -> Result<Stat, UfsError> {
    let fd = root.open_below(op, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    rustix::fs::fstat(&fd).map_err(|errno| failure(errno, op, root.uri_of(path)))
}

fn nanos(seconds: impl Into<i128>, nanoseconds: impl Into<i128>) -> i64 {
    let nanos = seconds.into() * 1_000_000_000 + nanoseconds.into();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

fn time(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    match nanos < 0 {
        true => SystemTime::UNIX_EPOCH - distance,
        false => SystemTime::UNIX_EPOCH + distance,
    }
}

/// Twice the longest tick of the coarse clock (CONFIG_HZ of 100).
const CLOCK_TICK: Duration = Duration::from_millis(20);
const MAX_WAITS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_fresh_for_some_ticks_of_the_clock() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let stat = rustix::fs::fstat(file.as_file()).expect("it is open");
        let changed = time(nanos(stat.st_ctime, stat.st_ctime_nsec));
        let after = |millis| is_fresh(&stat, changed + Duration::from_millis(millis));
        assert!(after(0) && after(10));
        assert!(!after(20) && !after(10_000));
        let before = |millis| is_fresh(&stat, changed - Duration::from_millis(millis));
        assert!(before(5), "a clock that lags a little");
        assert!(!before(60_000), "a clock of another machine");
    }

    #[test]
    fn times_before_the_epoch_survive() {
        let nanos = nanos(-2, 5);
        assert_eq!(nanos, -1_999_999_995);
        assert_eq!(
            time(nanos),
            SystemTime::UNIX_EPOCH - Duration::from_nanos(1_999_999_995)
        );
    }
}
