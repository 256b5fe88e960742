//! The kernel's pages of a file: counted, and dropped.
#![allow(
    unsafe_code,
    reason = "the kernel tells of resident pages, and lends them, only through a mapping"
)]

use std::fs::File;
use std::io;
use std::path::Path;
use std::ptr::NonNull;

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::record::KernelCache;

/// A file in this process's address space, read-only.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is only read, and stays where it is until it is dropped.
unsafe impl Send for Mapping {}

impl Mapping {
    /// The first `len` bytes of `file`; none of them is read yet.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { start, len })
    }

    /// Copies the bytes from `offset` on.
    ///
    /// # Panics
    /// When they do not all lie within the mapping.
    pub fn copy(&self, offset: usize, into: &mut [u8]) {
        assert!(
            offset
                .checked_add(into.len())
                .is_some_and(|end| end <= self.len)
        );
        // SAFETY: the range was checked, and `into` is ours alone. No reference to the mapping
        // is made, because its bytes change when somebody writes the file.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.start.add(offset).as_ptr(),
                into.as_mut_ptr(),
                into.len(),
            );
        }
    }

    /// Bytes that are in the page cache.
    fn resident(&self) -> io::Result<u64> {
        let page = rustix::param::page_size();
        let mut pages = vec![0u8; self.len.div_ceil(page)];
        // SAFETY: the mapping is `len` bytes long and `pages` has one byte for each page.
        let asked =
            unsafe { libc::mincore(self.start.as_ptr().cast(), self.len, pages.as_mut_ptr()) };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        let count = pages.iter().filter(|state| **state & 1 == 1).count();
        Ok((count * page) as u64)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing refers to any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Bytes of the file that are in the kernel's page cache.
///
/// # Errors
/// When the file cannot be opened or mapped.
pub fn resident(path: &Path) -> Result<u64> {
    let cannot = || format!("cannot look at the pages of {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let len = usize::try_from(file.metadata().with_context(cannot)?.len())?;
    if len == 0 {
        return Ok(0);
    }
    let mapping = Mapping::new(&file, len).with_context(cannot)?;
    mapping.resident().with_context(cannot)
}

/// Has the kernel drop its pages of the file, which no process may have mapped, and looks
/// whether it did.
///
/// # Errors
/// When the file cannot be opened or looked at.
pub fn drop_pages(path: &Path) -> Result<KernelCache> {
    let before = resident(path)?;
    let cannot = || format!("cannot drop the pages of {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    // Pages that are not on the disk yet stay.
    file.sync_data().with_context(cannot)?;
    if let Err(errno) = fadvise(&file, 0, None, Advice::DontNeed) {
        return Ok(KernelCache::CouldNotDrop {
            why: errno.to_string(),
        });
    }
    drop(file);
    let after = resident(path)?;
    Ok(KernelCache::Dropped { before, after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_pages_are_counted_and_copied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let page = rustix::param::page_size() as u64;
        let pages = resident(&path).unwrap();
        assert!(pages <= 100_000_u64.div_ceil(page) * page);
        let mapping = Mapping::new(&File::open(&path).unwrap(), bytes.len()).unwrap();
        let mut copy = [0; 1000];
        mapping.copy(99_000, &mut copy);
        assert_eq!(copy, bytes[99_000..]);
        assert!(std::panic::catch_unwind(move || mapping.copy(99_001, &mut copy)).is_err());
        match drop_pages(&path).unwrap() {
            KernelCache::Dropped { before, after } => assert!(before >= after),
            other => panic!("{other:?}"),
        }
    }
}
