//! Samples on disk: files of one block each, with known bytes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use millpond_s3_fixture::pattern;

use crate::scenario::Context;

/// Files in one directory, written as they are needed.
#[derive(Debug)]
pub(super) struct Dataset {
    root: PathBuf,
    seed: u64,
    sample: usize,
    written: u32,
}

impl Dataset {
    /// Without samples; each will have `sample` bytes.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub(super) fn new(context: &Context, sample: usize) -> Result<Self> {
        Ok(Self {
            root: context.new_dir("epochs-data")?,
            seed: context.seed,
            sample,
            written: 0,
        })
    }

    /// Makes sure that there are so many samples.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub(super) fn extend_to(&mut self, samples: u32) -> Result<()> {
        while self.written < samples {
            let path = self.root.join(Self::name(self.written));
            fs::write(&path, content(self.seed, self.written, self.sample))
                .with_context(|| format!("writing {}", path.display()))?;
            self.written += 1;
        }
        Ok(())
    }

    pub(super) fn uri(&self) -> String {
        format!("file://{}", self.root.display())
    }

    /// The name of the file of a sample.
    pub(super) fn name(sample: u32) -> String {
        format!("{sample:06}")
    }
}

/// What a sample holds.
pub(super) fn content(seed: u64, sample: u32, len: usize) -> Bytes {
    pattern(seed ^ (u64::from(sample) << 32), 0, len)
}
