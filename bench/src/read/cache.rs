//! Warm and cold: what is in caches before a run, and what was really dropped.
#![allow(
    unsafe_code,
    reason = "the kernel tells of resident pages only through a mapping"
)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result};

use super::args::ReadArgs;
use super::job::Workload;
use super::layout::Layout;
use super::report::CacheReport;
use super::source::Source;

/// What was done to the caches so far.
#[derive(Debug)]
pub(super) struct CacheState {
    global: bool,
    report: CacheReport,
}

impl CacheState {
    pub(super) fn new(args: &ReadArgs) -> Self {
        let state = if args.cold { "cold" } else { "warm" };
        let report = CacheReport {
            state: state.to_owned(),
            resident_before: None,
            resident_after: None,
            dropped: Vec::new(),
        };
        Self {
            global: args.drop_caches,
            report,
        }
    }

    pub(super) fn report(self) -> CacheReport {
        self.report
    }

    /// Reads everything once, unmeasured.
    pub(super) fn warm(&mut self, source: &Source, workload: &Workload<'_>) -> Result<()> {
        Workload {
            duration: None,
            ..*workload
        }
        .run(source, "warming up")?;
        self.report
            .dropped
            .push("nothing; everything was read once before".to_owned());
        Ok(())
    }

    /// Empties what can be emptied, and notes what was.
    pub(super) fn drop(&mut self, source: &mut Source, layout: &Layout) -> Result<()> {
        let mut dropped = Vec::new();
        if let Source::Dir(root) = &*source {
            let before = resident(root, layout)?;
            for file in &*layout.files {
                let file = open(root, &file.path)?;
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
                    .context("the kernel refuses to drop pages")?;
            }
            dropped.push("the kernel's pages of the files that are read".to_owned());
            if self.global {
                drop_everything()?;
                dropped.push("the whole machine's page cache, dentries and inodes".to_owned());
            }
            self.report.resident_before = Some(before);
            self.report.resident_after = Some(resident(root, layout)?);
            dropped.push("not: caches of the process behind the mount".to_owned());
        } else {
            source.renew()?;
            dropped.push("the client library's caches (a new client)".to_owned());
            if self.global {
                drop_everything()?;
                dropped.push("the whole machine's page cache, dentries and inodes".to_owned());
            }
        }
        self.report.dropped = dropped;
        Ok(())
    }
}

fn open(root: &Path, path: &str) -> Result<File> {
    let path = root.join(path);
    File::open(&path).with_context(|| format!("opening {}", path.display()))
}

fn drop_everything() -> Result<()> {
    // Dirty pages cannot be dropped.
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3")
        .context("cannot drop the page cache through /proc/sys/vm/drop_caches")
}

/// Bytes of the files that the kernel has in memory, in whole pages.
fn resident(root: &Path, layout: &Layout) -> Result<u64> {
    let mut bytes = 0;
    for info in layout.files.iter().filter(|info| info.size > 0) {
        bytes += resident_pages(&open(root, &info.path)?, info.size)
            .with_context(|| format!("asking for the resident pages of {}", info.path))?;
    }
    Ok(bytes)
}

fn resident_pages(file: &File, size: u64) -> std::io::Result<u64> {
    let page = rustix::param::page_size();
    let len = usize::try_from(size).map_err(std::io::Error::other)?;
    // SAFETY: a new read-only mapping at an address of the kernel's choice touches no memory
    // of ours; it is never read through.
    let start = unsafe {
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        libc::mmap(
            std::ptr::null_mut(),
            len,
            protection,
            flags,
            file.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    let mut pages = vec![0u8; len.div_ceil(page)];
    // SAFETY: the mapping is `len` bytes long and `pages` has one byte for each of its pages.
    let asked = unsafe { libc::mincore(start, len, pages.as_mut_ptr()) };
    let error = std::io::Error::last_os_error();
    // SAFETY: the mapping made above, which nothing refers to.
    unsafe {
        libc::munmap(start, len);
    }
    if asked != 0 {
        return Err(error);
    }
    let count = pages.iter().filter(|state| **state & 1 == 1).count();
    Ok((count * page) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_pages_are_resident_and_can_be_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![1u8; 100_000]).unwrap();
        let file = File::open(&path).unwrap();
        let page = rustix::param::page_size() as u64;
        let pages = resident_pages(&file, 100_000).unwrap();
        assert!(pages <= 100_000_u64.div_ceil(page) * page);
        assert_eq!(pages % page, 0);
    }
}
