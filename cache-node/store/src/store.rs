//! Memory, then disk.

mod write;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_disk::DiskError;
use millpond_proto::wire::frame::Tier;
use millpond_proto::{BlockId, ClusterId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Admission, Inserted, OnDisk, Refusal};
use crate::block::{Block, Hit};
use crate::disk::{DiskConfig, Scrub, SharedFile};
use crate::disks::Disks;
use crate::memory::MemoryTier;
use crate::stats::{Count, DiskHealth, StoreStats};

use write::Writes;

/// How long closing a store waits for what is being written; a disk that hangs may take for
/// ever.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// What a [`Store`] may use.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Limit of the memory tier in bytes; 0 for none.
    pub memory: u64,
    /// The directories of the disk tier, one for each device; those without capacity are left
    /// out.
    pub disks: Vec<DiskConfig>,
    /// Bytes of blocks that may wait to be written to disk, in memory beside the memory
    /// tier.
    pub write_buffer: u64,
    /// How long an insert waits for room in the write buffer before the disk is left out.
    pub write_wait: Duration,
    /// How each directory is scrubbed.
    pub scrub: Scrub,
}

impl StoreConfig {
    /// A store with these limits, at most one directory, and a write buffer of 32 MiB,
    /// without a scrub.
    pub fn new(memory: u64, disk: Option<(PathBuf, u64)>, cluster: Option<ClusterId>) -> Self {
        let disk = disk.map(|(dir, capacity)| DiskConfig::new(dir, capacity, cluster));
        Self {
            memory,
            disks: disk.into_iter().collect(),
            write_buffer: 32 << 20,
            write_wait: Duration::from_secs(1),
            scrub: Scrub::OFF,
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
    disks: Arc<Disks>,
    writes: Writes,
    /// What tends the disks.
    tasks: TaskTracker,
    stop: CancellationToken,
    memory_hits: Count,
    disk_hits: Count,
    misses: Count,
    memory_refused: Count,
}

impl Store {
    /// Opens the directories of the disk tier, if any, and finds the blocks in them.
    ///
    /// # Errors
    /// Those of [`DiskTier::open`](crate::DiskTier::open).
    pub async fn open(config: StoreConfig) -> Result<Self, DiskError> {
        let disks = Arc::new(Disks::open(config.disks).await?);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        for tier in disks.iter() {
            let (tended, scrubbed) = (tier.clone(), tier.clone());
            let (stop_tending, stop_scrub) = (stop.clone(), stop.clone());
            tasks.spawn(async move { tended.tend(stop_tending).await });
            tasks.spawn(async move { scrubbed.scrub(config.scrub, stop_scrub).await });
        }
        Ok(Self {
            inner: Arc::new(Inner {
                memory: MemoryTier::new(config.memory),
                writes: Writes::new(Arc::clone(&disks), config.write_buffer, config.write_wait),
                disks,
                tasks,
                stop,
                memory_hits: Count::default(),
                disk_hits: Count::default(),
                misses: Count::default(),
                memory_refused: Count::default(),
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

    /// `len` bytes from `offset` of a block, from memory or from disk, verified there. A disk
    /// that is sick counts as one without the block.
    pub async fn read(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        if let Some(hit) = self.read_memory(id, offset, len) {
            return Some(hit);
        }
        let hit = self.inner.disks.read(id, offset, len).await;
        match &hit {
            Some(_) => self.inner.disk_hits.inc(),
            None => self.inner.misses.inc(),
        }
        hit
    }

    /// The file of a block, if it is on disk, wherever else it is. A file that is given is
    /// counted as a hit.
    pub async fn share(&self, id: &BlockId) -> Option<SharedFile> {
        let shared = self.inner.disks.share(id).await?;
        self.inner.disk_hits.inc();
        Some(shared)
    }

    /// Reads the file of a block, wherever else the block is, and drops it if it is damaged
    /// there.
    pub async fn read_disk(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        self.inner.disks.read(id, offset, len).await
    }

    /// Keeps a block: in memory at once, on disk a little later. Waits only while too much
    /// is on its way to disk, and not for long. The answer tells what each tier did; that of
    /// the disk can be waited for.
    ///
    /// # Cancel safety
    /// A cancelled insert may leave the block in memory alone.
    pub async fn insert(&self, id: BlockId, block: Block) -> Inserted {
        let memory = self.inner.memory.insert(id, block.clone());
        if memory == Admission::Refused(Refusal::TooLarge) {
            self.inner.memory_refused.inc();
        }
        let disk = if self.inner.disks.is_empty() {
            OnDisk::Known(None)
        } else {
            self.inner.writes.insert(id, block).await
        };
        Inserted { memory, disk }
    }

    /// Where the block can be read from now: the fastest tier. Does not count as a use.
    pub fn locate(&self, id: &BlockId) -> Tier {
        let inner = &self.inner;
        if inner.memory.contains(id) || inner.writes.contains(id) {
            Tier::Memory
        } else if inner.disks.contains(id) {
            Tier::Disk
        } else {
            Tier::None
        }
    }

    /// Drops a block from every tier, if one turned out to be wrong. Waits for the disk if it
    /// is on its way there.
    pub async fn remove(&self, id: &BlockId) {
        self.inner.memory.remove(id);
        self.inner.writes.settled(id).await;
        let (disks, id) = (Arc::clone(&self.inner.disks), *id);
        // Only a panic could fail it.
        let _ = tokio::task::spawn_blocking(move || disks.remove(&id)).await;
    }

    /// What is thought of each directory of the disk tier.
    pub fn disks(&self) -> Vec<DiskHealth> {
        self.inner.disks.health()
    }

    /// What the store holds and has counted.
    pub fn stats(&self) -> StoreStats {
        let inner = &self.inner;
        let mut stats = StoreStats {
            memory_used: inner.memory.used(),
            memory_capacity: inner.memory.capacity(),
            memory_held: inner.memory.held(),
            memory_blocks: inner.memory.blocks(),
            memory_refused: inner.memory_refused.value(),
            writing_bytes: inner.writes.bytes(),
            memory_hits: inner.memory_hits.value(),
            disk_hits: inner.disk_hits.value(),
            misses: inner.misses.value(),
            ..StoreStats::default()
        };
        inner.disks.report(&mut stats);
        stats
    }

    /// Waits until everything accepted so far is on disk or was refused by it.
    pub async fn flush(&self) {
        self.inner.writes.flush().await;
    }

    /// Writes what was accepted, if the disk can, and gives the directories free once the last
    /// clone is gone.
    pub async fn shutdown(self) {
        self.inner.writes.close(SHUTDOWN_LIMIT).await;
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Inner {
    fn block(&self, id: &BlockId) -> Option<Block> {
        self.memory.get(id).or_else(|| self.writes.block(id))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("memory", &self.inner.memory)
            .field("disks", &self.inner.disks)
            .finish()
    }
}
