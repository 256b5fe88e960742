//! The local disk tier: what this client has read, kept over a restart.
//!
//! ```text
//! <dir>/millpond-cache.json     format and cluster of the directory
//! <dir>/lock                    locked by the process that has the directory open
//! <dir>/trash/…                 files that are being unlinked
//! <dir>/1f/1fa0….data           the bytes of file version 1fa0…: sparse, of full size
//! <dir>/1f/1fa0….map            which pages of it are there, and their checksums
//! ```
//!
//! A file version is one sparse file, so that its descriptor can be read, mapped, or handed
//! to the kernel as it is. It is held in pages of 64 KiB: `map.rs` has the layout.
//!
//! - A page is entered in the map after its bytes were written. Nothing is forced to the
//!   medium for that: after a crash or a power failure the checksums tell what survived.
//! - Every page is verified when it is first read in a process, and believed from then on.
//!   Only what the disk has taken (`fdatasync` succeeded) is believed so: the kernel forgets
//!   a page whose writing failed. A bad page is dropped, counted, and fetched again.
//! - All files together, their maps and those that are unlinked but open included, never
//!   exceed the capacity. Whole files go, those used longest ago first.
//! - Nothing here fails a read: what cannot be had here is had elsewhere.

mod cached;
mod charge;
mod index;
mod layout;
mod lru;
mod map;
mod metrics;
mod names;
mod nowait;
mod pages;
mod reader;
mod scan;
mod settle;
mod writer;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millpond_disk::{DirLock, DiskError, Health};
use millpond_proto::{ClusterId, FileId};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::error::ClientError;
use crate::tasks::Tasks;

pub use cached::Backing;
pub(crate) use metrics::DiskMetrics;
pub(crate) use reader::Reader;

use charge::Charge;
use index::Index;
use layout::Layout;
use writer::Queue;

/// The local disk tier. Clones share everything.
#[derive(Clone)]
pub(crate) struct LocalDisk {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    capacity: u64,
    /// Held while names of files change, and while one is opened by name. Taken before
    /// `index`.
    names: Mutex<()>,
    index: Mutex<Index>,
    /// Room that all files take.
    used: Arc<AtomicU64>,
    health: Mutex<Health>,
    metrics: DiskMetrics,
    queue: Queue,
    reads: Arc<Semaphore>,
    settling: Arc<Semaphore>,
    completing: Arc<Semaphore>,
    /// Whether the file system says what it has in memory.
    tells: AtomicBool,
    /// Reads find nothing from now on, writes do nothing.
    closed: AtomicBool,
    /// Holds the lock on the directory.
    lock: Mutex<Option<DirLock>>,
    tasks: Tasks,
}

/// Reads of the disk at one time.
const READS: usize = 16;

/// Files that are synced and verified at one time.
const SETTLING: usize = 2;

impl LocalDisk {
    /// Opens the directory `dir` and finds what an earlier process left; the files used
    /// longest ago go if they are more than `capacity`. Takes about a second per hundred
    /// thousand files.
    ///
    /// # Errors
    /// [`ClientError::Disk`].
    pub(crate) async fn open(
        dir: &Path,
        capacity: u64,
        cluster: Option<ClusterId>,
        metrics: DiskMetrics,
        tasks: Tasks,
    ) -> Result<Self, ClientError> {
        let layout = Layout::new(dir.to_owned());
        let opening = move || Inner::open(layout, capacity, cluster, metrics, tasks);
        let inner = tokio::task::spawn_blocking(opening)
            .await
            .map_err(|_| ClientError::ShutDown)?
            .map_err(|source| ClientError::Disk(Arc::new(source)))?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether all of `range` of the file is here, as far as is known without touching the
    /// disk. Never waits.
    pub(crate) fn holds(&self, id: FileId, range: &Range<u64>) -> bool {
        let index = self.inner.index.lock();
        index.peek(&id).is_some_and(|file| file.holds(range))
    }

    /// Room that all files take, in bytes.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// Waits until nothing waits to be written, at most `limit`.
    pub(crate) async fn drain(&self, limit: Duration) {
        self.inner.queue.drain(limit).await;
    }

    /// Gives the directory free. Reads from now on find nothing.
    pub(crate) fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        let _names = self.inner.names.lock();
        self.inner.index.lock().clear();
        drop(self.inner.lock.lock().take());
    }
}

impl Inner {
    fn open(
        layout: Layout,
        capacity: u64,
        cluster: Option<ClusterId>,
        metrics: DiskMetrics,
        tasks: Tasks,
    ) -> Result<Self, DiskError> {
        let lock = layout.claim(cluster.as_ref())?;
        let started = Instant::now();
        let found = scan::scan(&layout)?;
        let inner = Self {
            layout,
            capacity,
            names: Mutex::default(),
            index: Mutex::new(Index::new(most_open())),
            used: Arc::default(),
            health: Mutex::default(),
            metrics,
            queue: Queue::new(),
            reads: Arc::new(Semaphore::new(READS)),
            settling: Arc::new(Semaphore::new(SETTLING)),
            completing: Arc::new(Semaphore::new(1)),
            tells: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
            tasks,
        };
        for file in found {
            let charge = Charge::new(Arc::clone(&inner.used));
            charge.add(file.room);
            inner.index.lock().restore(file.id, Arc::new(charge));
        }
        inner.make_room(0, None);
        tracing::debug!(
            dir = %inner.layout.dir().path().display(),
            files = inner.index.lock().len(),
            bytes = inner.used.load(Ordering::Relaxed),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "cache directory scanned"
        );
        Ok(inner)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Brings the gauges up to date.
    fn gauge(&self) {
        let used = self.used.load(Ordering::Relaxed);
        self.metrics.used_bytes.set(used as i64);
        self.metrics.files.set(self.index.lock().len() as i64);
    }
}

impl fmt::Debug for LocalDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalDisk")
            .field("dir", &self.inner.layout.dir().path())
            .field("used", &self.inner.used.load(Ordering::Relaxed))
            .field("capacity", &self.inner.capacity)
            .finish_non_exhaustive()
    }
}

/// How many cached files are kept open, with two descriptors each: a quarter of what this
/// process may have open.
fn most_open() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let descriptors = limit.current.unwrap_or(u64::MAX);
    (descriptors / 8).clamp(16, 2048) as usize
}
