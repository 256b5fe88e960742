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
//! - A sick disk holds nobody up: a read that takes too long is a miss, and while the disk is
//!   sick requests go round it. `device.rs` decides, `probe.rs` tries it out.
//! - Every insert is on disk, or refused with a reason that is counted, or made room for
//!   others.

mod blocks;
mod device;
mod files;
mod format;
mod index;
mod layout;
mod probe;
mod scan;
mod scrub;
mod share;
mod tend;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_disk::DiskError;
use millpond_proto::{BlockId, ClusterId};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::admission::{Admission, Refusal};
use crate::block::{Block, Hit};
use crate::stats::{DiskCounters, DiskHealth, StoreStats};

pub use device::Access;
pub use files::{Faults, FileOp};
pub use scrub::Scrub;
pub use share::SharedFile;

use blocks::Blocks;

/// Where a [`DiskTier`] is and how much it may use.
#[derive(Debug, Clone)]
pub struct DiskConfig {
    /// The directory; created if it does not exist. Must be empty or a block directory.
    pub dir: PathBuf,
    /// The limit in bytes, counted in whole 4 KiB units as the file system does.
    pub capacity: u64,
    /// The cluster whose blocks these are; none for a standalone client.
    pub cluster: Option<ClusterId>,
    /// Reads at one time: the most threads that a disk which hangs can hold.
    pub readers: usize,
    /// Writes at one time, likewise.
    pub writers: usize,
    /// How long a read may take, waiting for its turn included, before it goes on as a miss
    /// and the disk counts as sick.
    pub read_limit: Duration,
    /// How long a write may take before the disk counts as sick.
    pub write_limit: Duration,
    /// For tests: what goes wrong.
    pub faults: Option<Arc<dyn Faults>>,
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
            read_limit: Duration::from_secs(2),
            write_limit: Duration::from_secs(5),
            faults: None,
        }
    }
}

/// Blocks on disk. Cheap to clone; the last clone gives the directory free.
///
/// Somebody has to run [`tend`](Self::tend): a disk that failed once is gone round until that
/// has tried it out.
#[derive(Clone)]
pub struct DiskTier {
    inner: Arc<Inner>,
}

struct Inner {
    blocks: Blocks,
    reads: Arc<Semaphore>,
    readers: usize,
    writes: Arc<Semaphore>,
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
        let (readers, writers) = (config.readers.max(1), config.writers.max(1));
        let inner = Inner {
            blocks: Blocks::open(config)?,
            reads: Arc::new(Semaphore::new(readers)),
            readers,
            writes: Arc::new(Semaphore::new(writers)),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Reads `len` bytes from `offset` of a block and verifies the pages that hold them.
    /// None if the block is not held, the range is not within it, the disk does not answer in
    /// time, or the block turned out to be damaged (it is then dropped and counted).
    ///
    /// # Cancel safety
    /// Nothing is lost; a read that began is finished in the background.
    pub async fn read(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        self.in_time(id, move |blocks, id| blocks.read(id, offset, len))
            .await
    }

    /// What `read` finds of a block, if the disk answers in time.
    async fn in_time<T: Send + 'static>(
        &self,
        id: &BlockId,
        read: impl FnOnce(&Blocks, &BlockId) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        if !self.contains(id) {
            return None;
        }
        let device = &self.inner.blocks.device;
        let read = self.in_turn(id, read);
        match timeout(device.limit(Access::Read), read).await {
            Ok(found) => found,
            Err(_) => {
                device.overdue(Access::Read, Instant::now(), self.counters());
                None
            }
        }
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        id: &BlockId,
        read: impl FnOnce(&Blocks, &BlockId) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let turn = Arc::clone(&self.inner.reads).acquire_owned();
        let device = &self.inner.blocks.device;
        // The semaphore is never closed.
        let permit = device.unless_out(Access::Read, turn).await?.ok()?;
        let (inner, id) = (Arc::clone(&self.inner), *id);
        let read = tokio::task::spawn_blocking(move || {
            let found = read(&inner.blocks, &id);
            drop(permit);
            found
        });
        read.await.ok()?
    }

