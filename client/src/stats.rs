//! What a client counts, in one value.

use millpond_proto::NodeId;
use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::peers::Peers;
use crate::prefetch::PrefetchProgress;
use crate::sources::SourceBytes;

/// What a client did since it started.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientStats {
    /// Bytes handed to readers, by where they came from.
    pub read_bytes: SourceBytes,
    /// Bytes of file data that this client itself read from a UFS.
    pub ufs_bytes: u64,
    /// Bytes of file data received from cache nodes.
    pub peer_bytes: u64,
    /// Bytes fetched before they were asked for.
    pub readahead_bytes: u64,
    /// Second transfers beside a slow first one.
    pub hedges: u64,
    /// Rounds of all sources that failed and were repeated.
    pub retries: u64,
    /// Cache nodes that are gone round now because the UFS is faster.
    pub gone_round: Vec<NodeId>,
    /// Bytes of file data in memory now.
    pub cached_bytes: u64,
    /// Bytes that the memory tier can hold.
    pub cache_capacity: u64,
    /// Fetching ahead of opens.
    pub prefetch: PrefetchProgress,
}

impl Core {
    /// What was counted so far.
    pub(crate) fn stats(&self) -> ClientStats {
        ClientStats {
            read_bytes: self.metrics.sources(),
            ufs_bytes: self.metrics.ufs_read_bytes.get(),
            peer_bytes: self.metrics.peer_read_bytes.get(),
            readahead_bytes: self.metrics.readahead_bytes.get(),
            hedges: self.metrics.hedges.get(),
            retries: self.metrics.retries.get(),
            gone_round: self
                .peers
                .as_ref()
                .map(Peers::gone_round)
                .unwrap_or_default(),
            cached_bytes: self.memory.live_bytes(),
            cache_capacity: self.memory.capacity(),
            prefetch: self.prefetch.progress(),
        }
    }
}
