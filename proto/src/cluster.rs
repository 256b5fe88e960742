//! The cluster as one immutable value.

use serde::{Deserialize, Serialize};

use crate::block::BlockSize;
use crate::id::{ClusterId, Epoch, NodeId};
use crate::mount::MountTable;

/// What the coordinator tells everyone: members, epoch, mounts and settings.
///
/// - Swapped whole, never changed in place.
/// - `version` grows with every change; `epoch` only with those that move blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The cluster that the view describes.
    pub cluster: ClusterId,
    /// Grows with every change of anything below.
    pub version: u64,
    /// Grows with every change of membership or weight.
    pub epoch: Epoch,
    /// The size of every block.
    pub block_size: BlockSize,
    /// All members ever, except those that were removed, by id.
    pub members: Vec<Member>,
    /// Which UFS serves which path.
    pub mounts: MountTable,
}

impl ClusterView {
    /// The member called `id`.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|m| m.id == id)
    }

    /// The members that serve blocks now.
    pub fn serving(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| m.state.serves())
    }
}

/// A cache node as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node's number.
    pub id: NodeId,
    /// `host:port` where it answers block requests (QUIC over UDP).
    pub addr: String,
    /// `http://host:port` of its metrics and health endpoints; empty if it has none.
    #[serde(default)]
    pub admin: String,
    /// Failure domain; empty when the operator names none.
    #[serde(default)]
    pub zone: String,
    /// Share of blocks relative to [`NORMAL_WEIGHT`](crate::ring::NORMAL_WEIGHT).
    pub weight: u32,
    /// Bytes it can hold, memory and disk together.
    pub capacity: u64,
    /// Where the node is in its life.
    pub state: MemberState,
    /// Grows with every start of the node's process; an old process cannot speak for a new.
    pub incarnation: u64,
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Known, not yet serving.
    Joining,
    /// Owns blocks.
    Active,
    /// Serves what it holds, owns nothing new.
    Draining,
    /// Left in good order.
    Left,
    /// Stopped answering.
    Dead,
}

impl MemberState {
    /// Whether a member in this state owns blocks.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Active)
    }
}

/// What a node counts, sent with heartbeats and on request. Counters start at 0 with the
/// process; bytes and blocks are gauges.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStats {
    /// Bytes in the memory tier.
    pub memory_used: u64,
    /// Limit of the memory tier in bytes.
    pub memory_capacity: u64,
    /// Bytes in the disk tier.
    pub disk_used: u64,
    /// Limit of the disk tier in bytes.
    pub disk_capacity: u64,
    /// Blocks in the memory tier.
    pub memory_blocks: u64,
    /// Blocks in the disk tier.
    pub disk_blocks: u64,
    /// Block requests answered from memory.
    pub memory_hits: u64,
    /// Block requests answered from disk.
    pub disk_hits: u64,
    /// Block requests that found nothing and filled, or waited for a fill.
    pub misses: u64,
    /// Bytes sent to clients and peers.
    pub served_bytes: u64,
    /// Requests sent to the UFS for block data.
    pub ufs_reads: u64,
    /// Bytes of block data received from the UFS.
    pub ufs_bytes: u64,
    /// Bytes received from other nodes instead of the UFS.
    pub peer_bytes: u64,
    /// Copies dropped because a checksum did not match.
    pub corrupt: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
    /// Directories of the disk tier that are sick: reads go round them.
    pub disks_not_read: u64,
    /// Directories of the disk tier that are sick: writes go round them.
    pub disks_not_written: u64,
    /// Operations that a disk failed, or did not do in time.
    pub disk_errors: u64,
    /// Blocks that the disk tier did not take.
    pub disk_refused: u64,
    /// Bytes of blocks on disk that the scrub verified.
    pub scrub_bytes: u64,
    /// Blocks that the scrub found damaged.
    pub scrub_bad_blocks: u64,
    /// Passes of the scrub that were completed.
    pub scrub_passes: u64,
    /// How much of this pass of the scrub is done, in thousandths; 0 between passes.
    pub scrub_permille: u64,
}

impl NodeStats {
    /// Hits of both tiers divided by all block requests; none before the first request.
    pub fn hit_ratio(&self) -> Option<f64> {
        let hits = self.memory_hits + self.disk_hits;
        let total = hits + self.misses;
        (total > 0).then(|| hits as f64 / total as f64)
    }
}
