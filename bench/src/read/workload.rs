//! The threads that read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use indicatif::ProgressBar;

use super::layout::{FileInfo, Layout};
use super::order::Order;
use super::shape::Shape;
use super::source::{Reader, Source};
use crate::measure::{CpuMeter, Sample, SeriesRecorder, interrupt};

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(100);
/// Slots of a series: a point for each pixel or two of a small plot.
const SLOTS: u32 = 100;
/// The longest run of which each moment is recorded; what comes later counts in the last slot.
const LONGEST: Duration = Duration::from_secs(60);

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// Until each block was read once.
    Pass,
    /// So long, again from the start where the data ends.
    Time(Duration),
    /// Until each block was read once, but not longer.
    PassWithin(Duration),
}

/// What each run reads.
#[derive(Debug)]
pub(super) struct Workload {
    layout: Layout,
    shape: Shape,
    seed: u64,
    stride: u64,
}

/// One run of it.
struct Run<'a> {
    workload: &'a Workload,
    length: Length,
    done: AtomicU64,
    stop: AtomicBool,
    start_line: Barrier,
    series: SeriesRecorder,
}

impl Workload {
    pub(super) fn new(files: &Arc<[FileInfo]>, shape: Shape, seed: u64, stride: u64) -> Self {
        Self {
            layout: Layout::new(files, shape.block),
            shape,
            seed,
            stride,
        }
    }

    /// Reads as told. Bytes so far are shown at `progress`; the CPU time of the processes
    /// `others` counts too.
    ///
    /// # Errors
    /// After Ctrl-C; failed reads are counted instead.
    pub(super) fn run(
        &self,
        source: &Source,
        length: Length,
        others: &[u32],
        progress: &ProgressBar,
    ) -> Result<Sample> {
        let jobs = self.shape.jobs;
        let readers: Vec<_> = (0..jobs)
            .map(|_| source.reader(&self.layout, self.shape.mmap))
            .collect();
        let slot = match length {
            Length::Pass => LONGEST / SLOTS / 6,
            Length::Time(time) | Length::PassWithin(time) => time / SLOTS,
        };
        let slots = LONGEST.as_nanos() / slot.as_nanos().max(1_000_000);
        let run = Run {
            workload: self,
            length,
            done: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            start_line: Barrier::new(jobs + 1),
            series: SeriesRecorder::new(slot, usize::try_from(slots)?.min(6 * SLOTS as usize)),
        };
        let what = progress.message();
        let mut total = Sample::default();
        std::thread::scope(|scope| -> Result<()> {
            let (finished, results) = mpsc::sync_channel(jobs);
            for (job, mut reader) in readers.into_iter().enumerate() {
                let (finished, run) = (finished.clone(), &run);
                scope.spawn(move || {
                    run.start_line.wait();
                    let begun = Instant::now();
                    let sample = run.work(job as u64, &mut *reader);
                    let _ = finished.send((begun, Instant::now(), sample));
                });
            }
            drop(finished);
            let cpu = CpuMeter::start(others);
            run.start_line.wait();
            // By the clocks of those who read: this thread may be woken long after them.
            let mut span: Option<(Instant, Instant)> = None;
            let mut left = jobs;
            while left > 0 {
                match results.recv_timeout(TICK) {
                    Ok((begun, ended, sample)) => {
                        let (first, last) = span.unwrap_or((begun, ended));
                        span = Some((first.min(begun), last.max(ended)));
                        total.merge(sample);
                        left -= 1;
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        let mib = run.done.load(Ordering::Relaxed) >> 20;
                        progress.set_message(format!("{what}: {mib} MiB"));
                        if interrupt::check().is_err() {
                            run.stop.store(true, Ordering::Relaxed);
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => {
                        return Err(anyhow!("a reading thread panicked"));
                    }
                }
            }
            total.elapsed = span.map_or(Duration::ZERO, |(first, last)| last - first);
            total.cpu_seconds = cpu.seconds();
            Ok(())
        })
        .context("while reading")?;
        total.series = Some(run.series.finish());
        progress.set_message(what);
        interrupt::check()?;
        Ok(total)
    }

    /// Passes one after the other until together they have taken `time`, each after `before`,
    /// which takes no time of theirs.
    ///
    /// # Errors
    /// That of `before`, and those of [`run`](Self::run).
    pub(super) fn passes(
        &self,
        source: &Source,
        time: Duration,
        others: &[u32],
        progress: &ProgressBar,
        mut before: impl FnMut() -> Result<()>,
    ) -> Result<Sample> {
        let mut all = Sample::default();
        while all.elapsed < time {
            before()?;
            let left = Length::PassWithin(time - all.elapsed);
            let pass = self.run(source, left, others, progress)?;
            ensure!(pass.ops > 0, "there is nothing to read");
            all.elapsed += pass.elapsed;
            all.cpu_seconds += pass.cpu_seconds;
            all.series = pass.series.clone();
            let failed = pass.errors > 0;
            all.merge(pass);
            if failed {
                // Errors may come quickly, and for ever.
                break;
            }
        }
        Ok(all)
    }
}

impl Run<'_> {
    fn work(&self, job: u64, reader: &mut dyn Reader) -> Sample {
        let mut sample = Sample::default();
        let (shape, layout) = (&self.workload.shape, &self.workload.layout);
        let (blocks, jobs) = (layout.blocks(), shape.jobs as u64);
        // 128 bits, because blocks times jobs may be more than 64 hold.
        let share = |job: u64| (u128::from(blocks) * u128::from(job) / u128::from(jobs)) as u64;
        let deadline = match self.length {
            Length::Pass => None,
            Length::Time(time) | Length::PassWithin(time) => Some(Instant::now() + time),
        };
        let mut now = Instant::now();
        for round in 0.. {
            let seed = self.workload.seed.wrapping_add(round);
            let order = Order::new(shape.pattern, blocks, seed, self.workload.stride);
            for index in share(job)..share(job + 1) {
                if deadline.is_some_and(|deadline| now >= deadline)
                    || self.stop.load(Ordering::Relaxed)
                {
                    return sample;
                }
                let piece = layout.piece(order.get(index));
                let start = now;
                let read = reader.read(piece).map(<[u8]>::len);
                now = Instant::now();
                sample.latency.record(now - start);
                sample.ops += 1;
                match read {
                    Ok(len) if len == piece.len => sample.bytes += len as u64,
                    Ok(len) => sample.fail(format!(
                        "{len} of {} bytes at {} of {}",
                        piece.len, piece.offset, layout.files[piece.file].path
                    )),
                    Err(error) => sample.fail(format!(
                        "{error:#} (at {} of {})",
                        piece.offset, layout.files[piece.file].path
                    )),
                }
                self.series.add(now, piece.len as u64);
                self.done.fetch_add(piece.len as u64, Ordering::Relaxed);
            }
            // Without blocks of its own a job has nothing to repeat.
            if !matches!(self.length, Length::Time(_)) || share(job) == share(job + 1) {
                break;
            }
        }
        sample
    }
}
