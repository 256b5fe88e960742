//! Reads of one file, by threads that block: whatever the file lies on is measured by the same
//! code.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::content::Content;
use super::pages::{self, Mapping};
use super::workers::{self, Step};
use crate::measure::Sample;
use crate::read::order::Shuffled;
use crate::record::KernelCache;

/// In which order a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// From front to back; each job has a share of its own.
    Sequential,
    /// Every request once, in the order that a seed gives.
    Random {
        /// The seed.
        seed: u64,
    },
    /// Like [`Sequential`](Self::Sequential), copied from a mapping of the file.
    Mapped,
}

/// How a file is read.
#[derive(Debug, Clone)]
pub struct Reads {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes, a multiple of `request`.
    pub size: u64,
    /// Bytes of each read.
    pub request: usize,
    /// Threads.
    pub jobs: u64,
    /// The order.
    pub access: Access,
    /// With `O_DIRECT`, past the page cache; `request` must be a multiple of 4096 then.
    pub direct: bool,
}

/// What `O_DIRECT` wants addresses, offsets and lengths to be multiples of, at most.
const ALIGNMENT: usize = 4096;
/// Bytes that are written, and checked, at once.
const PIECE: usize = 1 << 20;

impl Reads {
    /// Sequential reads of `request` bytes by one thread through the page cache.
    pub fn new(path: &Path, size: u64, request: usize) -> Self {
        Self {
            path: path.to_owned(),
            size,
            request,
            jobs: 1,
            access: Access::Sequential,
            direct: false,
        }
    }

    /// As a name says: `seq-1m-4jobs`, `rand-4k-1job`, or `mmap-1job`, which copies 1 MiB at
    /// a time.
    ///
    /// # Errors
    /// When it says something else.
    pub fn parse(name: &str, path: &Path, size: u64, seed: u64) -> Result<Self> {
        let unknown = || format!("{name} is not the name of a way to read");
        let (rest, jobs) = name.rsplit_once('-').with_context(unknown)?;
        let jobs = jobs
            .strip_suffix("jobs")
            .or_else(|| jobs.strip_suffix("job"));
        let (access, request) = match rest.split_once('-') {
            Some(("seq", request)) => (Access::Sequential, bytes(request)?),
            Some(("rand", request)) => (Access::Random { seed }, bytes(request)?),
            None if rest == "mmap" => (Access::Mapped, 1 << 20),
            _ => bail!(unknown()),
        };
        let jobs = jobs.with_context(unknown)?.parse().with_context(unknown)?;
        Ok(Self::new(path, size, request).jobs(jobs).access(access))
    }

    /// By so many threads.
    #[must_use]
    pub const fn jobs(mut self, jobs: u64) -> Self {
        self.jobs = jobs;
        self
    }

    /// In another order.
    #[must_use]
    pub const fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Past the page cache.
    #[must_use]
    pub const fn direct(mut self) -> Self {
        self.direct = true;
        self
    }

    /// Reads for `duration`, again from the front where the file ends. What the kernel keeps of
    /// it, it keeps. The CPU time of the processes `others` counts too.
    ///
    /// # Errors
    /// The first failed or short read.
    pub fn run(&self, duration: Duration, others: &[u32]) -> Result<Sample> {
        workers::threads(self.steps(true)?, Some(duration), others)
    }

    /// Reads for `duration`, without pages in the kernel: they are dropped before, and again
    /// whenever the whole file was read, while the clock stands. Also what the first drop did.
    ///
    /// # Errors
    /// The first failed or short read; when pages cannot be looked at.
    pub fn run_cold(&self, duration: Duration, others: &[u32]) -> Result<(Sample, KernelCache)> {
        let mut all = Sample::default();
        let mut dropped = None;
        while all.elapsed < duration {
            let cache = pages::drop_pages(&self.path)?;
            dropped.get_or_insert(cache);
            let left = duration - all.elapsed;
            let pass = workers::threads(self.steps(false)?, Some(left), others)?;
            ensure!(pass.bytes > 0, "a pass over the file read nothing");
            all.elapsed += pass.elapsed;
            all.cpu_seconds += pass.cpu_seconds;
            all.merge(pass);
        }
        let dropped = dropped.context("no time to read")?;
        Ok((all, dropped))
    }

    /// Reads all of it once and compares it; the bytes that were compared.
    ///
    /// # Errors
    /// With how many differ; when it cannot be read.
    pub fn verify(&self, content: &Content) -> Result<u64> {
        let file = File::open(&self.path).with_context(|| self.cannot())?;
        let mut piece = vec![0; PIECE];
        let mut wrong = 0;
        let mut at = 0;
        while at < self.size {
            let len = PIECE.min((self.size - at) as usize);
            let found = file.read_exact_at(&mut piece[..len], at);
            found.with_context(|| self.cannot())?;
            wrong += content.mismatches(at, &piece[..len]);
            at += len as u64;
        }
        if wrong > 0 {
            let path = self.path.display();
            bail!("{wrong} of {} bytes of {path} are wrong", self.size);
        }
        Ok(self.size)
    }

