//! Where the bytes that readers got came from.

use std::ops::AddAssign;

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
    /// A cache node that already held them, or had them from another node.
    pub peer: u64,
    /// The UFS: read by this client, or by a cache node for a request like this client's.
    pub ufs: u64,
}

impl SourceBytes {
    /// All bytes handed out.
    pub const fn total(&self) -> u64 {
        self.memory + self.disk + self.peer + self.ufs
    }

    pub(crate) const fn add(&mut self, origin: Origin, bytes: u64) {
        match origin {
            Origin::Memory => self.memory += bytes,
            Origin::Disk => self.disk += bytes,
            Origin::Peer => self.peer += bytes,
            Origin::Ufs => self.ufs += bytes,
        }
    }
}

impl AddAssign for SourceBytes {
    fn add_assign(&mut self, other: Self) {
        self.memory += other.memory;
        self.disk += other.disk;
        self.peer += other.peer;
        self.ufs += other.ufs;
    }
}

/// Where a piece of data came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// The local memory tier.
    Memory,
    /// The local disk tier.
    Disk,
    /// A cache node that had it.
    Peer,
    /// The UFS, directly or through a cache node that filled.
    Ufs,
}
