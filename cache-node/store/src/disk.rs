//! Blocks on disk: one plain file per block.
//!
//! ```text
//! <dir>/millpond-store.json     format and cluster of the directory
//! <dir>/lock                    locked by the process that has the directory open
//! <dir>/tmp/…                   files being written
//! <dir>/1f/a0/1fa0….17          block 17 of file 1fa0…
//! ```
//!
//! A file holds the block's bytes from offset 0, so that its descriptor can be read, mapped,
//! sent or passed as it is, and then the footer that `format.rs` describes.
//!
//! - A file is written under `tmp/`, then renamed: it is whole or not there.
//! - Every page read is verified; a bad one drops the block.
//! - The file of a block that is held ([`Policy::Hold`](crate::Policy::Hold)) is read-only:
//!   so a restart knows which ones are.
//! - All files together, those being written included, never exceed the capacity: what must
//!   go is unlinked before what comes is written.
//! - A restart finds every block again. Nothing is forced to the medium: after a power
//!   failure the checksums tell what survived.

mod format;
mod index;
mod layout;
mod scan;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use millpond_disk::{DirLock, DiskError, Health};
use millpond_proto::{BlockId, ClusterId};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use crate::admission::{Admission, Refusal};
use crate::block::{Block, Hit};
use crate::stats::DiskCounters;

use format::ReadError;
use index::{Entry, Index, State};
use layout::Layout;

/// Where a [`DiskTier`] is and how much it may use.
#[derive(Debug, Clone)]
pub struct DiskConfig {
    /// The directory; created if it does not exist. Must be empty or a block directory.
    pub dir: PathBuf,
    /// The limit in bytes, counted in whole 4 KiB units as the file system does.
    pub capacity: u64,
    /// The cluster whose blocks these are; none for a standalone client.
    pub cluster: Option<ClusterId>,
    /// Reads at one time.
    pub readers: usize,
    /// Writes at one time.
    pub writers: usize,
}

impl DiskConfig {
    /// A tier at `dir` of at most `capacity` bytes.
    pub const fn new(dir: PathBuf, capacity: u64, cluster: Option<ClusterId>) -> Self {
        Self {
            dir,
            capacity,
            cluster,
            readers: 16,
            writers: 4,
        }
    }
}

/// Blocks on disk. Cheap to clone; the last clone gives the directory free.
#[derive(Clone)]
pub struct DiskTier {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    capacity: u64,
    index: Index,
    /// Held for every change of the index, of the names of block files and of `used`.
    names: Mutex<()>,
    /// Bytes of all files, those being written included.
    used: AtomicU64,
    health: Mutex<Health>,
    counters: DiskCounters,
    next_tmp: AtomicU64,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    /// Holds the lock on the directory.
    _lock: DirLock,
}

impl DiskTier {
    /// Opens the directory, removes what an earlier process left half-written, and finds
    /// the blocks in it; the oldest go if they are more than `capacity`. Blocks the thread:
    /// for about a second per hundred thousand blocks.
    ///
    /// # Errors
    /// - `Busy` when another process has the directory.
    /// - `Invalid` when it belongs to another cluster, format, or somebody else.
    /// - `Denied` or `Unavailable` when it cannot be used.
    pub fn open(config: DiskConfig) -> Result<Self, DiskError> {
        let layout = Layout::new(config.dir);
        let lock = layout.claim(config.cluster.as_ref())?;
        let started = Instant::now();
        let found = scan::scan(&layout)?;
        let inner = Inner {
            layout,
            capacity: config.capacity,
            index: Index::new(config.capacity),
            names: Mutex::default(),
            used: AtomicU64::new(0),
            health: Mutex::default(),
            counters: DiskCounters::default(),
            next_tmp: AtomicU64::new(0),
            reads: Arc::new(Semaphore::new(config.readers.max(1))),
            writes: Arc::new(Semaphore::new(config.writers.max(1))),
            _lock: lock,
        };
        inner.restore(found);
        debug!(
            blocks = inner.index.len(),
            bytes = inner.used(),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "block directory scanned"
        );
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Reads `len` bytes from `offset` of a block and verifies the pages that hold them.
    /// None if the block is not held, the range is not within it, or it turned out to be
    /// damaged (it is then dropped and counted).
    ///
    /// # Cancel safety
    /// Nothing is lost; a read that began is finished in the background.
    pub async fn read(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        if !self.contains(id) {
            return None;
        }
        // The semaphore is never closed.
        let permit = Arc::clone(&self.inner.reads).acquire_owned().await.ok()?;
        let (this, id) = (self.clone(), *id);
        let read = tokio::task::spawn_blocking(move || {
            let hit = this.read_blocking(&id, offset, len);
            drop(permit);
            hit
        });
        read.await.ok()?
    }

    /// Like [`read`](Self::read), on the calling thread.
    pub fn read_blocking(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        self.inner.read(id, offset, len)
    }

    /// Writes a block, evicting others if need be.
    ///
    /// # Cancel safety
    /// A write that began is finished in the background.
    pub async fn write(&self, id: BlockId, block: Block) -> Admission {
        let closed = Admission::Refused(Refusal::Closed);
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&self.inner.writes).acquire_owned().await else {
            return closed;
        };
        let this = self.clone();
        let write = tokio::task::spawn_blocking(move || {
            let admission = this.write_blocking(id, &block);
            drop(permit);
            admission
        });
        write.await.unwrap_or(closed)
    }

