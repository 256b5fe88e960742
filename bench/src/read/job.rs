//! The threads that read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};

use super::args::Pattern;
use super::layout::{Layout, Permutation};
use super::source::{Reader, Source};
use crate::measure::{Histogram, cpu::own_seconds};

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(100);

/// What each run reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload<'a> {
    pub(super) layout: &'a Layout,
    pub(super) pattern: Pattern,
    pub(super) jobs: usize,
    pub(super) seed: u64,
    /// One pass if none.
    pub(super) duration: Option<Duration>,
}

/// What a run did.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) elapsed: Duration,
    pub(super) cpu_seconds: f64,
    pub(super) bytes: u64,
    pub(super) reads: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) latency: Histogram,
}

impl Measured {
    fn new() -> Self {
        Self {
            elapsed: Duration::ZERO,
            cpu_seconds: 0.0,
            bytes: 0,
            reads: 0,
            errors: 0,
            first_error: None,
            latency: Histogram::new(),
        }
    }

    fn merge(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.reads += other.reads;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latency.merge(&other.latency);
    }
}

impl Workload<'_> {
    /// Reads as told, with a progress bar on a terminal's stderr.
    ///
    /// # Errors
    /// When a reader cannot be made; failed reads are counted instead.
    pub(super) fn run(&self, source: &Source, label: &str) -> Result<Measured> {
        let readers = (0..self.jobs)
            .map(|_| source.reader(self.layout))
            .collect::<Result<Vec<_>>>()?;
        let done = AtomicU64::new(0);
        let start_line = Barrier::new(self.jobs + 1);
        let mut total = Measured::new();
        let bar = progress_bar(self.expected(), label);
        std::thread::scope(|scope| -> Result<()> {
            let (finished, results) = mpsc::sync_channel(self.jobs);
            for (job, mut reader) in readers.into_iter().enumerate() {
                let (finished, done, start_line) = (finished.clone(), &done, &start_line);
                scope.spawn(move || {
                    start_line.wait();
                    let begun = Instant::now();
                    let measured = self.work(job as u64, &mut *reader, done);
                    let _ = finished.send((begun, Instant::now(), measured));
                });
            }
            drop(finished);
            let cpu = own_seconds();
            start_line.wait();
            // By the clocks of those who read: this thread may be woken long after them.
            let mut span: Option<(Instant, Instant)> = None;
            let mut left = self.jobs;
            while left > 0 {
                match results.recv_timeout(TICK) {
                    Ok((begun, ended, measured)) => {
                        let (first, last) = span.unwrap_or((begun, ended));
                        span = Some((first.min(begun), last.max(ended)));
                        total.merge(measured);
                        left -= 1;
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        bar.set_position(done.load(Ordering::Relaxed));
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => {
                        return Err(anyhow!("a reading thread panicked"));
                    }
                }
            }
            total.elapsed = span.map_or(Duration::ZERO, |(first, last)| last - first);
            total.cpu_seconds = own_seconds() - cpu;
            Ok(())
        })
        .context("while reading")?;
        bar.finish_and_clear();
        Ok(total)
    }

    /// Bytes of one pass; 0, for no length, where time sets the end.
    fn expected(&self) -> u64 {
        if self.duration.is_some() {
            0
        } else {
            self.layout.bytes()
        }
    }

    fn work(&self, job: u64, reader: &mut dyn Reader, done: &AtomicU64) -> Measured {
        let mut measured = Measured::new();
        let (blocks, jobs) = (self.layout.blocks(), self.jobs as u64);
        // 128 bits, because blocks times jobs may be more than 64 hold.
        let share = |job: u64| (u128::from(blocks) * u128::from(job) / u128::from(jobs)) as u64;
        let deadline = self.duration.map(|duration| Instant::now() + duration);
        let mut now = Instant::now();
        for round in 0.. {
            let order = Permutation::new(blocks, self.seed.wrapping_add(round));
            for index in share(job)..share(job + 1) {
                if deadline.is_some_and(|deadline| now >= deadline) {
                    return measured;
                }
                let number = match self.pattern {
                    Pattern::Sequential => index,
                    Pattern::Random => order.get(index),
                };
                let piece = self.layout.piece(number);
                let start = now;
                let read = reader.read(piece).map(<[u8]>::len);
                now = Instant::now();
                measured.latency.record(now - start);
                measured.reads += 1;
                match read {
                    Ok(len) if len == piece.len => measured.bytes += len as u64,
                    Ok(len) => measured.fail(format!("{len} of {} bytes: {piece:?}", piece.len)),
                    Err(error) => measured.fail(format!("{error:#}: {piece:?}")),
                }
                done.fetch_add(piece.len as u64, Ordering::Relaxed);
            }
            // Without blocks of its own a job has nothing to repeat.
            if deadline.is_none() || share(job) == share(job + 1) {
                break;
            }
        }
        measured
    }
}

impl Measured {
    fn fail(&mut self, message: String) {
        self.errors += 1;
        self.first_error.get_or_insert(message);
    }
}

fn progress_bar(bytes: u64, label: &str) -> ProgressBar {
    // Hidden where stderr is no terminal.
    let (bar, template) = if bytes == 0 {
        (
            ProgressBar::new_spinner(),
            "{msg} {bytes} {binary_bytes_per_sec}",
        )
    } else {
        (
            ProgressBar::new(bytes),
            "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec}",
        )
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(label.to_owned());
    bar
}
