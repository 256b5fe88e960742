//! Accelerators that sleep for the time of a batch, and the readers that feed them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::model::Work;
use super::store::Store;
use super::utilization::{Steps, Window, utilization};
use crate::measure::{CpuMeter, Sample};
use crate::read::dataset::Dataset;

/// Batches that are read ahead, as PyTorch's loader does for each worker.
const AHEAD: u64 = 2;
/// This share of a run passes before it counts.
const WARM_UP: f64 = 0.25;
/// Readers need little.
const STACK: usize = 512 << 10;

/// One run.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) store: &'a Store,
    pub(super) work: &'a Work,
    pub(super) data: &'a Dataset,
    pub(super) accelerators: usize,
    /// Readers of each accelerator.
    pub(super) readers: usize,
    /// Samples of a batch.
    pub(super) batch: u64,
    /// The time that a batch takes to compute.
    pub(super) compute: Duration,
    pub(super) length: Duration,
    /// Other processes that take part.
    pub(super) others: &'a [u32],
}

impl Run<'_> {
    /// The utilisation of the accelerators, and what their readers did.
    ///
    /// # Errors
    /// When a thread cannot be started. Samples that could not be read are counted instead.
    pub(super) fn run(&self) -> Result<(f64, Sample)> {
        let cpu = CpuMeter::start(self.others);
        let start = Instant::now();
        let end = start + self.length;
        let counters: Vec<AtomicU64> = (0..self.accelerators).map(|_| AtomicU64::new(0)).collect();
        let (steps, mut total) = thread::scope(|scope| -> Result<_> {
            let (mut accelerators, mut readers) = (Vec::new(), Vec::new());
            for (number, counter) in counters.iter().enumerate() {
                let (full, queue) = sync_channel((AHEAD * self.batch) as usize);
                for _ in 0..self.readers {
                    let full = full.clone();
                    let read = move || self.read(number as u64, counter, &full, end);
                    // Where one cannot be started, the others end by themselves.
                    readers.push(thread_in(scope, read)?);
                }
                accelerators.push(thread_in(scope, move || self.compute(&queue, start, end))?);
            }
            let mut steps = Vec::with_capacity(accelerators.len());
            for accelerator in accelerators {
                steps.push(accelerator.join().ok().context("an accelerator panicked")?);
            }
            let mut total = Sample::default();
            for reader in readers {
                total.merge(reader.join().ok().context("a reader panicked")?);
            }
            Ok((steps, total))
        })?;
        total.elapsed = start.elapsed();
        total.cpu_seconds = cpu.seconds();
        let to = self.length.as_secs_f64();
        let window = Window {
            from: to * WARM_UP,
            to,
        };
        Ok((
            utilization(&steps, self.compute.as_secs_f64(), window),
            total,
        ))
    }

    /// Reads the samples of one accelerator: of all samples in order every n-th.
    fn read(&self, number: u64, next: &AtomicU64, full: &SyncSender<()>, end: Instant) -> Sample {
        let mut sample = Sample::default();
        let mut buffer = Vec::new();
        loop {
            let begun = Instant::now();
            if begun >= end {
                return sample;
            }
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let place = self.work.place(turn * self.accelerators as u64 + number);
            sample.ops += 1;
            match self.store.read(self.data, place, &mut buffer) {
                Ok(()) => sample.bytes += place.len as u64,
                Err(error) => sample.fail(format!("{error:#}")),
            }
            sample.latency.record(begun.elapsed());
            if full.send(()).is_err() {
                return sample;
            }
        }
    }

    /// Waits for batches and sleeps; when each step began.
    fn compute(&self, queue: &Receiver<()>, start: Instant, end: Instant) -> Steps {
        let mut steps = Steps::default();
        loop {
            for _ in 0..self.batch {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() || queue.recv_timeout(left).is_err() {
                    return steps;
                }
            }
            let begun = Instant::now();
            steps.starts.push((begun - start).as_secs_f64());
            sleep_until((begun + self.compute).min(end));
        }
    }
}

fn thread_in<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, T>> {
    let builder = Builder::new().stack_size(STACK);
    builder
        .spawn_scoped(scope, run)
        .context("cannot start a thread")
}

/// Nobody unparks the thread, but it may wake early all the same.
fn sleep_until(moment: Instant) {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}