    /// One step for each job; endless ones begin again where their share ends.
    fn steps(&self, endless: bool) -> Result<Vec<Step<'static>>> {
        ensure!(
            self.request > 0 && self.size.is_multiple_of(self.request as u64),
            "{} bytes are not read in whole requests of {}",
            self.size,
            self.request
        );
        let requests = self.size / self.request as u64;
        let share = |job: u64| requests * job / self.jobs;
        let order = match self.access {
            Access::Random { seed } => Some(Shuffled::new(requests, seed)),
            Access::Sequential | Access::Mapped => None,
        };
        let mut steps = Vec::new();
        for job in 0..self.jobs {
            let mut source = Source::open(self)?;
            let mut buffer = Buffer::new(self.request);
            let (first, end) = (share(job), share(job + 1));
            let request = self.request as u64;
            let mut next = first;
            steps.push(Box::new(move || {
                if next == end {
                    if !endless || first == end {
                        return Ok(None);
                    }
                    next = first;
                }
                let number = order.map_or(next, |order| order.get(next));
                next += 1;
                source.read(number * request, buffer.bytes())?;
                Ok(Some(request))
            }) as Step<'static>);
        }
        Ok(steps)
    }

    fn cannot(&self) -> String {
        format!("cannot read {}", self.path.display())
    }
}

enum Source {
    File(File),
    Mapping(Mapping),
}

impl Source {
    fn open(reads: &Reads) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true);
        if reads.direct {
            options.custom_flags(libc::O_DIRECT);
        }
        let file = options.open(&reads.path);
        let file = file.with_context(|| format!("cannot open {}", reads.path.display()))?;
        if reads.access != Access::Mapped {
            return Ok(Self::File(file));
        }
        let len = usize::try_from(reads.size)?;
        let mapping = Mapping::new(&file, len);
        let mapping = mapping.with_context(|| format!("cannot map {}", reads.path.display()))?;
        Ok(Self::Mapping(mapping))
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(into, offset)?,
            Self::Mapping(mapping) => mapping.copy(offset as usize, into),
        }
        Ok(())
    }
}

/// Memory that `O_DIRECT` accepts.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Self {
        // Not zeroes, whose pages might all be one and the same.
        let memory = vec![1; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// `4k`, `1m`: bytes.
///
/// # Errors
/// When it is something else.
pub fn bytes(text: &str) -> Result<usize> {
    let (number, shift) = match text.as_bytes() {
        [number @ .., b'k'] => (number, 10),
        [number @ .., b'm'] => (number, 20),
        _ => bail!("{text} is not a size like 4k or 1m"),
    };
    let number: usize = std::str::from_utf8(number)?.parse()?;
    Ok(number << shift)
}

/// Writes a file of `size` bytes that is on the disk when this returns.
///
/// # Errors
/// When the file system does not take it.
pub fn create(path: &Path, size: u64, content: &Content) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut file = File::create(path).with_context(cannot)?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let len = PIECE.min((size - at) as usize);
        content.fill(at, &mut piece[..len]);
        file.write_all(&piece[..len]).with_context(cannot)?;
        at += len as u64;
    }
    file.sync_all().with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 3 << 20;

    fn file(dir: &Path) -> (PathBuf, Content) {
        let (path, content) = (dir.join("file"), Content::new(3, 1 << 20));
        create(&path, SIZE, &content).unwrap();
        (path, content)
    }

    #[test]
    fn a_pass_reads_every_byte_once_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = file(dir.path());
        for access in [
            Access::Sequential,
            Access::Random { seed: 5 },
            Access::Mapped,
        ] {
            let reads = Reads::new(&path, SIZE, 64 << 10).jobs(5).access(access);
            let pass = workers::threads(reads.steps(false).unwrap(), None, &[]).unwrap();
            assert_eq!((pass.bytes, pass.ops), (SIZE, SIZE >> 16), "{access:?}");
        }
        let endless = Reads::new(&path, SIZE, 1 << 20);
        let sample = endless.run(Duration::from_millis(20), &[]).unwrap();
        assert!(sample.ops > 0);
        let (cold, cache) = endless.run_cold(Duration::from_millis(20), &[]).unwrap();
        assert!(cold.elapsed >= Duration::from_millis(20), "{cache:?}");
    }

    #[test]
    fn names_say_how_to_read() {
        let parse = |name| Reads::parse(name, Path::new("f"), SIZE, 9);
        let reads = parse("seq-128k-32jobs").unwrap();
        assert_eq!((reads.request, reads.jobs), (128 << 10, 32));
        let reads = parse("rand-4k-1job").unwrap();
        assert_eq!(reads.access, Access::Random { seed: 9 });
        assert_eq!(parse("mmap-1job").unwrap().request, 1 << 20);
        for wrong in [
            "seq-1m",
            "seq-1-1job",
            "back-1m-1job",
            "mmap",
            "seq-1m-xjobs",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_bytes_and_short_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let (path, content) = file(dir.path());
        let reads = Reads::new(&path, SIZE, 4096);
        assert_eq!(reads.verify(&content).unwrap(), SIZE);
        assert!(reads.verify(&Content::new(4, 1 << 20)).is_err());
        let longer = Reads::new(&path, SIZE * 2, 4096).access(Access::Random { seed: 1 });
        assert!(longer.run(Duration::from_secs(60), &[]).is_err());
        assert!(Reads::new(&path, SIZE, 4097).steps(false).is_err());
    }
}
