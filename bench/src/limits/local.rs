//! A local file: in the page cache, and on the disk.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::statfs;

use super::content::Content;
use super::files::{self, Reads};
use super::group::{BYTES, Bench, Case, Impossible, Measured, READS};
use crate::record::Proof;

/// Reads of a file that is in the page cache.
pub(super) const PAGE_CACHE: &[Case] = &[
    ("seq-1m-1job", BYTES),
    ("seq-1m-4jobs", BYTES),
    ("seq-128k-1job", BYTES),
    ("mmap-1job", BYTES),
    ("rand-4k-1job", READS),
    ("rand-4k-4jobs", READS),
];
/// Reads of a file that is not.
pub(super) const DISK: &[Case] = &[
    ("seq-1m-1job", BYTES),
    ("seq-1m-4jobs", BYTES),
    ("rand-4k-1job", READS),
    ("rand-4k-4jobs", READS),
];

/// How the file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// From the page cache.
    Cached,
    /// Through the page cache, from which it was dropped.
    Buffered,
    /// Past the page cache.
    Direct,
}

pub(super) struct Local {
    path: PathBuf,
    size: u64,
    how: How,
    seed: u64,
}

/// File systems without a disk: statfs(2).
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

impl Local {
    /// A file of `size` bytes at `path`, written unless it is there, and checked.
    ///
    /// # Errors
    /// [`Impossible`] where there is no disk, or no way past the page cache.
    pub(super) fn new(path: &Path, size: u64, how: How, seed: u64) -> Result<Self> {
        let content = Content::new(seed, size);
        if !path.exists() {
            files::create(path, size, &content)?;
        }
        Reads::new(path, size, 1 << 20).verify(&content)?;
        if how != How::Cached {
            on_disk(path)?;
        }
        if how == How::Direct {
            let mut options = OpenOptions::new();
            let direct = options.read(true).custom_flags(libc::O_DIRECT).open(path);
            direct.map_err(|error| {
                Impossible(format!(
                    "the file system of {} does not read past the page cache: {error}",
                    path.display()
                ))
            })?;
        }
        Ok(Self {
            path: path.to_owned(),
            size,
            how,
            seed,
        })
    }
}

fn on_disk(path: &Path) -> Result<()> {
    let stat = statfs(path).with_context(|| format!("cannot look at {}", path.display()))?;
    // The type of the field differs between platforms.
    let kind = stat.f_type as u64 & 0xffff_ffff;
    if kind == TMPFS || kind == RAMFS {
        let why = format!(
            "{} is in memory, not on a disk: choose another --work-dir",
            path.display()
        );
        return Err(Impossible(why).into());
    }
    Ok(())
}

impl Bench for Local {
    fn measure(&self, case: &str, duration: Duration) -> Result<Measured> {
        let reads = Reads::parse(case, &self.path, self.size, self.seed)?;
        Ok(match self.how {
            How::Cached => reads.run(duration, &[])?.into(),
            How::Buffered => reads.run_cold(duration, &[])?.into(),
            How::Direct => reads.direct().run(duration, &[])?.into(),
        })
    }

    fn proof(&self) -> Proof {
        Proof {
            verified_bytes: Some(self.size),
            mismatches: Some(0),
            ..Proof::default()
        }
    }

    fn note(&self) -> Option<String> {
        let note = "caches below the file system (of the disk, of a hypervisor) were not dropped";
        (self.how != How::Cached).then(|| note.to_owned())
    }
}
