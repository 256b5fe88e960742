//! What is read under a memory limit.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Barrier;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use millpond_s3_fixture::S3Fixture;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::MemoryArgs;
use crate::faults::load::{Access, Dataset, Load};
use crate::measure::interrupt;
use crate::scenario::Context;

pub(super) const BUCKET: &str = "lake";
const LARGE: &str = "large";
const SMALL: &str = "small";
const JOBS: u64 = 4;
const SEQUENTIAL: u64 = 1 << 20;
const RANDOM: u32 = 128 << 10;
const SMALL_SIZE: u64 = 24 << 10;
/// Files that are open at one time.
const OPEN: u64 = 1000;
/// Who read them.
const READERS: u64 = 64;

/// A way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Large files from start to end, for the first time.
    SequentialCold,
    /// The same again, past the kernel's page cache.
    SequentialAgain,
    /// Pieces of large files, past the kernel's page cache.
    Random,
    /// Small files, each opened, read and closed.
    SmallFiles,
    /// The names and attributes of all files.
    List,
    /// Many files open at one time, and many readers.
    ManyOpen,
}

/// Files and times.
#[derive(Debug)]
pub(super) struct Plan {
    large: Dataset,
    small: Dataset,
    random: Duration,
    seed: u64,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) reads: u64,
    pub(super) verified: u64,
    pub(super) mismatches: u64,
}

impl Pattern {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::SequentialCold => "sequential_cold",
            Self::SequentialAgain => "sequential_again",
            Self::Random => "random",
            Self::SmallFiles => "small_files",
            Self::List => "list",
            Self::ManyOpen => "many_open",
        }
    }
}

impl Tally {
    pub(super) const fn and(self, other: &Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            verified: self.verified + other.verified,
            mismatches: self.mismatches + other.mismatches,
        }
    }
}

impl Plan {
    /// `bytes` in large files, and small files beside them.
    pub(super) fn new(context: &Context, args: &MemoryArgs, bytes: u64) -> Self {
        let seed = context.seed << 20;
        let random = context.pick(Duration::from_secs(8), Duration::from_secs(1));
        Self {
            large: Dataset {
                files: JOBS,
                size: bytes / JOBS,
                seed,
            },
            small: Dataset {
                files: context.pick(4000, 600),
                size: SMALL_SIZE,
                seed: seed + JOBS,
            },
            random: args.common.duration.unwrap_or(random),
            seed: context.seed,
        }
    }

    pub(super) fn put(&self, s3: &S3Fixture) {
        self.large.put(s3, BUCKET, &format!("{LARGE}/"));
        self.small.put(s3, BUCKET, &format!("{SMALL}/"));
    }

    pub(super) const fn patterns(&self) -> [Pattern; 6] {
        [
            Pattern::SequentialCold,
            Pattern::SequentialAgain,
            Pattern::Random,
            Pattern::SmallFiles,
            Pattern::List,
            Pattern::ManyOpen,
        ]
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "read: {} MiB of large files in order by {JOBS} jobs, twice, and at random for {:.1} s, \
             {} files of {} KiB, a listing, {OPEN} open files with {READERS} readers",
            (self.large.files * self.large.size) >> 20,
            self.random.as_secs_f64(),
            self.small.files,
            SMALL_SIZE >> 10
        )
    }

    /// Reads below `root`, and compares every byte.
    ///
    /// # Errors
    /// When a read fails, or a listing is not complete.
    pub(super) fn read(&self, pattern: Pattern, root: &Path) -> Result<Tally> {
        let (large, small) = (root.join(LARGE), root.join(SMALL));
        match pattern {
            Pattern::SequentialCold => in_parallel(&self.large, &large),
            Pattern::SequentialAgain => {
                for number in 0..self.large.files {
                    let file = File::open(large.join(Dataset::name(number)))?;
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
                }
                in_parallel(&self.large, &large)
            }
            Pattern::Random => self.at_random(large),
            Pattern::SmallFiles => in_parallel(&self.small, &small),
            Pattern::List => list(&small, self.small.files),
            Pattern::ManyOpen => self.many_open(&large, &small),
        }
    }

    /// Small files, all open before the first is read, and parts of large ones meanwhile.
    fn many_open(&self, large: &Path, small: &Path) -> Result<Tally> {
        raise_file_limit()?;
        let part = self.large.size.div_ceil(READERS / JOBS);
        let all_open = Barrier::new(READERS as usize);
        let reader = |reader: u64| -> Result<Tally> {
            let numbers = (reader..OPEN).step_by(READERS as usize);
            let files: Result<Vec<_>> = numbers.map(|n| open(&self.small, n, small)).collect();
            let streamed = open(&self.large, reader, large);
            all_open.wait();
            let (number, file) = streamed?;
            let start = part * (reader / JOBS);
            let end = (start + part).min(self.large.size);
            let mut tally = piece(&self.large, number, &file, start..end)?;
            for (number, file) in &files? {
                tally = tally.and(&piece(&self.small, *number, file, 0..SMALL_SIZE)?);
            }
            Ok(tally)
        };
        std::thread::scope(|scope| {
            let reader = &reader;
            let readers: Vec<_> = (0..READERS)
                .map(|n| scope.spawn(move || reader(n)))
                .collect();
            sum(readers.into_iter().map(ScopedJoinHandle::join))
        })
    }

    fn at_random(&self, large: std::path::PathBuf) -> Result<Tally> {
        let access = Access::Mount(large);
        let load = Load::start(&access, self.large, JOBS as usize, RANDOM, self.seed)?;
        let end = Instant::now() + self.random;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            interrupt::check()?;
            std::thread::park_timeout(left.min(Duration::from_millis(50)));
        }
        let outcome = load.stop()?;
        let why = outcome.first_error.unwrap_or_default();
        ensure!(
            outcome.errors == 0,
            "{} reads failed: {why}",
            outcome.errors
        );
        Ok(Tally {
            reads: outcome.reads.len() as u64,
            verified: outcome.verified,
            mismatches: outcome.mismatches,
        })
    }
}

