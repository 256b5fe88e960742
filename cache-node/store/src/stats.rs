//! What a store counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of a store. Counters start at 0 when it is opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes in the memory tier.
    pub memory_used: u64,
    /// Limit of the memory tier in bytes.
    pub memory_capacity: u64,
    /// Bytes of the memory tier under [`Policy::Hold`](crate::Policy::Hold).
    pub memory_held: u64,
    /// Blocks in the memory tier.
    pub memory_blocks: u64,
    /// Bytes of block files, those being written included.
    pub disk_used: u64,
    /// Limit of the disk tier in bytes.
    pub disk_capacity: u64,
    /// Bytes of the disk tier under [`Policy::Hold`](crate::Policy::Hold).
    pub disk_held: u64,
    /// Blocks in the disk tier.
    pub disk_blocks: u64,
    /// Bytes accepted and not yet on disk.
    pub writing_bytes: u64,
    /// Reads answered from memory.
    pub memory_hits: u64,
    /// Reads answered from disk.
    pub disk_hits: u64,
    /// Reads that found nothing.
    pub misses: u64,
    /// Blocks on disk dropped because a page did not match its checksum or bytes were
    /// missing.
    pub corrupt: u64,
    /// Blocks written to disk.
    pub disk_writes: u64,
    /// Blocks removed from disk to make room.
    pub disk_evictions: u64,
    /// Blocks not written to disk because too much was being written.
    pub disk_refused_busy: u64,
    /// Blocks not written to disk because what is held of their data set leaves no room.
    pub disk_refused_held: u64,
    /// Blocks not written to disk because it failed or was full.
    pub disk_refused_error: u64,
    /// Failed operations on the disk.
    pub disk_errors: u64,
}

/// The counters behind the disk part of [`StoreStats`].
#[derive(Debug, Default)]
pub(crate) struct DiskCounters {
    pub(crate) corrupt: Count,
    pub(crate) writes: Count,
    pub(crate) evictions: Count,
    pub(crate) refused_busy: Count,
    pub(crate) refused_held: Count,
    pub(crate) refused_error: Count,
    pub(crate) errors: Count,
}

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
