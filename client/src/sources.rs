//! Where the bytes that readers got came from.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Bytes handed to readers, by where they came from. Every byte handed out counts once, so
/// the sum is the number of bytes read.
///
/// Bytes count as where they were fetched from when they are first handed out, and as
/// `memory` each time they are read again from the local memory tier.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceBytes {
    /// The client's own memory tier.
    pub memory: u64,
    /// The client's own disk tier.
    pub disk: u64,
    /// A cache node that already held them.
    pub peer: u64,
    /// The UFS: read by this client, or by a cache node for this client's request.
    pub ufs: u64,
}

impl SourceBytes {
    /// All bytes handed out.
    pub const fn total(&self) -> u64 {
        self.memory + self.disk + self.peer + self.ufs
    }
}

/// Where a piece of data came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Memory,
    Disk,
    Peer,
    Ufs,
}

/// The running totals behind [`SourceBytes`].
#[derive(Debug, Default)]
pub(crate) struct SourceCounters {
    memory: AtomicU64,
    disk: AtomicU64,
    peer: AtomicU64,
    ufs: AtomicU64,
}

impl SourceCounters {
    pub(crate) fn add(&self, origin: Origin, bytes: u64) {
        let counter = match origin {
            Origin::Memory => &self.memory,
            Origin::Disk => &self.disk,
            Origin::Peer => &self.peer,
            Origin::Ufs => &self.ufs,
        };
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> SourceBytes {
        SourceBytes {
            memory: self.memory.load(Ordering::Relaxed),
            disk: self.disk.load(Ordering::Relaxed),
            peer: self.peer.load(Ordering::Relaxed),
            ufs: self.ufs.load(Ordering::Relaxed),
        }
    }
}
