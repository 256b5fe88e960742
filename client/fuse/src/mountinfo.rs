//! The kernel's list of mounts, read from `/proc/self/mountinfo`.
//!
//! Asking this list sends no request to any file system, so it answers also while a mount
//! hangs or its process is dead.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Major and minor device number of the file system.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its type, such as `ext4`, `fuse`, `fuse.millpond`.
    pub fs_type: String,
    /// What is mounted: a device, or a name of the file system's own.
    pub source: String,
}

/// All mounts of this process's mount namespace, in the order they were made.
///
/// # Errors
/// Those of reading `/proc/self/mountinfo`.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    let text = std::fs::read(MOUNTINFO)?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(parse_line).collect())
}

/// The mount at exactly `dir` (an absolute path without links), the topmost if several.
///
/// # Errors
/// As [`mounts`].
pub fn mount_at(dir: &Path) -> io::Result<Option<MountEntry>> {
    let mut all = mounts()?;
    all.reverse();
    Ok(all.into_iter().find(|entry| entry.mount_point == dir))
}

/// The absolute path of `dir` without asking `dir` itself anything, because it may hang:
/// only its parent is resolved.
///
/// # Errors
/// Those of resolving the parent.
pub fn locate(dir: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        // The root, or a path that ends in `..`.
        _ => absolute.canonicalize(),
    }
}

/// `36 35 98:0 /root /mount/point rw,noatime shared:1 - fuse.millpond source rw`.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mount_point = unescape(fields.nth(1)?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field| String::from_utf8_lossy(&unescape(field)).into_owned();
    Some(MountEntry {
        device: (major.parse().ok()?, minor.parse().ok()?),
        mount_point: PathBuf::from(OsString::from_vec(mount_point)),
        fs_type: text(rest.next()?),
        source: text(rest.next()?),
    })
}

/// Spaces, tabs, newlines and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(byte) = field.get(at) {
        let octal = field
            .get(at + 1..at + 4)
            .filter(|_| *byte == b'\\')
            .and_then(octal);
        match octal {
            Some(value) => {
                out.push(value);
                at += 4;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

const MOUNTINFO: &str = "/proc/self/mountinfo";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_and_without_optional_fields() {
        let plain = parse_line(b"36 35 0:41 / /mnt/a rw,ro - fuse millpond:s3://b rw,user_id=0");
        let expected = MountEntry {
            device: (0, 41),
            mount_point: PathBuf::from("/mnt/a"),
            fs_type: "fuse".to_owned(),
            source: "millpond:s3://b".to_owned(),
        };
        assert_eq!(plain, Some(expected.clone()));
        let shared =
            parse_line(b"36 35 0:41 / /mnt/a rw shared:1 master:2 - fuse millpond:s3://b rw");
        assert_eq!(shared, Some(expected));
        assert_eq!(parse_line(b""), None);
    }

    #[test]
    fn escapes_in_mount_points_are_undone() {
        let entry = parse_line(b"1 2 0:3 / /a\\040b\\134c\\011 rw - tmpfs x\\040y rw").unwrap();
        assert_eq!(entry.mount_point, PathBuf::from("/a b\\c\t"));
        assert_eq!(entry.source, "x y");
    }

    #[test]
    fn the_root_is_always_mounted() {
        assert!(mount_at(Path::new("/")).unwrap().is_some());
        assert_eq!(locate(Path::new("/")).unwrap(), Path::new("/"));
        assert_eq!(
            locate(Path::new("/proc/self/../..")).unwrap(),
            Path::new("/")
        );
    }
}
