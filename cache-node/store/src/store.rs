//! Memory, then disk.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_disk::DiskError;
use millpond_proto::wire::frame::Tier;
use millpond_proto::{BlockId, ClusterId};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::admission::{Admission, Refusal};
use crate::block::{Block, Hit};
use crate::disk::{DiskConfig, DiskTier};
use crate::memory::MemoryTier;
use crate::stats::{Count, StoreStats};

/// The unit in which bytes being written are counted.
const PERMIT_BYTES: u64 = 1024;

/// What a [`Store`] may use.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Limit of the memory tier in bytes; 0 for none.
    pub memory: u64,
    /// Directory and limit in bytes of the disk tier, if there is one.
    pub disk: Option<(PathBuf, u64)>,
    /// The cluster whose blocks these are; none for a standalone client.
    pub cluster: Option<ClusterId>,
    /// Bytes of blocks that may wait to be written to disk, in memory beside the memory
    /// tier.
    pub write_buffer: u64,
    /// How long an insert waits for room in the write buffer before the disk is left out.
    pub write_wait: Duration,
}

impl StoreConfig {
    /// A store with these limits and a write buffer of 32 MiB.
    pub const fn new(
        memory: u64,
        disk: Option<(PathBuf, u64)>,
        cluster: Option<ClusterId>,
    ) -> Self {
        Self {
            memory,
            disk,
            cluster,
            write_buffer: 32 << 20,
            write_wait: Duration::from_secs(1),
        }
    }
}

/// Blocks in memory and on disk. Cheap to clone.
///
/// A block that is inserted can be read at once and until it is evicted: from memory, from
/// the buffer while it is written, then from disk.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    memory: MemoryTier,
    disk: Option<DiskTier>,
    /// Blocks on their way to disk.
    writing: Mutex<HashMap<BlockId, Block>>,
    buffer: Arc<Semaphore>,
    buffer_permits: usize,
    write_wait: Duration,
    writers: TaskTracker,
    memory_hits: Count,
    disk_hits: Count,
    misses: Count,
    refused_busy: Count,
}

impl Store {
    /// Opens the disk tier, if any, and finds the blocks in it.
    ///
    /// # Errors
    /// Those of [`DiskTier::open`].
    pub async fn open(config: StoreConfig) -> Result<Self, DiskError> {
        let disk = match config.disk {
            Some((dir, capacity)) if capacity > 0 => {
                let disk = DiskConfig::new(dir, capacity, config.cluster);
                Some(open_disk(disk).await?)
            }
            _ => None,
        };
        let permits = config.write_buffer.div_ceil(PERMIT_BYTES) as usize;
        let permits = permits.clamp(1, u32::MAX as usize);
        Ok(Self {
            inner: Arc::new(Inner {
                memory: MemoryTier::new(config.memory),
                disk,
                writing: Mutex::default(),
                buffer: Arc::new(Semaphore::new(permits)),
                buffer_permits: permits,
                write_wait: config.write_wait,
                writers: TaskTracker::new(),
                memory_hits: Count::default(),
                disk_hits: Count::default(),
                misses: Count::default(),
                refused_busy: Count::default(),
            }),
        })
    }

    /// `len` bytes from `offset` of a block, if it is in memory. Never waits. A miss is not
    /// counted, a hit is.
    pub fn read_memory(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        let hit = self.inner.block(id)?.range(offset, len, Tier::Memory)?;
        self.inner.memory_hits.inc();
        Some(hit)
    }

    /// The whole block, if it is in memory.
    pub fn block_in_memory(&self, id: &BlockId) -> Option<Block> {
        self.inner.block(id)
    }

    /// `len` bytes from `offset` of a block, from memory or from disk, verified there.
    pub async fn read(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        if let Some(hit) = self.read_memory(id, offset, len) {
            return Some(hit);
        }
        let hit = match &self.inner.disk {
            Some(disk) => disk.read(id, offset, len).await,
            None => None,
        };
        match &hit {
            Some(_) => self.inner.disk_hits.inc(),
            None => self.inner.misses.inc(),
        }
        hit
    }

    /// Keeps a block: in memory at once, on disk a little later. Waits only while too much
    /// is on its way to disk, and not for long.
    ///
    /// # Cancel safety
    /// A cancelled insert may leave the block in memory alone.
    pub async fn insert(&self, id: BlockId, block: Block) -> Admission {
        let memory = self.inner.memory.insert(id, block.clone());
        let disk = match &self.inner.disk {
            Some(disk) => self.insert_disk(disk, id, block).await,
            None => memory,
        };
        match (memory, disk) {
            (Admission::Accepted, _) | (_, Admission::Accepted) => Admission::Accepted,
            (Admission::Present, _) | (_, Admission::Present) => Admission::Present,
            (Admission::Refused(_), Admission::Refused(why)) => Admission::Refused(why),
        }
    }

