//! Epochs over a cluster whose tier holds a part of the data set.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use millpond_client::{ClientConfig, FileSystem};
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::measure::{CpuMeter, Sample, interrupt};
use crate::scenario::Context;

use super::dataset::{self, Dataset};
use super::trace::Order;

/// Samples that the loader reads at a time.
const WORKERS: usize = 4;

/// One training job.
#[derive(Debug)]
pub(super) struct Training<'a> {
    pub(super) context: &'a Context,
    pub(super) cluster: &'a Cluster,
    /// Where the data set is mounted.
    pub(super) mount: String,
    pub(super) order: Order,
    pub(super) samples: u32,
    pub(super) sample_bytes: usize,
    pub(super) epochs: usize,
}

/// What the epochs did, one entry each.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The samples in the order in which they were asked for, all epochs one after the other.
    pub(super) trace: Vec<u32>,
    pub(super) runs: Vec<Sample>,
    /// Bytes from the UFS.
    pub(super) ufs_bytes: Vec<u64>,
    /// Requests to the UFS.
    pub(super) ufs_requests: u64,
}

impl Training<'_> {
    /// Runs all epochs, each with a client that has nothing in memory: what it would hold over
    /// the end of an epoch is not the tier's merit.
    ///
    /// # Errors
    /// When a read fails or gives wrong bytes.
    pub(super) fn run(&self) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for epoch in 0..self.epochs {
            interrupt::check()?;
            self.context.step(format!(
                "epochs: {}, epoch {} of {}",
                self.mount.trim_start_matches('/'),
                epoch + 1,
                self.epochs
            ));
            let order = self.order.epoch(self.samples, epoch, self.context.seed);
            let before = self.cluster.ufs_use(&[])?;
            let sample = self.epoch(&order)?;
            ensure!(
                sample.errors == 0,
                "{} of {} samples were not read right, the first: {}",
                sample.errors,
                sample.ops,
                sample.first_error.as_deref().unwrap_or_default()
            );
            let used = self.cluster.ufs_use(&[])? - before;
            outcome.trace.extend(order);
            outcome.runs.push(sample);
            outcome.ufs_bytes.push(used.bytes);
            outcome.ufs_requests += used.requests;
        }
        Ok(outcome)
    }

    fn epoch(&self, order: &[u32]) -> Result<Sample> {
        let client = self.cluster.client(ClientConfig {
            memory: ClientConfig::MIN_MEMORY,
            ..ClientConfig::default()
        })?;
        let loader = Arc::new(Loader {
            client: client.clone(),
            mount: self.mount.clone(),
            order: order.to_vec(),
            next: AtomicUsize::new(0),
            seed: self.context.seed,
            len: self.sample_bytes,
        });
        let (cpu, start) = (CpuMeter::start(&self.cluster.pids()), Instant::now());
        let reading = async {
            let mut workers = JoinSet::new();
            for _ in 0..WORKERS {
                workers.spawn(Arc::clone(&loader).work());
            }
            let mut all = Sample::default();
            while let Some(done) = workers.join_next().await {
                all.merge(done.context("a worker panicked")?);
            }
            all.elapsed = start.elapsed();
            client.shutdown().await;
            anyhow::Ok(all)
        };
        let mut sample = self.context.runtime.block_on(reading)?;
        sample.cpu_seconds = cpu.seconds();
        Ok(sample)
    }
}

/// Reads the samples of an epoch, the next one whenever a worker is free.
struct Loader {
    client: FileSystem,
    mount: String,
    order: Vec<u32>,
    next: AtomicUsize,
    seed: u64,
    len: usize,
}

impl Loader {
    async fn work(self: Arc<Self>) -> Sample {
        let mut sample = Sample::default();
        while let Some(number) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let start = Instant::now();
            match self.read(*number).await {
                Ok(()) => sample.bytes += self.len as u64,
                Err(error) => sample.fail(format!("sample {number}: {error:#}")),
            }
            sample.ops += 1;
            sample.latency.record(start.elapsed());
        }
        sample
    }

    async fn read(&self, number: u32) -> Result<()> {
        let path = format!("{}/{}", self.mount, Dataset::name(number));
        let file = self.client.open(&path).await?;
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        let bytes = file.read(0, len).await?;
        let right = bytes == dataset::content(self.seed, number, self.len);
        ensure!(
            right,
            "{} bytes that are not those of the file",
            bytes.len()
        );
        Ok(())
    }
}