    /// Like [`read`](Self::read), on the calling thread, for as long as the disk takes.
    pub fn read_blocking(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        self.inner.blocks.read(id, offset, len)
    }

    /// Writes a block, evicting others if need be. What becomes of it is counted.
    ///
    /// # Cancel safety
    /// A write that began is finished in the background.
    pub async fn write(&self, id: BlockId, block: Block) -> Admission {
        let turn = Arc::clone(&self.inner.writes).acquire_owned();
        let device = &self.inner.blocks.device;
        let Some(Ok(permit)) = device.unless_out(Access::Write, turn).await else {
            return self.refuse(Refusal::Out);
        };
        let this = self.clone();
        let write = tokio::task::spawn_blocking(move || {
            let admission = this.write_blocking(id, &block);
            drop(permit);
            admission
        });
        match write.await {
            Ok(admission) => admission,
            Err(_) => self.refuse(Refusal::Closed),
        }
    }

    /// Like [`write`](Self::write), on the calling thread.
    pub fn write_blocking(&self, id: BlockId, block: &Block) -> Admission {
        self.inner.blocks.write(id, block)
    }

    /// Counts an insert that did not get as far as the disk.
    pub(crate) fn refuse(&self, why: Refusal) -> Admission {
        self.counters().inserted(Admission::Refused(why))
    }

    /// Whether the block is held and whole, as far as is known without reading it, and the
    /// disk is well. Never waits.
    pub fn contains(&self, id: &BlockId) -> bool {
        self.inner.blocks.contains(id)
    }

    /// Whether requests go to the disk. Never waits.
    pub fn admits(&self, access: Access) -> bool {
        self.inner.blocks.device.admits(access)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        self.inner.blocks.device.dir()
    }

    /// What is thought of the disk.
    pub fn health(&self) -> DiskHealth {
        let device = &self.inner.blocks.device;
        DiskHealth {
            dir: device.dir().to_owned(),
            reads: device.state(Access::Read),
            writes: device.state(Access::Write),
        }
    }

    /// Drops a block. Blocks the thread for one unlink.
    pub fn remove(&self, id: &BlockId) {
        self.inner.blocks.remove(id);
    }

    /// Bytes of all files; never above [`capacity`](Self::capacity).
    pub fn used(&self) -> u64 {
        self.inner.blocks.used()
    }

    /// Bytes of the files of blocks that are held.
    pub fn held(&self) -> u64 {
        self.inner.blocks.index.held()
    }

    /// The limit in bytes.
    pub fn capacity(&self) -> u64 {
        self.inner.blocks.capacity()
    }

    /// Blocks held, those being written included.
    pub fn blocks(&self) -> u64 {
        self.inner.blocks.index.len()
    }

    /// What the tier holds and has counted: the disk part of the snapshot of a store.
    pub fn stats(&self) -> StoreStats {
        let mut stats = StoreStats::default();
        self.report(&mut stats);
        stats
    }

    /// Adds the tier's part to a snapshot.
    pub(crate) fn report(&self, stats: &mut StoreStats) {
        stats.disk_used += self.used();
        stats.disk_capacity += self.capacity();
        stats.disk_held += self.held();
        stats.disk_blocks += self.blocks();
        self.counters().report(stats);
    }

    /// Tries out a disk that is gone round, whether that is due or not, on the calling thread.
    /// [`tend`](Self::tend) does it in the background.
    pub fn probe_blocking(&self) {
        let probed = self.inner.blocks.probe();
        self.inner.blocks.probed(&Access::ALL, &probed);
    }

    pub(crate) fn counters(&self) -> &DiskCounters {
        &self.inner.blocks.counters
    }
}

impl fmt::Debug for DiskTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskTier")
            .field("dir", &self.inner.blocks.device.dir())
            .field("used", &self.used())
            .field("capacity", &self.capacity())
            .finish()
    }
}
