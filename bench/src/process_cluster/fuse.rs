//! Whether this machine can mount, and what is mounted.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use millpond_fuse::preflight;
use nix::mount::{MntFlags, umount2};

use super::env;

/// Whether the test called `test` can mount. If not it says on stdout that the test was
/// skipped, or fails where `MILLPOND_REQUIRE_FUSE=1` forbids that.
///
/// # Panics
/// When mounting is required and impossible.
pub fn fuse_or_skip(test: &str) -> bool {
    let Err(why) = preflight::check_right() else {
        return true;
    };
    assert!(
        env::switch("MILLPOND_REQUIRE_FUSE").is_none_or(|value| value == "0"),
        "{test} needs FUSE, and MILLPOND_REQUIRE_FUSE is set: {why}"
    );
    // Not by `println!`, whose output the test harness hides.
    let _ = writeln!(std::io::stdout(), "SKIPPED: {test}: {why}");
    false
}

/// Whether something is mounted at `dir`, which need not be accessible.
pub fn is_mounted(dir: &Path) -> bool {
    let Ok(mounts) = std::fs::read("/proc/self/mountinfo") else {
        return false;
    };
    mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .any(|at| unescape(at) == dir.as_os_str().as_bytes())
}

/// Detaches whatever is mounted at `dir`, as often as it is; nothing if nothing is.
pub fn unmount_lazily(dir: &Path) {
    for _ in 0..4 {
        if !is_mounted(dir) {
            return;
        }
        if umount2(dir, MntFlags::MNT_DETACH).is_err() {
            let _ = Command::new("fusermount3")
                .args(["-u", "-z"])
                .arg(dir)
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Undoes the octal escapes of mountinfo (`\040` for a space).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let escape = (field[at] == b'\\')
            .then(|| field.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escape {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(field[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_recognised() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(Path::new("/proc/self")));
        assert_eq!(unescape(br"/a\040b\134c"), b"/a b\\c");
    }
}
