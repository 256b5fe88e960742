//! The under-store alone: one copy in parallel ranged GETs.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use millpond_ufs::{Ufs, UfsContext};

use crate::measure::Sample;
use crate::scenario::Context;
use crate::ufs_reads::{Check, UfsFile, parallel_reads};

use super::data::Data;

/// Parallel reads that are tried; the fastest is what the herd is held against.
const PARALLEL: [usize; 3] = [8, 32, 64];
/// No more than this is read to find that out.
const TRIAL: u64 = 32 << 20;

/// The under-store without a cluster.
#[derive(Debug)]
pub(super) struct Alone<'a> {
    context: &'a Context,
    data: &'a Data,
    ufs: Arc<dyn Ufs>,
    part: u64,
}

impl<'a> Alone<'a> {
    /// Opens it; `part` bytes are asked for at a time.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn new(
        context: &'a Context,
        data: &'a Data,
        options: &BTreeMap<String, String>,
        part: u64,
    ) -> Result<Self> {
        // How often it fails is the cluster's to deal with.
        let mut options = options.clone();
        options.remove("shape.error_rate");
        let uri = data.uri();
        let opening = millpond_ufs::open(&uri, &options, UfsContext::detached());
        let ufs = context.runtime.block_on(opening)?;
        Ok(Self {
            context,
            data,
            ufs,
            part,
        })
    }

    /// The parallelism at which it gives most.
    ///
    /// # Errors
    /// When a file is not there.
    pub(super) fn best_parallelism(&self) -> Result<usize> {
        let mut files = self.files(0)?;
        let mut left = TRIAL;
        for file in &mut files {
            file.size = file.size.min(left);
            left -= file.size;
        }
        let mut best = (0.0, PARALLEL[0]);
        for parallel in PARALLEL {
            let sample = self.sample(&files, parallel, None);
            if sample.gb_per_second() > best.0 {
                best = (sample.gb_per_second(), parallel);
            }
        }
        Ok(best.1)
    }

    /// Reads and compares the files of a round.
    ///
    /// # Errors
    /// When a file is not there.
    pub(super) fn read(&self, round: usize, parallel: usize) -> Result<Sample> {
        let expected = Arc::clone(self.data.files());
        let check: Check = Arc::new(move |number: usize, at: u64, bytes: &[u8]| {
            let at = at as usize;
            expected[number].get(at..at + bytes.len()) == Some(bytes)
        });
        Ok(self.sample(&self.files(round)?, parallel, Some(check)))
    }

    fn sample(&self, files: &[UfsFile], parallel: usize, check: Option<Check>) -> Sample {
        let reading = parallel_reads(&self.ufs, files, self.part, parallel, check);
        self.context.runtime.block_on(reading)
    }

    fn files(&self, round: usize) -> Result<Vec<UfsFile>> {
        let stat = async |number: usize| {
            let path = Data::path(round, number);
            let metadata = self.ufs.stat(&path).await?;
            let version = metadata.version.context("a file without a version")?;
            anyhow::Ok(UfsFile {
                path,
                version,
                size: metadata.size,
            })
        };
        self.context.runtime.block_on(async {
            let all = (0..self.data.files().len()).map(stat);
            futures::future::try_join_all(all).await
        })
    }
}