    /// Like [`write`](Self::write), on the calling thread.
    pub fn write_blocking(&self, id: BlockId, block: &Block) -> Admission {
        let admission = self.inner.write(id, block);
        match admission {
            Admission::Refused(Refusal::Busy) => self.inner.counters.refused_busy.inc(),
            Admission::Refused(Refusal::Held) => self.inner.counters.refused_held.inc(),
            Admission::Refused(_) => self.inner.counters.refused_error.inc(),
            Admission::Accepted => self.inner.counters.writes.inc(),
            Admission::Present => {}
        }
        admission
    }

    /// Whether the block is held and whole, as far as is known without reading it.
    pub fn contains(&self, id: &BlockId) -> bool {
        self.inner.index.is_ready(id)
    }

    /// Drops a block. Blocks the thread for one unlink.
    pub fn remove(&self, id: &BlockId) {
        let _names = self.inner.names.lock();
        if let Some(entry) = self.inner.index.remove(id) {
            self.inner.discard(id, &entry);
        }
    }

    /// Bytes of all files; never above [`capacity`](Self::capacity).
    pub fn used(&self) -> u64 {
        self.inner.used()
    }

    /// Bytes of the files of blocks that are held.
    pub fn held(&self) -> u64 {
        self.inner.index.held()
    }

    /// The limit in bytes.
    pub fn capacity(&self) -> u64 {
        self.inner.capacity
    }

    /// Blocks held, those being written included.
    pub fn blocks(&self) -> u64 {
        self.inner.index.len()
    }

    pub(crate) fn counters(&self) -> &DiskCounters {
        &self.inner.counters
    }
}

impl fmt::Debug for DiskTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskTier")
            .field("dir", &self.inner.layout.dir().path())
            .field("used", &self.used())
            .field("capacity", &self.inner.capacity)
            .finish()
    }
}

impl Inner {
    fn read(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        let entry = self.index.use_ready(id)?;
        if u64::from(offset) + u64::from(len) > u64::from(entry.len) {
            return None;
        }
        let path = self.layout.block(id);
        match format::read(&path, id, entry.len, offset, len) {
            Ok(hit) => Some(hit),
            // Evicted between the lookup and the read.
            Err(_) if entry.state() != State::Ready => None,
            Err(error) => {
                match error {
                    ReadError::Damaged(why) => {
                        self.counters.corrupt.inc();
                        warn!(block = %id, why, "damaged block dropped");
                    }
                    ReadError::Io(error) => {
                        self.counters.errors.inc();
                        warn!(block = %id, %error, "unreadable block dropped");
                    }
                }
                self.drop_entry(id, &entry);
                None
            }
        }
    }