/// A file of a dataset in `dir`, open.
fn open(dataset: &Dataset, number: u64, dir: &Path) -> Result<(u64, File)> {
    let number = number % dataset.files;
    Ok((number, File::open(dir.join(Dataset::name(number)))?))
}

/// Lets this process hold all files open.
fn raise_file_limit() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(OPEN + 1024);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}

/// All files, each whole, by several jobs.
fn in_parallel(dataset: &Dataset, dir: &Path) -> Result<Tally> {
    std::thread::scope(|scope| {
        let job = |job: u64| {
            scope.spawn(move || -> Result<Tally> {
                let mut tally = Tally::default();
                for number in (job..dataset.files).step_by(JOBS as usize) {
                    tally = tally.and(&whole(dataset, number, dir)?);
                }
                Ok(tally)
            })
        };
        let jobs: Vec<_> = (0..JOBS).map(job).collect();
        sum(jobs.into_iter().map(ScopedJoinHandle::join))
    })
}

fn sum(tallies: impl Iterator<Item = std::thread::Result<Result<Tally>>>) -> Result<Tally> {
    let mut sum = Tally::default();
    for tally in tallies {
        sum = sum.and(&tally.map_err(|_| anyhow!("a reader panicked"))??);
    }
    Ok(sum)
}

fn whole(dataset: &Dataset, number: u64, dir: &Path) -> Result<Tally> {
    let (number, file) = open(dataset, number, dir)?;
    piece(dataset, number, &file, 0..dataset.size)
}

/// A range of a file, in order.
fn piece(dataset: &Dataset, number: u64, file: &File, range: Range<u64>) -> Result<Tally> {
    let mut buffer = vec![0; SEQUENTIAL.min(dataset.size) as usize];
    let mut tally = Tally::default();
    let mut offset = range.start;
    while offset < range.end {
        interrupt::check()?;
        let len = SEQUENTIAL.min(range.end - offset) as usize;
        file.read_exact_at(&mut buffer[..len], offset)?;
        tally.mismatches += dataset.mismatches(number, offset, &buffer[..len]);
        tally.verified += len as u64;
        tally.reads += 1;
        offset += len as u64;
    }
    Ok(tally)
}

fn list(dir: &Path, expected: u64) -> Result<Tally> {
    let mut found = 0;
    for entry in fs::read_dir(dir)? {
        entry?.metadata()?;
        found += 1;
    }
    ensure!(found == expected, "{found} of {expected} files are listed");
    Ok(Tally::default())
}

#[cfg(test)]
mod tests {
    use millpond_s3_fixture::pattern;

    use super::*;

    #[test]
    fn wrong_bytes_and_missing_files_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let dataset = Dataset {
            files: 5,
            size: 3 << 20,
            seed: 9,
        };
        for number in 0..dataset.files {
            let bytes = pattern(9 + number, 0, dataset.size as usize);
            fs::write(dir.path().join(Dataset::name(number)), bytes).unwrap();
        }
        let right = in_parallel(&dataset, dir.path()).unwrap();
        assert_eq!((right.verified, right.mismatches), (15 << 20, 0));
        assert!(list(dir.path(), 5).is_ok() && list(dir.path(), 6).is_err());

        let mut bytes = pattern(9, 0, dataset.size as usize).to_vec();
        bytes[2 << 20] ^= 1;
        fs::write(dir.path().join(Dataset::name(0)), bytes).unwrap();
        assert_eq!(in_parallel(&dataset, dir.path()).unwrap().mismatches, 1);
        fs::remove_file(dir.path().join(Dataset::name(4))).unwrap();
        assert!(in_parallel(&dataset, dir.path()).is_err());
    }
}
