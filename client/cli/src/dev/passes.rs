//! Reading everything, several files at once, every byte compared with the source.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use millpond_client::{FileHandle, FileSystem};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::report::{Pass, Sources};
use super::source::{Source, SourceFile};

/// What a reader asks for at a time.
const PIECE: usize = 1 << 20;

/// How many problems are told in words.
const TOLD: usize = 10;

/// How the files are read.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// As plain files below a directory of the mount.
    Mount(PathBuf),
    /// Through the client library, below a path of the namespace.
    Library(FileSystem, String),
}

/// What all passes read, and with what.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) fs: FileSystem,
    pub(crate) access: Access,
    pub(crate) source: Source,
    pub(crate) files: Vec<SourceFile>,
    pub(crate) readers: usize,
    pub(crate) stop: CancellationToken,
}

/// One pass: its figures, and its first problems in words.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) pass: Pass,
    pub(crate) problems: Vec<String>,
}

impl Workload {
    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Reads all files once. When a quarter of the bytes was read, `midway` is run beside
    /// the reading.
    ///
    /// # Errors
    /// When the reading was interrupted. What goes wrong with a file is counted.
    pub(crate) async fn pass(
        self: &Arc<Self>,
        name: &'static str,
        midway: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Outcome> {
        let before = self.fs.sources();
        let progress = Arc::new(Progress::new(name, self.bytes())?);
        let started = Instant::now();
        let reading = self.read_all(&progress);
        let midway = async {
            progress.quarter.notified().await;
            midway.await
        };
        let (tally, midway) = tokio::join!(reading, midway);
        midway?;
        let tally = tally?;
        let seconds = started.elapsed().as_secs_f64();
        progress.bar.finish_and_clear();
        if self.stop.is_cancelled() {
            bail!("interrupted");
        }
        let pass = Pass {
            bytes: tally.bytes,
            seconds,
            sources: Sources::between(&before, &self.fs.sources(), tally.bytes),
            errors: tally.errors,
            mismatches: tally.mismatches,
        };
        Ok(Outcome {
            pass,
            problems: tally.problems,
        })
    }

    /// Has the kernel forget the files' pages, so that the next read reaches the daemon.
    pub(crate) async fn drop_page_cache(self: &Arc<Self>) -> anyhow::Result<()> {
        let workload = Arc::clone(self);
        let drop_all = move || {
            let Access::Mount(dir) = &workload.access else {
                return Ok(());
            };
            for file in &workload.files {
                let path = dir.join(&file.path);
                let cannot = || format!("cannot drop the page cache of {}", path.display());
                let file = File::open(&path).with_context(cannot)?;
                let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
                posix_fadvise(&file, 0, 0, advice).with_context(cannot)?;
            }
            Ok(())
        };
        tokio::task::spawn_blocking(drop_all).await?
    }

    async fn read_all(self: &Arc<Self>, progress: &Arc<Progress>) -> anyhow::Result<Tally> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut readers = JoinSet::new();
        for _ in 0..self.readers {
            let (workload, next, progress) =
                (Arc::clone(self), Arc::clone(&next), Arc::clone(progress));
            let runtime = Handle::current();
            readers.spawn_blocking(move || workload.reader(&next, &progress, &runtime));
        }
        let mut tally = Tally::default();
        while let Some(reader) = readers.join_next().await {
            tally.add(reader?);
        }
        // Whatever waits for a quarter of the bytes must not wait for bytes that never came.
        progress.quarter.notify_one();
        Ok(tally)
    }

