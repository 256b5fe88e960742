//! Where the blocks of a file are: what `millpond ring show` prints.

mod report;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use millpond_net::block_client::Peer;
use millpond_proto::wire::frame::{Op, Request, Tier};
use millpond_proto::{BlockId, BlockSize, ErrorKind, FileId, NodeId, NodeStats};
use tokio::time::Instant;

use crate::attr::Attr;
use crate::core::Core;
use crate::error::ClientError;
use crate::peers::Peers;
use crate::snapshot::Snapshot;

pub use report::{BlockReport, CachedAt, LocationReport};

/// Where the blocks of a file are now.
#[derive(Debug, Clone)]
pub struct FileLocation {
    /// The file.
    pub attr: Attr,
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// The blocks asked for, in order.
    pub blocks: Vec<BlockLocation>,
}

/// Where one block is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockLocation {
    /// The block.
    pub block: BlockId,
    /// Its length in bytes.
    pub len: u32,
    /// The nodes that should hold it, most preferred first.
    pub owners: Vec<NodeId>,
    /// The nodes that do hold it, and in which of their tiers.
    pub cached: Vec<(NodeId, Tier)>,
    /// Where this client holds any of it itself.
    pub local: Tier,
    /// Nodes that did not answer.
    pub silent: Vec<NodeId>,
}

/// How long a node may take to say what it holds or counts.
const PATIENCE: Duration = Duration::from_secs(2);

/// Blocks that are asked for at a time; each is one small request to every node.
const AT_ONCE: usize = 16;

impl Core {
    /// Where `blocks` of a file are.
    pub(crate) async fn locate(
        self: &Arc<Self>,
        file: FileId,
        size: u64,
        blocks: Range<u64>,
    ) -> Vec<BlockLocation> {
        let snapshot = self.snapshot();
        let count = self.layout.block_size().count(size);
        let block = |index| {
            let (core, snapshot) = (Arc::clone(self), Arc::clone(&snapshot));
            async move {
                core.locate_block(&snapshot, BlockId::new(file, index), size)
                    .await
            }
        };
        stream::iter(blocks.start.min(count)..blocks.end.min(count))
            .map(block)
            .buffered(AT_ONCE)
            .collect()
            .await
    }

    async fn locate_block(&self, snapshot: &Snapshot, block: BlockId, size: u64) -> BlockLocation {
        let owners = snapshot.owners(&block);
        let mut location = BlockLocation {
            block,
            len: self.layout.block_size().block_len(block.index, size),
            owners: owners.iter().map(|peer| peer.id).collect(),
            cached: Vec::new(),
            local: self.local_tier(block, size).await,
            silent: Vec::new(),
        };
        let Some(peers) = &self.peers else {
            return location;
        };
        let nodes = snapshot.view().serving().map(|member| member.id);
        let ask = nodes.filter_map(|id| snapshot.peer(id)).map(|peer| {
            let len = location.len;
            probe(peers, snapshot, peer, block, len, size)
        });
        for (node, answer) in futures::future::join_all(ask).await {
            match answer {
                Some(Tier::None) => {}
                Some(tier) => location.cached.push((node, tier)),
                None => location.silent.push(node),
            }
        }
        location
    }

    async fn local_tier(&self, block: BlockId, size: u64) -> Tier {
        let mut pieces = self.layout.pieces_of(block, size);
        if pieces.any(|piece| self.memory.holds_any(&piece.id)) {
            return Tier::Memory;
        }
        let range = self.layout.block_size().range(block.index, size);
        match &self.disk {
            Some(disk) if disk.holds_any(block.file, range).await => Tier::Disk,
            _ => Tier::None,
        }
    }

    /// What `node` counts.
    pub(crate) async fn node_stats(&self, node: NodeId) -> Result<NodeStats, ClientError> {
        let peer = self.snapshot().peer(node);
        let (Some(peers), Some(peer)) = (&self.peers, peer) else {
            return Err(ClientError::NoSuchNode { node });
        };
        let deadline = Instant::now() + PATIENCE;
        Ok(peers.client.stats(&peer, deadline).await?)
    }
}

/// Where `peer` holds `block`; none if it does not answer.
async fn probe(
    peers: &Peers,
    snapshot: &Snapshot,
    peer: Peer,
    block: BlockId,
    len: u32,
    size: u64,
) -> (NodeId, Option<Tier>) {
    let request = Request {
        op: Op::Probe,
        epoch: snapshot.view().epoch,
        block,
        offset: 0,
        len,
        file_size: size,
        deadline_ms: 0,
        source: None,
        query: None,
    };
    let deadline = Instant::now() + PATIENCE;
    let answer = match peers.client.request(&peer, &request, deadline).await {
        Ok(response) => Some(response.head.tier),
        Err(error) if error.kind() == ErrorKind::NotFound => Some(Tier::None),
        Err(_) => None,
    };
    (peer.id, answer)
}
