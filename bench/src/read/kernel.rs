//! The kernel's pages of many files: counted, and dropped.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise, fdatasync};

use super::layout::FileInfo;
use crate::limits::pages;
use crate::record::KernelCache;

/// Bytes of the files below `root` that the kernel has in memory, in whole pages.
///
/// # Errors
/// When a file cannot be looked at.
pub(crate) fn resident(root: &Path, files: &[FileInfo]) -> Result<u64> {
    let mut bytes = 0;
    for info in files {
        bytes += pages::resident(&root.join(&info.path))?;
    }
    Ok(bytes)
}

/// That they are meant to be there.
///
/// # Errors
/// When a file cannot be looked at.
pub(crate) fn kept(root: &Path, files: &[FileInfo]) -> Result<KernelCache> {
    let resident = resident(root, files)?;
    Ok(KernelCache::Kept { resident })
}

/// Has the kernel drop its pages of all files below `root`, and looks whether it did.
///
/// # Errors
/// When a file cannot be looked at.
pub(crate) fn drop_pages(root: &Path, files: &[FileInfo]) -> Result<KernelCache> {
    let before = resident(root, files)?;
    for info in files {
        let path = root.join(&info.path);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        // Pages that are not on the disk yet stay. File systems that are only read may not
        // know the call.
        let _ = fdatasync(&file);
        if let Err(errno) = fadvise(&file, 0, None, Advice::DontNeed) {
            return Ok(KernelCache::CouldNotDrop {
                why: errno.to_string(),
            });
        }
    }
    let after = resident(root, files)?;
    Ok(KernelCache::Dropped { before, after })
}

/// Drops the whole machine's page cache, dentries and inodes.
///
/// # Errors
/// Without root.
pub(crate) fn drop_everything() -> Result<()> {
    // Dirty pages cannot be dropped.
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3")
        .context("cannot drop the page cache through /proc/sys/vm/drop_caches")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("a", 100_000), ("b", 0), ("c", 1)].map(|(path, size)| FileInfo {
            path: path.to_owned(),
            size,
        });
        for info in &files {
            std::fs::write(dir.path().join(&info.path), vec![1; info.size as usize]).unwrap();
        }
        let page = rustix::param::page_size() as u64;
        let most = 100_000_u64.div_ceil(page) * page + page;
        assert!(resident(dir.path(), &files).unwrap() <= most);
        let dropped = drop_pages(dir.path(), &files).unwrap();
        assert!(
            matches!(dropped, KernelCache::Dropped { before, after } if after <= before),
            "{dropped:?}"
        );
        assert!(resident(Path::new("/nowhere"), &files).is_err());
    }
}
