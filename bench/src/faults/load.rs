//! Workers that read without a pause, compare every byte, and note how long each read took.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use millpond_client::{FileHandle, FileSystem};
use millpond_s3_fixture::{S3Fixture, pattern};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::runtime::Handle;

use super::timeline::Read;

/// How long a worker rests after a read that failed, lest errors at once drown the others.
const REST: Duration = Duration::from_millis(20);

/// Where a buffer for reads past the page cache has to begin, on most file systems.
const ALIGNMENT: usize = 4096;

/// The files that are read: of one size, each with bytes of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dataset {
    /// How many.
    pub(crate) files: u64,
    /// Bytes of each.
    pub(crate) size: u64,
    /// Chooses the bytes.
    pub(crate) seed: u64,
}

/// How files are reached.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// By the client library in this process, below this path.
    Library(FileSystem, String, Handle),
    /// In this directory, past the kernel's page cache.
    Mount(PathBuf),
}

/// What the workers did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) reads: Vec<Read>,
    pub(crate) verified: u64,
    pub(crate) mismatches: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

/// Workers at work.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Outcome>>,
    start: Instant,
}

impl Dataset {
    pub(crate) fn name(number: u64) -> String {
        format!("part-{number:04}")
    }

    /// Stores all files in a bucket, as `prefix` and their name.
    pub(crate) fn put(&self, s3: &S3Fixture, bucket: &str, prefix: &str) {
        s3.create_bucket(bucket);
        for number in 0..self.files {
            let key = format!("{prefix}{}", Self::name(number));
            s3.put_generated(bucket, &key, self.size, self.seed + number);
        }
    }

    /// How many bytes are not those of file `number` at `offset`.
    pub(crate) fn mismatches(&self, number: u64, offset: u64, found: &[u8]) -> u64 {
        let expected = pattern(self.seed + number, offset, found.len());
        if expected == found {
            return 0;
        }
        let pairs = expected.iter().zip(found);
        pairs.filter(|(a, b)| a != b).count() as u64
    }
}

/// All files, open.
enum Reader {
    Library(Vec<Arc<FileHandle>>, Handle),
    Mount(Vec<File>),
}

impl Reader {
    fn open(access: &Access, dataset: &Dataset) -> Result<Self> {
        let names = (0..dataset.files).map(Dataset::name);
        match access {
            Access::Library(fs, below, runtime) => {
                let open = |name: String| runtime.block_on(fs.open(&format!("{below}/{name}")));
                let files = names.map(open).collect::<Result<_, _>>()?;
                Ok(Self::Library(files, runtime.clone()))
            }
            Access::Mount(dir) => {
                let open = |name: String| {
                    let path = dir.join(name);
                    let mut options = OpenOptions::new();
                    options.read(true).custom_flags(libc::O_DIRECT);
                    let opened = options.open(&path);
                    opened.with_context(|| format!("cannot open {}", path.display()))
                };
                Ok(Self::Mount(names.map(open).collect::<Result<_>>()?))
            }
        }
    }

    fn read(&self, number: u64, offset: u64, len: u32) -> Result<Bytes> {
        let index = number as usize;
        let bytes = match self {
            Self::Library(files, runtime) => runtime.block_on(files[index].read(offset, len))?,
            Self::Mount(files) => {
                let mut buffer = vec![0; len as usize + ALIGNMENT];
                let start = buffer.as_ptr().align_offset(ALIGNMENT);
                let piece = start..start + len as usize;
                files[index].read_exact_at(&mut buffer[piece.clone()], offset)?;
                Bytes::from(buffer).slice(piece)
            }
        };
        anyhow::ensure!(
            bytes.len() == len as usize,
            "{} bytes instead of {len} at {offset} of {}",
            bytes.len(),
            Dataset::name(number)
        );
        Ok(bytes)
    }
}

/// Reads everything once, in order.
///
/// # Errors
/// When a read fails or brings wrong bytes.
pub(crate) fn read_all(access: &Access, dataset: &Dataset) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let reader = Reader::open(access, dataset)?;
    for number in 0..dataset.files {
        for offset in (0..dataset.size).step_by(PIECE as usize) {
            let len = PIECE.min(dataset.size - offset) as u32;
            let bytes = reader.read(number, offset, len)?;
            let wrong = dataset.mismatches(number, offset, &bytes);
            anyhow::ensure!(
                wrong == 0,
                "{wrong} wrong bytes in {}",
                Dataset::name(number)
            );
        }
    }
    Ok(())
}

