//! Where the blocks of a file are: what `millpond ring show` prints.

use millpond_proto::{BlockId, BlockSize, NodeId, wire::frame::Tier};

use crate::attr::Attr;

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
#[derive(Debug, Clone)]
pub struct BlockLocation {
    /// The block.
    pub block: BlockId,
    /// Its length in bytes.
    pub len: u32,
    /// The nodes that should hold it, most preferred first.
    pub owners: Vec<NodeId>,
    /// The nodes that do hold it, and in which of their tiers.
    pub cached: Vec<(NodeId, Tier)>,
    /// Where this client holds it itself.
    pub local: Tier,
    /// Nodes that did not answer.
    pub silent: Vec<NodeId>,
}
