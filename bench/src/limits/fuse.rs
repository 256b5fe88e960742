//! The null FUSE file system, and one that passes a local file through.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::content::Content;
use super::files::{self, Reads};
use super::group::{BYTES, Bench, Case, Impossible, Measured, READS};
use super::null_fuse::{NullFuse, NullFuseSettings, PassthroughFuse};
use super::workers::{self, Step};
use crate::record::{Figure, Proof};

/// The null file system, its pages dropped before each run.
pub(super) const NULL: &[Case] = &[
    ("seq-1m-1job", BYTES),
    ("seq-1m-4jobs", BYTES),
    ("seq-128k-1job", BYTES),
    ("rand-4k-1job", READS),
    ("rand-4k-4jobs", READS),
    ("stat", Figure::Ops("stats/s")),
];
/// A local file in the page cache, passed through.
pub(super) const PASSTHROUGH: &[Case] = &[
    ("seq-1m-1job", BYTES),
    ("seq-1m-4jobs", BYTES),
    ("mmap-1job", BYTES),
    ("rand-4k-1job", READS),
];

pub(super) struct Null {
    mounted: NullFuse,
    seed: u64,
}

impl Null {
    pub(super) fn new(dir: &Path, size: u64, seed: u64) -> Result<Self> {
        let settings = NullFuseSettings {
            seed,
            ..NullFuseSettings::default()
        };
        let mounted = NullFuse::start(dir, size, &settings)?;
        Reads::new(&mounted.file(0), size, 1 << 20).verify(&mounted.content())?;
        Ok(Self { mounted, seed })
    }
}

impl Bench for Null {
    fn measure(&self, case: &str, duration: Duration) -> Result<Measured> {
        let (path, server) = (self.mounted.file(0), [self.mounted.pid()]);
        if case == "stat" {
            let step: Step<'_> = Box::new(|| {
                std::fs::symlink_metadata(&path)?;
                Ok(Some(0))
            });
            return Ok(workers::threads(vec![step], Some(duration), &server)?.into());
        }
        let reads = Reads::parse(case, &path, self.mounted.size(), self.seed)?;
        Ok(reads.run_cold(duration, &server)?.into())
    }

    fn proof(&self) -> Proof {
        Proof {
            verified_bytes: Some(self.mounted.size()),
            mismatches: Some(0),
            ..Proof::default()
        }
    }
}

pub(super) struct Through {
    mounted: PassthroughFuse,
    backing: Backing,
}

struct Backing {
    path: PathBuf,
    size: u64,
    seed: u64,
}

impl Through {
    pub(super) fn new(dir: &Path, backing: &Path, size: u64, seed: u64) -> Result<Self> {
        let content = Content::new(seed, size);
        if !backing.exists() {
            files::create(backing, size, &content)?;
        }
        let mounted = PassthroughFuse::start(dir, backing)?;
        std::fs::File::open(mounted.file()).map_err(|error| {
            Impossible(format!(
                "the kernel does not pass files through for this process: {error} (it takes \
                 Linux 6.9, CAP_SYS_ADMIN, and a backing file system that allows it)"
            ))
        })?;
        let checked = Reads::new(&mounted.file(), size, 1 << 20).verify(&content);
        checked.context("through the mount")?;
        Ok(Self {
            mounted,
            backing: Backing {
                path: backing.to_owned(),
                size,
                seed,
            },
        })
    }
}

impl Bench for Through {
    fn measure(&self, case: &str, duration: Duration) -> Result<Measured> {
        let Backing { size, seed, .. } = self.backing;
        let reads = Reads::parse(case, &self.mounted.file(), size, seed)?;
        Ok(reads.run(duration, &[self.mounted.pid()])?.into())
    }

    fn limit(&self) -> Option<(&str, &dyn Bench)> {
        Some(("the backing file, read likewise", &self.backing))
    }

    fn proof(&self) -> Proof {
        Proof {
            verified_bytes: Some(self.backing.size),
            mismatches: Some(0),
            ..Proof::default()
        }
    }
}

impl Bench for Backing {
    fn measure(&self, case: &str, duration: Duration) -> Result<Measured> {
        let reads = Reads::parse(case, &self.path, self.size, self.seed)?;
        Ok(reads.run(duration, &[])?.into())
    }
}