    /// One reader: takes the next file until there is none. Runs on a thread that may block.
    fn reader(&self, next: &AtomicUsize, progress: &Progress, runtime: &Handle) -> Tally {
        let mut tally = Tally::default();
        let mut buffers = Buffers::default();
        while !self.stop.is_cancelled() {
            let Some(file) = self.files.get(next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            match self.compare(file, &mut buffers, &mut tally.bytes, progress, runtime) {
                Ok(None) => {}
                Ok(Some(at)) => {
                    tally.mismatches += 1;
                    tally.tell(format!(
                        "{}: differs from the source at byte {at}",
                        file.path
                    ));
                }
                Err(_) if self.stop.is_cancelled() => {}
                Err(error) => {
                    tally.errors += 1;
                    let error = millpond_process::run::chain(&error);
                    tally.tell(format!("{}: {error}", file.path));
                }
            }
        }
        tally
    }

    /// Reads `file` to its end; where it first differs from the source, if it does.
    fn compare(
        &self,
        file: &SourceFile,
        buffers: &mut Buffers,
        bytes: &mut u64,
        progress: &Progress,
        runtime: &Handle,
    ) -> anyhow::Result<Option<u64>> {
        let mut truth = self.source.open(file, runtime)?;
        let mut opened = self.access.open(&file.path, runtime)?;
        let mut at = 0;
        let mut wrong = None;
        loop {
            if self.stop.is_cancelled() {
                bail!("interrupted");
            }
            let read = opened.read(at, &mut buffers.data, runtime)?;
            if read == 0 {
                break;
            }
            *bytes += read as u64;
            progress.add(read as u64);
            let data = &buffers.data[..read];
            if wrong.is_none() {
                let known = file.size.saturating_sub(at).min(read as u64) as usize;
                wrong = truth.difference(at, &data[..known], &mut buffers.scratch)?;
                if wrong.is_none() && known < read {
                    wrong = Some(file.size);
                }
            }
            at += read as u64;
        }
        // A file that is too short differs where it ends.
        Ok(wrong.or_else(|| (at < file.size).then_some(at)))
    }
}

impl Access {
    fn open(&self, path: &str, runtime: &Handle) -> anyhow::Result<Opened> {
        match self {
            Self::Mount(dir) => Ok(Opened::File(File::open(dir.join(path))?)),
            Self::Library(fs, root) => {
                let path = format!("{root}/{path}");
                Ok(Opened::Handle(runtime.block_on(fs.open(&path))?))
            }
        }
    }
}

enum Opened {
    File(File),
    Handle(Arc<FileHandle>),
}

impl Opened {
    /// The next bytes, which lie at `at`; 0 at the end of the file.
    fn read(&mut self, at: u64, buffer: &mut [u8], runtime: &Handle) -> anyhow::Result<usize> {
        match self {
            Self::File(file) => Ok(file.read(buffer)?),
            Self::Handle(handle) => {
                let data = match handle.try_read(at, PIECE as u32) {
                    Some(data) => data,
                    None => runtime.block_on(handle.read(at, PIECE as u32))?,
                };
                buffer[..data.len()].copy_from_slice(&data);
                Ok(data.len())
            }
        }
    }
}

/// The memory of one reader, kept from file to file.
struct Buffers {
    data: Vec<u8>,
    scratch: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            data: vec![0; PIECE],
            scratch: Vec::new(),
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    bytes: u64,
    errors: u64,
    mismatches: u64,
    problems: Vec<String>,
}

impl Tally {
    fn tell(&mut self, problem: String) {
        if self.problems.len() < TOLD {
            self.problems.push(problem);
        }
    }

    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.mismatches += other.mismatches;
        other
            .problems
            .into_iter()
            .for_each(|problem| self.tell(problem));
    }
}

/// How far a pass is: a bar on a terminal, and a signal at a quarter of the bytes.
struct Progress {
    bar: ProgressBar,
    done: AtomicU64,
    quarter_at: u64,
    quarter: Notify,
}

impl Progress {
    fn new(name: &'static str, total: u64) -> anyhow::Result<Self> {
        let style = "{msg:>10} {bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
        let bar = ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?);
        Ok(Self {
            bar: bar.with_message(name),
            done: AtomicU64::new(0),
            quarter_at: total / 4,
            quarter: Notify::new(),
        })
    }

    fn add(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        if before < self.quarter_at && before + bytes >= self.quarter_at {
            self.quarter.notify_one();
        }
        self.bar.inc(bytes);
    }
}
