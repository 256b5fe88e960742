//! The local disk tier: whole blocks that this client has read, kept over a restart.
//!
//! A block of which a piece was fetched is completed and written in the background. Blocks
//! wait as ids, not as bytes, and only so many that their pieces are likely to be in the
//! memory tier still when their turn comes.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millpond_proto::wire::frame::Tier;
use millpond_proto::{BlockId, ClusterId};
use millpond_store::{Admission, Block, DiskConfig, DiskTier};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::Core;
use crate::error::ClientError;
use crate::fetch::OpenFile;
use crate::metrics::Spill;
use crate::pieces::Piece;

/// The local disk tier.
pub(crate) struct LocalDisk {
    /// None once it is shut down.
    tier: RwLock<Option<DiskTier>>,
    waiting: Mutex<Waiting>,
    /// How many blocks wait.
    count: watch::Sender<usize>,
    /// The most bytes that they may have together.
    backlog: u64,
}

/// Blocks that wait to be written, and their lengths in bytes.
#[derive(Default)]
struct Waiting {
    blocks: HashMap<BlockId, u32>,
    bytes: u64,
}

/// The most blocks that wait, however small they are: each has a task.
const MOST_WAITING: usize = 1024;

impl LocalDisk {
    /// Opens the tier in `dir`. Blocks that wait to be written are at most `backlog` bytes.
    pub(crate) async fn open(
        dir: &Path,
        capacity: u64,
        cluster: Option<ClusterId>,
        backlog: u64,
    ) -> Result<Self, ClientError> {
        let config = DiskConfig::new(dir.to_owned(), capacity, cluster);
        let opened = tokio::task::spawn_blocking(|| DiskTier::open(config)).await;
        let tier = opened
            .map_err(|_| ClientError::ShutDown)?
            .map_err(|source| ClientError::Disk(Arc::new(source)))?;
        Ok(Self {
            tier: RwLock::new(Some(tier)),
            waiting: Mutex::default(),
            count: watch::Sender::new(0),
            backlog,
        })
    }

    /// The piece, if its block is here and undamaged.
    pub(crate) async fn read(&self, piece: &Piece) -> Option<Bytes> {
        let tier = self.tier()?;
        let hit = tier.read(&piece.id.block, piece.offset, piece.len).await?;
        Some(hit.data)
    }

    /// In which tier the block is: disk, or nowhere.
    pub(crate) fn locate(&self, block: &BlockId) -> Tier {
        if self.tier().is_some_and(|tier| tier.contains(block)) {
            Tier::Disk
        } else {
            Tier::None
        }
    }

    /// Has `block` completed and written in the background, unless it is here or too many
    /// are waiting.
    pub(crate) fn offer(&self, core: &Arc<Core>, file: &Arc<OpenFile>, block: BlockId) {
        if self.tier().is_none_or(|tier| tier.contains(&block)) {
            return;
        }
        {
            let len = core.layout.block_size().block_len(block.index, file.size);
            let mut waiting = self.waiting.lock();
            if waiting.blocks.contains_key(&block) {
                return;
            }
            let bytes = waiting.bytes + u64::from(len);
            let full = bytes > self.backlog || waiting.blocks.len() >= MOST_WAITING;
            // One may always wait, or a block larger than the backlog would never be written.
            if full && !waiting.blocks.is_empty() {
                core.metrics.count_spill(Spill::Skipped);
                return;
            }
            waiting.blocks.insert(block, len);
            waiting.bytes = bytes;
            self.count.send_replace(waiting.blocks.len());
        }
        let turn = Turn {
            core: Arc::clone(core),
            block,
        };
        let file = Arc::clone(file);
        core.tasks.start(async move {
            let outcome = match complete(&turn.core, &file, block).await {
                Ok(stored) => stored,
                Err(error) => {
                    tracing::debug!(
                        %block,
                        error = &error as &dyn std::error::Error,
                        "block not completed for the disk tier"
                    );
                    Spill::Failed
                }
            };
            turn.core.metrics.count_spill(outcome);
        });
    }

    /// Waits until no block waits to be written, at most `limit`.
    pub(crate) async fn drain(&self, limit: Duration) {
        let mut count = self.count.subscribe();
        let _ = tokio::time::timeout(limit, count.wait_for(|count| *count == 0)).await;
    }

    /// Gives the directory free. Reads from now on find nothing.
    pub(crate) fn close(&self) {
        drop(self.tier.write().take());
    }

    fn tier(&self) -> Option<DiskTier> {
        self.tier.read().clone()
    }

    fn done(&self, block: &BlockId) {
        let mut waiting = self.waiting.lock();
        if let Some(len) = waiting.blocks.remove(block) {
            waiting.bytes -= u64::from(len);
        }
        self.count.send_replace(waiting.blocks.len());
    }
}

impl fmt::Debug for LocalDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalDisk")
            .field("tier", &self.tier())
            .field("waiting", &*self.count.borrow())
            .finish_non_exhaustive()
    }
}

/// A block's place among those that wait, given up when its task ends in whatever way.
struct Turn {
    core: Arc<Core>,
    block: BlockId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(disk) = &self.core.disk {
            disk.done(&self.block);
        }
    }
}

/// Puts the block together from its pieces and writes it.
async fn complete(
    core: &Arc<Core>,
    file: &Arc<OpenFile>,
    block: BlockId,
) -> Result<Spill, ClientError> {
    let len = core.layout.block_size().block_len(block.index, file.size);
    let permit = core.budget.spill(len).await;
    let Some(tier) = core.disk.as_ref().and_then(LocalDisk::tier) else {
        return Ok(Spill::Skipped);
    };
    let deadline = Instant::now() + core.config.deadline;
    let mut whole = BytesMut::with_capacity(len as usize);
    for piece in core.layout.pieces_of(block, file.size) {
        let piece = core.piece(file, piece, deadline).await?;
        whole.extend_from_slice(piece.data());
    }
    let admission = tier.write(block, Block::new(whole.freeze())).await;
    drop(permit);
    Ok(match admission {
        Admission::Accepted | Admission::Present => Spill::Stored,
        Admission::Refused(_) => Spill::Failed,
    })
}