impl Load {
    /// Starts `workers` that read pieces of `len` bytes, aligned to their length, at random.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub(crate) fn start(
        access: &Access,
        dataset: Dataset,
        workers: usize,
        len: u32,
        seed: u64,
    ) -> Result<Self> {
        let readers: Vec<Reader> = (0..workers)
            .map(|_| Reader::open(access, &dataset))
            .collect::<Result<_>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let spawn = |(number, reader): (usize, Reader)| {
            let worker = Worker {
                reader,
                dataset,
                len,
                start,
                stop: Arc::clone(&stop),
                rng: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
            };
            std::thread::spawn(move || worker.run())
        };
        let workers = readers.into_iter().enumerate().map(spawn).collect();
        Ok(Self {
            stop,
            workers,
            start,
        })
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for the reads under way, and ends.
    ///
    /// # Errors
    /// When a worker panicked.
    pub(crate) fn stop(mut self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for worker in std::mem::take(&mut self.workers) {
            let one = worker.join().map_err(|_| anyhow!("a reader panicked"))?;
            all.reads.extend(one.reads);
            all.verified += one.verified;
            all.mismatches += one.mismatches;
            all.errors += one.errors;
            all.first_error = all.first_error.or(one.first_error);
        }
        Ok(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Workers end by themselves at their next read.
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    reader: Reader,
    dataset: Dataset,
    len: u32,
    start: Instant,
    stop: Arc<AtomicBool>,
    rng: StdRng,
}

impl Worker {
    fn run(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let pieces = (self.dataset.size / u64::from(self.len)).max(1);
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.rng.random_range(0..self.dataset.files);
            let offset = self.rng.random_range(0..pieces) * u64::from(self.len);
            let begin = Instant::now();
            let read = self.reader.read(number, offset, self.len);
            let took = begin.elapsed();
            let end = begin.duration_since(self.start) + took;
            let bytes = match &read {
                Ok(bytes) => bytes.len() as u32,
                Err(_) => 0,
            };
            outcome.reads.push(Read { end, took, bytes });
            match read {
                Ok(bytes) => {
                    outcome.verified += bytes.len() as u64;
                    outcome.mismatches += self.dataset.mismatches(number, offset, &bytes);
                }
                Err(error) => {
                    outcome.errors += 1;
                    outcome
                        .first_error
                        .get_or_insert_with(|| format!("{error:#}"));
                    std::thread::park_timeout(REST);
                }
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::process_cluster::wait_until;

    const DATASET: Dataset = Dataset {
        files: 2,
        size: 64 << 10,
        seed: 5,
    };

    /// The data set in a directory.
    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..DATASET.files {
            let bytes = pattern(DATASET.seed + number, 0, DATASET.size as usize);
            fs::write(dir.path().join(Dataset::name(number)), bytes).unwrap();
        }
        dir
    }

    fn run(dir: &tempfile::TempDir, damage: impl FnOnce()) -> Outcome {
        let access = Access::Mount(dir.path().to_owned());
        let load = Load::start(&access, DATASET, 2, 4096, 1).unwrap();
        damage();
        let start = Instant::now();
        // Each worker meets each of 32 pieces many times in this time, whatever the machine.
        let _ = wait_until(Duration::from_millis(300), || false);
        assert!(load.elapsed() >= start.elapsed());
        load.stop().unwrap()
    }

    #[test]
    fn right_bytes_are_counted_as_verified() {
        let dir = dir();
        read_all(&Access::Mount(dir.path().to_owned()), &DATASET).unwrap();
        let outcome = run(&dir, || {});
        assert_eq!((outcome.errors, outcome.mismatches), (0, 0));
        assert_eq!(outcome.verified, outcome.reads.len() as u64 * 4096);
        assert!(!outcome.reads.is_empty());
    }

    #[test]
    fn wrong_bytes_and_failed_reads_are_seen() {
        let dir = dir();
        let file = dir.path().join(Dataset::name(1));
        let wrong = run(&dir, || {
            fs::write(&file, vec![0; DATASET.size as usize]).unwrap();
        });
        assert!(wrong.mismatches > 0);
        let error = read_all(&Access::Mount(dir.path().to_owned()), &DATASET);
        assert!(format!("{:#}", error.unwrap_err()).contains("wrong bytes"));
        let short = run(&dir, || fs::write(&file, []).unwrap());
        assert!(short.errors > 0 && short.first_error.is_some());
    }
}
