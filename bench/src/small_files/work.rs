//! The threads that list, stat and read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::tree;
use crate::measure::{CpuMeter, Sample, SeriesRecorder, interrupt};
use crate::read::layout::FileInfo;
use crate::read::order::Shuffled;

/// Slots of a series.
const SLOTS: u32 = 100;
/// Slots of a run without a length, and how long each is.
const OPEN_END: (usize, Duration) = (600, Duration::from_millis(100));

/// What is done to each file, or to each directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// `stat` of each file by its whole path.
    Stat,
    /// Each directory listed, and `lstat` of each entry; entries count.
    LongList,
    /// Each file opened, read to its end, closed.
    Read,
}

/// What each run does.
#[derive(Debug)]
pub(crate) struct Work {
    task: Task,
    /// Files, or directories, with the size that a file must have.
    items: Vec<(PathBuf, u64)>,
    /// In a random order, in place of each worker's share in order.
    shuffled: bool,
    workers: usize,
    seed: u64,
}

impl Work {
    /// On the files below `root`.
    pub(crate) fn new(task: Task, root: &Path, files: &[FileInfo], seed: u64) -> Self {
        let items = match task {
            Task::Stat | Task::Read => {
                let item = |info: &FileInfo| (root.join(&info.path), info.size);
                files.iter().map(item).collect()
            }
            Task::LongList => {
                let dirs = tree::dirs(files).into_iter();
                dirs.map(|dir| (root.join(dir), 0)).collect()
            }
        };
        Self {
            task,
            items,
            shuffled: false,
            workers: 1,
            seed,
        }
    }

    /// By so many threads.
    #[must_use]
    pub(crate) const fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// In a random order.
    #[must_use]
    pub(crate) const fn shuffled(mut self, shuffled: bool) -> Self {
        self.shuffled = shuffled;
        self
    }

    /// Works for `time`, again from the start where everything is done; without a time, once.
    /// The CPU time of the processes `others` counts too.
    ///
    /// # Errors
    /// After Ctrl-C; what fails with a file is counted instead.
    pub(crate) fn run(&self, time: Option<Duration>, others: &[u32]) -> Result<Sample> {
        let (slots, slot) = match time {
            Some(time) => (SLOTS as usize, time / SLOTS),
            None => OPEN_END,
        };
        let series = SeriesRecorder::new(slot, slots);
        let (start_line, stop) = (Barrier::new(self.workers), AtomicBool::new(false));
        let cpu = CpuMeter::start(others);
        let worked = std::thread::scope(|scope| {
            let (start_line, stop, series) = (&start_line, &stop, &series);
            let one = |worker| {
                scope.spawn(move || {
                    start_line.wait();
                    let begun = Instant::now();
                    let sample = self.work(worker, begun, time, series, stop);
                    (sample, begun, Instant::now())
                })
            };
            let all: Vec<_> = (0..self.workers).map(one).collect();
            all.into_iter()
                .map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked")))
                .collect::<Result<Vec<_>>>()
        })?;
        let mut total = Sample::default();
        let begun = worked.iter().map(|(_, begun, _)| *begun).min();
        let ended = worked.iter().map(|(_, _, ended)| *ended).max();
        total.elapsed = begun.zip(ended).map_or(Duration::ZERO, |(a, b)| b - a);
        total.cpu_seconds = cpu.seconds();
        for (sample, _, _) in worked {
            total.merge(sample);
        }
        total.series = (total.bytes > 0).then(|| series.finish());
        interrupt::check()?;
        Ok(total)
    }

