//! Settings of the kernel that a mount cannot negotiate.

use std::io;
use std::path::PathBuf;

/// Sets the readahead of the mount on `device` to `kb` KiB and returns what was set before.
/// FUSE can negotiate at most 128 KiB; larger requests need this, and rights to it.
///
/// # Errors
/// Those of reading and writing the file in `/sys`.
pub(crate) fn raise_read_ahead((major, minor): (u32, u32), kb: u32) -> io::Result<u32> {
    let file = PathBuf::from(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"));
    let before = std::fs::read_to_string(&file)?;
    let before = before.trim().parse().unwrap_or(0);
    if before < kb {
        std::fs::write(&file, kb.to_string())?;
    }
    Ok(before)
}