    fn write(&self, id: BlockId, block: &Block) -> Admission {
        let size = format::footprint(block.data.len());
        if size > self.capacity || u32::try_from(block.data.len()).is_err() {
            return Admission::Refused(Refusal::TooLarge);
        }
        if !self.health.lock().admits(Instant::now()) {
            return Admission::Refused(Refusal::Disk);
        }
        let entry = Arc::new(Entry::new(
            block.data.len() as u32,
            size,
            block.policy,
            State::Writing,
        ));
        if let Err(admission) = self.reserve(id, &entry) {
            return admission;
        }
        let number = self.next_tmp.fetch_add(1, Ordering::Relaxed);
        let tmp = self.layout.tmp(number);
        let written = format::write(&tmp, &id, block).and_then(|()| {
            self.layout.ensure_parent(&id)?;
            self.publish(&id, &entry, &tmp)
        });
        match written {
            Ok(()) => {
                if self.health.lock().succeeded() {
                    let dir = self.layout.dir().path().display();
                    info!(%dir, "blocks can be written again");
                }
                Admission::Accepted
            }
            Err(error) => {
                self.abandon(&id, &entry, &tmp);
                self.counters.errors.inc();
                if self.health.lock().failed(Instant::now()) {
                    let dir = self.layout.dir().path().display();
                    warn!(%dir, %error, "cannot write blocks, bypassing the disk for a while");
                }
                Admission::Refused(Refusal::Disk)
            }
        }
    }

    /// Makes room for an entry and enters it, or says why not.
    fn reserve(&self, id: BlockId, entry: &Arc<Entry>) -> Result<(), Admission> {
        let _names = self.names.lock();
        if self.index.contains(&id) {
            return Err(Admission::Present);
        }
        let (taken, gone) = self.index.insert(id, entry);
        self.evict(gone);
        if !taken {
            return Err(Admission::Refused(Refusal::Held));
        }
        // Room that only blocks still being written could give is not room.
        if self.used() + entry.size > self.capacity {
            self.index.remove(&id);
            self.index.written(&id, entry);
            entry.set(State::Gone);
            return Err(Admission::Refused(Refusal::Busy));
        }
        self.add(entry.size);
        Ok(())
    }

    /// Discards blocks that had to make room.
    fn evict(&self, gone: Vec<(BlockId, Arc<Entry>)>) {
        for (victim, entry) in gone {
            self.counters.evictions.inc();
            self.discard(&victim, &entry);
        }
    }

    /// Gives a written file its name, unless its entry was evicted meanwhile.
    fn publish(&self, id: &BlockId, entry: &Arc<Entry>, tmp: &Path) -> io::Result<()> {
        let _names = self.names.lock();
        if entry.state() == State::Writing {
            fs::rename(tmp, self.layout.block(id))?;
            entry.set(State::Ready);
        } else {
            fs::remove_file(tmp)?;
            self.sub(entry.size);
        }
        self.index.written(id, entry);
        Ok(())
    }

    /// Takes back what [`reserve`](Self::reserve) did.
    fn abandon(&self, id: &BlockId, entry: &Arc<Entry>, tmp: &Path) {
        let _names = self.names.lock();
        self.index.remove_exactly(id, entry);
        self.index.written(id, entry);
        entry.set(State::Gone);
        match fs::remove_file(tmp) {
            Ok(()) => self.sub(entry.size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.sub(entry.size);
            }
            // It still takes room; the next start removes it.
            Err(_) => self.counters.errors.inc(),
        }
    }

    fn drop_entry(&self, id: &BlockId, entry: &Arc<Entry>) {
        let _names = self.names.lock();
        if self.index.remove_exactly(id, entry) {
            self.discard(id, entry);
        }
    }

    /// Unlinks the file of an entry that has left the index. One that is still being
    /// written is left to its writer.
    fn discard(&self, id: &BlockId, entry: &Entry) {
        if entry.take() != State::Ready {
            return;
        }
        match fs::remove_file(self.layout.block(id)) {
            Ok(()) => self.sub(entry.size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.sub(entry.size);
            }
            Err(error) => {
                // It still takes room, so it stays accounted for; a restart finds it again.
                self.counters.errors.inc();
                warn!(block = %id, %error, "cannot remove a block");
            }
        }
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn add(&self, size: u64) {
        self.used.fetch_add(size, Ordering::Relaxed);
    }

    fn sub(&self, size: u64) {
        self.used.fetch_sub(size, Ordering::Relaxed);
    }

    /// Enters the blocks that a scan found, oldest first.
    fn restore(&self, found: Vec<scan::Found>) {
        let _names = self.names.lock();
        for file in found {
            let entry = Entry::new(file.len, file.size, file.policy, State::Ready);
            let entry = Arc::new(entry);
            self.add(file.size);
            if file.size > self.capacity {
                self.discard(&file.id, &entry);
                continue;
            }
            let (taken, gone) = self.index.insert(file.id, &entry);
            self.evict(gone);
            if !taken {
                self.discard(&file.id, &entry);
            }
        }
    }
}