    fn work(
        &self,
        worker: usize,
        begun: Instant,
        time: Option<Duration>,
        series: &SeriesRecorder,
        stop: &AtomicBool,
    ) -> Sample {
        let mut sample = Sample::default();
        let mut buffer = Vec::new();
        let mut now = begun;
        for round in 0.. {
            let mut idle = true;
            for item in self.share(worker, round) {
                idle = false;
                if time.is_some_and(|time| now - begun >= time) || stop.load(Ordering::Relaxed) {
                    return sample;
                }
                let (path, size) = &self.items[item];
                let done = self.perform(path, *size, &mut buffer);
                let ended = Instant::now();
                sample.latency.record(ended - now);
                match done {
                    Ok((ops, bytes)) => {
                        sample.ops += ops;
                        sample.bytes += bytes;
                        series.add(ended, bytes);
                    }
                    Err(error) => {
                        sample.ops += 1;
                        sample.fail(format!("{error} ({})", path.display()));
                    }
                }
                now = ended;
                if interrupt::check().is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            // Without items of its own a worker has nothing to repeat.
            if time.is_none() || idle {
                break;
            }
        }
        sample
    }

    /// The items of a worker, in its order: a stretch of all, or every so-manieth of a random
    /// order.
    fn share(&self, worker: usize, round: u64) -> Box<dyn Iterator<Item = usize> + '_> {
        let (items, workers) = (self.items.len(), self.workers);
        if !self.shuffled {
            return Box::new(items * worker / workers..items * (worker + 1) / workers);
        }
        let order = Shuffled::new(items as u64, self.seed.wrapping_add(round));
        let mine = (worker..items).step_by(workers);
        Box::new(mine.map(move |at| order.get(at as u64) as usize))
    }

    /// Operations and bytes.
    fn perform(&self, path: &Path, size: u64, buffer: &mut Vec<u8>) -> io::Result<(u64, u64)> {
        match self.task {
            Task::Stat => {
                let found = fs::metadata(path)?.len();
                expect(found, size)?;
                Ok((1, 0))
            }
            Task::LongList => {
                let mut entries = 0;
                for entry in fs::read_dir(path)? {
                    entry?.metadata()?;
                    entries += 1;
                }
                Ok((entries, 0))
            }
            Task::Read => {
                buffer.resize((size as usize).clamp(1, 1 << 20), 0);
                let mut file = File::open(path)?;
                let mut bytes = 0;
                loop {
                    match file.read(buffer)? {
                        0 => break,
                        n => bytes += n as u64,
                    }
                }
                expect(bytes, size)?;
                Ok((1, bytes))
            }
        }
    }
}

fn expect(found: u64, size: u64) -> io::Result<()> {
    if found == size {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{found} bytes in place of {size}"
    )))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::read::dataset::Dataset;

    fn dataset(dir: &Path) -> Dataset {
        Dataset::write(dir, tree::files(30, 1000, 4), 1).unwrap()
    }

    #[test]
    fn one_pass_does_everything_once() {
        let dir = tempfile::tempdir().unwrap();
        let data = dataset(dir.path());
        for (task, ops, bytes) in [
            (Task::Stat, 30, 0),
            (Task::LongList, 30, 0),
            (Task::Read, 30, 30_000),
        ] {
            for (workers, shuffled) in [(1, false), (3, true), (40, false)] {
                let work = Work::new(task, dir.path(), data.files(), 1);
                let sample = work
                    .workers(workers)
                    .shuffled(shuffled)
                    .run(None, &[])
                    .unwrap();
                assert_eq!((sample.ops, sample.bytes, sample.errors), (ops, bytes, 0));
            }
        }
    }

    #[test]
    fn a_short_file_and_a_missing_one_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let data = dataset(dir.path());
        fs::write(dir.path().join(&data.files()[3].path), "short").unwrap();
        fs::remove_file(dir.path().join(&data.files()[7].path)).unwrap();
        for task in [Task::Stat, Task::Read] {
            let work = Work::new(task, dir.path(), data.files(), 1);
            let sample = work.run(None, &[]).unwrap();
            assert_eq!((sample.ops, sample.errors), (30, 2), "{sample:?}");
            assert!(
                sample
                    .first_error
                    .unwrap()
                    .contains("5 bytes in place of 1000")
            );
        }
    }

    #[test]
    fn time_repeats_the_work() {
        let dir = tempfile::tempdir().unwrap();
        let data = dataset(dir.path());
        let work = Work::new(Task::Stat, dir.path(), data.files(), 1).workers(2);
        let time = Duration::from_millis(30);
        let sample = work.run(Some(time), &[]).unwrap();
        assert!(sample.elapsed >= time && sample.ops > 30, "{sample:?}");
    }

    proptest! {
        #[test]
        fn the_shares_of_all_workers_are_everything_once(
            items in 0usize..200,
            workers in 1usize..40,
            shuffled: bool,
        ) {
            let work = Work {
                task: Task::Stat,
                items: vec![(PathBuf::new(), 0); items],
                shuffled,
                workers,
                seed: 3,
            };
            let mut all: Vec<_> = (0..workers).flat_map(|worker| work.share(worker, 0)).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..items).collect::<Vec<_>>());
        }
    }
}
