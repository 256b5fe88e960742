//! Where the blocks of a file are, as it is told to others.

use millpond_proto::NodeId;
use millpond_proto::wire::frame::Tier;
use serde::{Deserialize, Serialize};

use super::{BlockLocation, FileLocation};

/// Where the blocks of one version of a file belong and are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocationReport {
    /// Its path in the namespace.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// The identity of its content.
    pub file_id: Option<String>,
    /// Its version, as the store names it.
    pub version: Option<String>,
    /// The object's URI in its store.
    pub ufs: String,
    /// The epoch by which the owners were told.
    pub epoch: u64,
    /// Bytes of a block.
    pub block_size: u64,
    /// Blocks of the file.
    pub block_count: u64,
    /// The blocks asked for, in order.
    pub blocks: Vec<BlockReport>,
}

/// Where one block belongs and is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockReport {
    /// Its number in the file.
    pub index: u64,
    /// Its length in bytes.
    pub bytes: u32,
    /// The nodes that should hold it, most preferred first.
    pub owners: Vec<String>,
    /// The nodes that hold it, and in which of their tiers.
    pub cached: Vec<CachedAt>,
    /// Where the client that tells this holds it itself.
    pub here: Tier,
    /// Nodes that did not answer.
    pub silent: Vec<String>,
}

/// A node that holds a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedAt {
    /// The node.
    pub node: String,
    /// Where it holds it.
    pub tier: Tier,
}

impl LocationReport {
    /// Of the file `path`, asked for in `epoch`.
    pub(crate) fn new(path: String, epoch: u64, location: FileLocation) -> Self {
        let FileLocation {
            attr,
            block_size,
            blocks,
        } = location;
        Self {
            path,
            size: attr.size,
            file_id: attr.file_id.map(|id| id.to_string()),
            version: attr.version.map(|version| version.to_string()),
            ufs: attr.ufs_uri.to_string(),
            epoch,
            block_size: block_size.bytes(),
            block_count: block_size.count(attr.size),
            blocks: blocks.into_iter().map(BlockReport::new).collect(),
        }
    }
}

impl BlockReport {
    fn new(location: BlockLocation) -> Self {
        let names = |nodes: Vec<NodeId>| nodes.iter().map(NodeId::to_string).collect();
        let cached = |(node, tier): (NodeId, Tier)| CachedAt {
            node: node.to_string(),
            tier,
        };
        Self {
            index: location.block.index,
            bytes: location.len,
            owners: names(location.owners),
            cached: location.cached.into_iter().map(cached).collect(),
            here: location.local,
            silent: names(location.silent),
        }
    }
}
