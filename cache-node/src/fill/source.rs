//! Where a fill gets its bytes: another node that may hold the block, else the UFS.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::timeout;
use tracing::debug;

use millpond_proto::{BlockId, ErrorKind, FileVersion, NodeId};
use millpond_store::{Block, Policy};
use millpond_ufs::Ufs;

use crate::metrics::NodeMetrics;

use super::error::FillError;
use super::joint::{Broken, Joint, News};
use super::queue::{Call, Part, Queue};
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

/// The block from the UFS, published in `fill` as it arrives: by a request of its own, which
/// takes along those that wait beside it, or by that of one of these.
pub(super) async fn from_ufs(
    job: &FillJob,
    fill: &Arc<Fill>,
    queue: &Queue,
    stall: Duration,
    metrics: &NodeMetrics,
) -> Result<Block, FillError> {
    let (place, mut called) = queue.enter(job, fill);
    let mut run = None;
    let opened = {
        let choose = || {
            let taken = place.take()?;
            let range = taken.range();
            metrics.ufs_reads.inc();
            run = Some(taken);
            Some(range)
        };
        let opening = job
            .ufs
            .read_chosen(&job.path, &job.version, Box::new(choose));
        tokio::select! {
            biased;
            Ok(call) = &mut called => Err(Ok(call)),
            opened = timeout(stall, opening) => Ok(opened),
        }
    };
    let opened = match opened {
        Ok(Ok(Ok(opened))) => Ok(opened),
        Ok(Ok(Err(error))) => Err(Broken::Ufs(error)),
        Ok(Err(_)) => Err(Broken::Stalled(stall)),
        Err(call) => return follow(call, job, fill, stall, metrics).await,
    };
    let Some(run) = run else {
        return match opened {
            Err(cause) if place.leave() => Err(cause.of(job.block, 0, job.block_len())),
            _ => follow(called.await, job, fill, stall, metrics).await,
        };
    };
    let joint = Joint::of(job.block, run);
    metrics.joined_fills.inc_by(joint.joined());
    match opened {
        Ok(Some((_, stream))) => joint.read(stream, stall, metrics).await,
        Ok(None) => Err(FillError::Lost { block: job.block }),
        Err(cause) => joint.failed(cause),
    }
}

/// The block that another fill's request brings, or what is left of it by a request of its own.
async fn follow(
    call: Result<Call, RecvError>,
    job: &FillJob,
    fill: &Arc<Fill>,
    stall: Duration,
    metrics: &NodeMetrics,
) -> Result<Block, FillError> {
    let block = job.block;
    let lost = |_| FillError::Lost { block };
    let writer = match call.map_err(lost)?.await.map_err(lost)? {
        News::Ended(ended) => return ended,
        News::GoOn(writer) => writer,
    };
    let part = Part {
        block,
        range: job.range.clone(),
        fill: Arc::clone(fill),
    };
    let rest = job.range.end - u64::from(writer.missing())..job.range.end;
    let joint = Joint::alone(part, writer);
    metrics.ufs_reads.inc();
    let opening = job.ufs.read(&job.path, &job.version, rest);
    match timeout(stall, opening).await {
        Ok(Ok(stream)) => joint.read(stream, stall, metrics).await,
        Ok(Err(error)) => joint.failed(Broken::Ufs(error)),
        Err(_) => joint.failed(Broken::Stalled(stall)),
    }
}
