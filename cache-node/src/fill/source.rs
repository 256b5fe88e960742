//! Where a fill gets its bytes: another node that may hold the block, else the UFS.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use tokio::time::timeout;
use tracing::debug;

use millpond_proto::{BlockId, ErrorKind, FileVersion, NodeId};
use millpond_store::{Block, Policy};
use millpond_ufs::Ufs;

use crate::metrics::NodeMetrics;

use super::buffer::BlockWriter;
use super::error::FillError;
use super::shared::Fill;

/// A block to fill and where it may be had.
#[derive(Debug, Clone)]
pub struct FillJob {
    /// The block.
    pub block: BlockId,
    /// The bytes of the file that the block holds: at least one, at most a block's size.
    pub range: Range<u64>,
    /// The whole file's size in bytes.
    pub file_size: u64,
    /// The UFS that holds the file.
    pub ufs: Arc<dyn Ufs>,
    /// The file's path below the UFS's root.
    pub path: String,
    /// The version to read.
    pub version: FileVersion,
    /// What full tiers do with it.
    pub policy: Policy,
    /// Nodes that may hold the block, to be asked first, in this order.
    pub holders: Vec<NodeId>,
}

impl FillJob {
    /// Bytes of the block.
    pub fn block_len(&self) -> u32 {
        (self.range.end - self.range.start) as u32
    }
}

/// Asks another node for a block that it holds.
#[async_trait]
pub trait Peek: fmt::Debug + Send + Sync + 'static {
    /// The whole block as `node` holds it, checksums verified.
    ///
    /// # Errors
    /// The kind alone: `NotFound` if it does not hold it. Whatever it is, the next source
    /// follows.
    async fn peek(
        &self,
        node: NodeId,
        job: &FillJob,
        deadline: Instant,
    ) -> Result<Block, ErrorKind>;
}

/// The block from the first of the job's holders that has it.
pub(super) async fn from_peers(
    job: &FillJob,
    peers: &dyn Peek,
    deadline: Instant,
    metrics: &NodeMetrics,
) -> Option<Block> {
    for &node in &job.holders {
        match peers.peek(node, job, deadline).await {
            Ok(block) if block.data.len() == job.block_len() as usize => {
                metrics.peer_bytes.inc_by(u64::from(job.block_len()));
                return Some(block);
            }
            Ok(block) => debug!(%node, bytes = block.data.len(), "a peer sent a wrong length"),
            Err(kind) => debug!(%node, %kind, "a peer does not hand over"),
        }
    }
    None
}

/// The block from the UFS, published in `fill` as it arrives.
pub(super) async fn from_ufs(
    job: &FillJob,
    fill: &Fill,
    stall: Duration,
    metrics: &NodeMetrics,
) -> Result<Block, FillError> {
    let (block, len) = (job.block, job.block_len());
    let failed = |source| FillError::Ufs { block, source };
    let stalled = |have| FillError::Stalled {
        block,
        have,
        len,
        after: stall,
    };
    metrics.ufs_reads.inc();
    let opening = job.ufs.read(&job.path, &job.version, job.range.clone());
    let opened = timeout(stall, opening).await.map_err(|_| stalled(0))?;
    let mut chunks = opened.map_err(failed)?;

    let mut writer = BlockWriter::new(len);
    fill.streams_into(writer.buffer());
    loop {
        let have = len - writer.missing();
        let next = timeout(stall, chunks.next()).await;
        let Some(chunk) = next.map_err(|_| stalled(have))? else {
            break;
        };
        let chunk = chunk.map_err(failed)?;
        metrics.ufs_bytes.inc_by(chunk.len() as u64);
        if chunk.len() > writer.missing() as usize {
            let have = u64::from(have) + chunk.len() as u64;
            return Err(FillError::Length { block, have, len });
        }
        writer.append(&chunk);
        fill.advanced();
    }
    let have = u64::from(len - writer.missing());
    writer
        .finish()
        .ok_or(FillError::Length { block, have, len })
}
