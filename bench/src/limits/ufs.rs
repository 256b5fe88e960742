//! Direct ranged GETs: what the store gives to whoever asks it without anything in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use futures::StreamExt;
use millpond_s3_fixture::{S3Fixture, pattern};
use millpond_ufs::{FileKind, Ufs, UfsContext, UfsMetrics};
use tokio::runtime::Handle;

use super::group::{BYTES, Bench, Case, Measured};
use crate::measure::Sample;
use crate::record::Proof;
use crate::ufs_reads::{Check, UfsFile, parallel_reads};

/// So many GETs in parallel.
pub(super) const CASES: &[Case] = &[("get-1", BYTES), ("get-8", BYTES), ("get-32", BYTES)];

/// Which store, and what of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    /// None for one of our own.
    pub(super) uri: Option<String>,
    pub(super) options: BTreeMap<String, String>,
    /// The largest at the root if none.
    pub(super) path: Option<String>,
    /// Bytes of one GET.
    pub(super) part: u64,
    /// Bytes of the object in a store of our own.
    pub(super) size: u64,
    pub(super) seed: u64,
}

pub(super) struct Gets {
    runtime: Handle,
    ufs: Arc<dyn Ufs>,
    file: UfsFile,
    part: u64,
    checked: Option<u64>,
    fixture: Option<S3Fixture>,
}

const BUCKET: &str = "limits";

impl Gets {
    pub(super) fn new(runtime: &Handle, store: &Store) -> Result<Self> {
        runtime.block_on(Self::open(runtime, store))
    }

    async fn open(runtime: &Handle, store: &Store) -> Result<Self> {
        let (fixture, uri, options) = match &store.uri {
            Some(uri) => (None, uri.clone(), store.options.clone()),
            None => {
                let fixture = S3Fixture::start().await;
                // In memory as it is, not computed anew for each GET.
                let bytes = pattern(store.seed, 0, usize::try_from(store.size)?);
                fixture.put(BUCKET, "object", bytes);
                let options = fixture.options();
                (Some(fixture), format!("s3://{BUCKET}"), options)
            }
        };
        let context = UfsContext::new(Arc::new(UfsMetrics::new(&mut Default::default())));
        let ufs = millpond_ufs::open(&uri, &options, context).await?;
        let path = match &store.path {
            Some(path) => path.clone(),
            None => largest(&*ufs).await?,
        };
        let metadata = ufs.stat(&path).await?;
        let version = metadata.version;
        let file = UfsFile {
            version: version.with_context(|| format!("{path} is not a file"))?,
            size: metadata.size,
            path,
        };
        ensure!(file.size > 0, "{} of {uri} is empty", file.path);
        let mut gets = Self {
            runtime: runtime.clone(),
            ufs,
            file,
            part: store.part,
            checked: None,
            fixture,
        };
        if gets.fixture.is_some() {
            let seed = store.seed;
            let check: Check =
                Arc::new(move |_, at, found| found == pattern(seed, at, found.len()));
            let pass = gets.pass(8, Some(check)).await?;
            gets.checked = Some(pass.bytes);
        }
        Ok(gets)
    }

    async fn pass(&self, parallel: usize, check: Option<Check>) -> Result<Sample> {
        let files = [self.file.clone()];
        let sample = parallel_reads(&self.ufs, &files, self.part, parallel, check).await;
        match &sample.first_error {
            Some(error) => Err(anyhow!("{} GETs failed, the first: {error}", sample.errors)),
            None => Ok(sample),
        }
    }
}

/// The largest file at the root.
async fn largest(ufs: &dyn Ufs) -> Result<String> {
    let mut pages = ufs.list("");
    let mut found: Option<(u64, String)> = None;
    while let Some(page) = pages.next().await.transpose()? {
        for entry in page {
            let size = entry.metadata.size;
            let larger = found.as_ref().is_none_or(|(most, _)| size > *most);
            if entry.metadata.kind == FileKind::File && larger {
                found = Some((size, entry.name));
            }
        }
    }
    let (_, name) = found.with_context(|| {
        format!(
            "there is no file at the root of {}: name one with --path",
            ufs.uri()
        )
    })?;
    Ok(name)
}

impl Bench for Gets {
    /// The object again and again, until the time is over: at least once.
    fn measure(&self, case: &str, duration: Duration) -> Result<Measured> {
        let parallel = case.strip_prefix("get-").context("no such case")?.parse()?;
        let mut all = Sample::default();
        let start = Instant::now();
        while all.ops == 0 || start.elapsed() < duration {
            let pass = self.runtime.block_on(self.pass(parallel, None))?;
            all.elapsed += pass.elapsed;
            all.cpu_seconds += pass.cpu_seconds;
            all.merge(pass);
        }
        Ok(all.into())
    }

    fn proof(&self) -> Proof {
        Proof {
            verified_bytes: self.checked,
            mismatches: self.checked.map(|_| 0),
            ..Proof::default()
        }
    }

    fn note(&self) -> Option<String> {
        Some(match &self.fixture {
            Some(_) => format!(
                "GETs of {} MiB from an S3 server in this very process, whose CPU time counts",
                self.part >> 20
            ),
            None => format!("GETs of {} KiB of {}", self.part >> 10, self.file.path),
        })
    }
}

impl Drop for Gets {
    fn drop(&mut self) {
        if let Some(fixture) = self.fixture.take() {
            self.runtime.block_on(fixture.shutdown());
        }
    }
}