    /// Where the block can be read from now: the fastest tier. Does not count as a use.
    pub fn locate(&self, id: &BlockId) -> Tier {
        let inner = &self.inner;
        if inner.memory.contains(id) || inner.writing.lock().contains_key(id) {
            Tier::Memory
        } else if inner.disk.as_ref().is_some_and(|d| d.contains(id)) {
            Tier::Disk
        } else {
            Tier::None
        }
    }

    /// Drops a block from every tier, if one turned out to be wrong.
    pub async fn remove(&self, id: &BlockId) {
        self.inner.memory.remove(id);
        self.inner.writing.lock().remove(id);
        if let Some(disk) = self.inner.disk.clone() {
            let id = *id;
            // Only a panic could fail it.
            let _ = tokio::task::spawn_blocking(move || disk.remove(&id)).await;
        }
    }

    /// What the store holds and has counted.
    pub fn stats(&self) -> StoreStats {
        let inner = &self.inner;
        let mut stats = StoreStats {
            memory_used: inner.memory.used(),
            memory_capacity: inner.memory.capacity(),
            memory_held: inner.memory.held(),
            memory_blocks: inner.memory.blocks(),
            writing_bytes: inner.writing_bytes(),
            memory_hits: inner.memory_hits.value(),
            disk_hits: inner.disk_hits.value(),
            misses: inner.misses.value(),
            ..StoreStats::default()
        };
        if let Some(disk) = &inner.disk {
            let counters = disk.counters();
            stats.disk_used = disk.used();
            stats.disk_capacity = disk.capacity();
            stats.disk_held = disk.held();
            stats.disk_blocks = disk.blocks();
            stats.corrupt = counters.corrupt.value();
            stats.disk_writes = counters.writes.value();
            stats.disk_evictions = counters.evictions.value();
            stats.disk_refused_busy = counters.refused_busy.value() + inner.refused_busy.value();
            stats.disk_refused_held = counters.refused_held.value();
            stats.disk_refused_error = counters.refused_error.value();
            stats.disk_errors = counters.errors.value();
        }
        stats
    }

    /// Waits until everything accepted so far is on disk or was refused by it.
    pub async fn flush(&self) {
        // All permits together: nobody else can be writing then.
        let all = u32::try_from(self.inner.buffer_permits).unwrap_or(u32::MAX);
        drop(self.inner.buffer.acquire_many(all).await);
    }

    /// Writes what was accepted and gives the directory free once the last clone is gone.
    pub async fn shutdown(self) {
        self.inner.buffer.close();
        self.inner.writers.close();
        self.inner.writers.wait().await;
    }

    async fn insert_disk(&self, disk: &DiskTier, id: BlockId, block: Block) -> Admission {
        let inner = &self.inner;
        if disk.contains(&id) || inner.writing.lock().contains_key(&id) {
            return Admission::Present;
        }
        let size = (block.len() as u64).div_ceil(PERMIT_BYTES).max(1) as usize;
        // A block larger than the whole buffer is written alone.
        let size = u32::try_from(size.min(inner.buffer_permits)).unwrap_or(u32::MAX);
        let acquire = Arc::clone(&inner.buffer).acquire_many_owned(size);
        let permit = match timeout(inner.write_wait, acquire).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Admission::Refused(Refusal::Closed),
            Err(_) => {
                inner.refused_busy.inc();
                return Admission::Refused(Refusal::Busy);
            }
        };
        // Two inserts of one block may both have waited above.
        if inner.writing.lock().insert(id, block.clone()).is_some() {
            return Admission::Present;
        }
        let (disk, this) = (disk.clone(), Arc::clone(inner));
        inner.writers.spawn(write(this, disk, id, block, permit));
        Admission::Accepted
    }
}

/// Writes one block and takes it out of the buffer; a failure was counted by the tier.
async fn write(
    inner: Arc<Inner>,
    disk: DiskTier,
    id: BlockId,
    block: Block,
    permit: OwnedSemaphorePermit,
) {
    disk.write(id, block).await;
    inner.writing.lock().remove(&id);
    drop(permit);
}

async fn open_disk(config: DiskConfig) -> Result<DiskTier, DiskError> {
    let dir = config.dir.clone();
    let opened = tokio::task::spawn_blocking(move || DiskTier::open(config)).await;
    opened.unwrap_or_else(|panic| {
        Err(DiskError::Io {
            doing: "open",
            path: dir,
            source: std::io::Error::other(panic),
        })
    })
}

impl Inner {
    fn block(&self, id: &BlockId) -> Option<Block> {
        if let Some(block) = self.memory.get(id) {
            return Some(block);
        }
        self.writing.lock().get(id).cloned()
    }

    fn writing_bytes(&self) -> u64 {
        let writing = self.writing.lock();
        writing.values().map(|block| block.len() as u64).sum()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("memory", &self.inner.memory)
            .field("disk", &self.inner.disk)
            .finish()
    }
}
