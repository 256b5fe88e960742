//! Why a block could not be filled.

use std::time::Duration;

use millpond_proto::{BlockId, ErrorKind};
use millpond_ufs::UfsError;

/// A fill failed. Cheap to clone: every waiter of the fill gets the same cause.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FillError {
    /// The UFS refused or broke off.
    #[error("filling block {block} from the UFS")]
    Ufs {
        /// The block.
        block: BlockId,
        /// What the UFS said.
        source: UfsError,
    },
    /// The UFS went silent in the middle of the block.
    #[error("filling block {block}: no byte from the UFS for {after:?} ({have} of {len} bytes)")]
    Stalled {
        /// The block.
        block: BlockId,
        /// Bytes received.
        have: u32,
        /// Bytes of the whole block.
        len: u32,
        /// How long nothing came.
        after: Duration,
    },
    /// The UFS sent more or fewer bytes than the block has.
    #[error("filling block {block}: the UFS sent {have} bytes where {len} were asked for")]
    Length {
        /// The block.
        block: BlockId,
        /// Bytes received.
        have: u64,
        /// Bytes of the whole block.
        len: u32,
    },
    /// Too many blocks wait to be filled.
    #[error("block {block} cannot be filled now: {why}; try another node or the UFS")]
    Busy {
        /// The block.
        block: BlockId,
        /// Which bound was met.
        why: &'static str,
    },
    /// The node is going down.
    #[error("block {block} was not filled: the node is shutting down")]
    ShuttingDown {
        /// The block.
        block: BlockId,
    },
    /// The fill ended without saying how.
    #[error("the fill of block {block} ended without an outcome; this is a bug")]
    Lost {
        /// The block.
        block: BlockId,
    },
}

impl FillError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ufs { source, .. } => source.kind(),
            Self::Stalled { .. } => ErrorKind::Timeout,
            Self::Length { .. } => ErrorKind::Unavailable,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::ShuttingDown { .. } => ErrorKind::Unavailable,
            Self::Lost { .. } => ErrorKind::Internal,
        }
    }
}
