//! Blocks on their way to disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millpond_proto::BlockId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::admission::{Admission, OnDisk, Refusal};
use crate::block::Block;
use crate::disks::Disks;

/// The unit in which bytes being written are counted.
const PERMIT_BYTES: u64 = 1024;

/// The buffer in front of the disks. A block in it can be read until the disk has it, or has
/// refused it.
#[derive(Debug)]
pub(super) struct Writes {
    disks: Arc<Disks>,
    waiting: Arc<Waiting>,
    buffer: Arc<Semaphore>,
    permits: usize,
    patience: Duration,
    tasks: TaskTracker,
}

type Waiting = Mutex<HashMap<BlockId, Write>>;

/// A block that is being written.
#[derive(Debug)]
struct Write {
    block: Block,
    /// Who wants to know what becomes of it.
    told: Vec<oneshot::Sender<Admission>>,
}

impl Writes {
    pub(super) fn new(disks: Arc<Disks>, bytes: u64, patience: Duration) -> Self {
        let permits = bytes.div_ceil(PERMIT_BYTES) as usize;
        let permits = permits.clamp(1, u32::MAX as usize);
        Self {
            disks,
            waiting: Arc::default(),
            buffer: Arc::new(Semaphore::new(permits)),
            permits,
            patience,
            tasks: TaskTracker::new(),
        }
    }

    pub(super) fn contains(&self, id: &BlockId) -> bool {
        self.waiting.lock().contains_key(id)
    }

    pub(super) fn block(&self, id: &BlockId) -> Option<Block> {
        self.waiting.lock().get(id).map(|write| write.block.clone())
    }

    /// Bytes accepted and not yet on disk.
    pub(super) fn bytes(&self) -> u64 {
        let waiting = self.waiting.lock();
        waiting.values().map(|write| write.block.len() as u64).sum()
    }

    /// Takes a block in, to be written in the background.
    pub(super) async fn insert(&self, id: BlockId, block: Block) -> OnDisk {
        if let Some(known) = self.known(&id) {
            return known;
        }
        let refused = |why| OnDisk::Known(Some(self.disks.refuse(&id, why)));
        if !self.disks.admits_writes() {
            return refused(Refusal::Out);
        }
        let size = (block.len() as u64).div_ceil(PERMIT_BYTES).max(1) as usize;
        // A block larger than the whole buffer is written alone.
        let size = u32::try_from(size.min(self.permits)).unwrap_or(u32::MAX);
        let acquire = Arc::clone(&self.buffer).acquire_many_owned(size);
        let permit = match timeout(self.patience, acquire).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return refused(Refusal::Closed),
            Err(_) => return refused(Refusal::Busy),
        };
        // Another insert of the same block may have come first meanwhile.
        let mut waiting = self.waiting.lock();
        if let Some(write) = waiting.get_mut(&id) {
            self.disks.present(&id);
            return write.follow(Admission::Present);
        }
        let mut write = Write {
            block: block.clone(),
            told: Vec::new(),
        };
        let outcome = write.follow(Admission::Accepted);
        waiting.insert(id, write);
        drop(waiting);
        let (disks, waiting) = (Arc::clone(&self.disks), Arc::clone(&self.waiting));
        self.tasks.spawn(run(disks, waiting, id, block, permit));
        outcome
    }

    /// What is known of a block that is there, or on its way.
    fn known(&self, id: &BlockId) -> Option<OnDisk> {
        if let Some(write) = self.waiting.lock().get_mut(id) {
            self.disks.present(id);
            return Some(write.follow(Admission::Present));
        }
        let there = self.disks.contains(id);
        there.then(|| OnDisk::Known(Some(self.disks.present(id))))
    }

    /// Waits until the block is not on its way any more.
    pub(super) async fn settled(&self, id: &BlockId) {
        let outcome = {
            let mut waiting = self.waiting.lock();
            waiting
                .get_mut(id)
                .map(|write| write.follow(Admission::Present))
        };
        if let Some(OnDisk::Later { outcome, .. }) = outcome {
            // An end without an outcome is one, too.
            let _ = outcome.await;
        }
    }

    pub(super) async fn flush(&self) {
        // All permits together: nobody else can be writing then.
        let all = u32::try_from(self.permits).unwrap_or(u32::MAX);
        drop(self.buffer.acquire_many(all).await);
    }

    /// Takes nothing in from now on, and waits for what is being written.
    pub(super) async fn close(&self, limit: Duration) {
        self.buffer.close();
        self.tasks.close();
        if timeout(limit, self.tasks.wait()).await.is_err() {
            let blocks = self.waiting.lock().len();
            warn!(
                blocks,
                "the disk does not take what is to be written: left behind"
            );
        }
    }
}

impl Write {
    fn follow(&mut self, now: Admission) -> OnDisk {
        let (told, outcome) = oneshot::channel();
        // Who has gone needs no answer; a block that many insert at once keeps few.
        self.told.retain(|told| !told.is_closed());
        self.told.push(told);
        OnDisk::Later { now, outcome }
    }
}

/// Writes one block and takes it out of the buffer; the disks count what becomes of it.
async fn run(
    disks: Arc<Disks>,
    waiting: Arc<Waiting>,
    id: BlockId,
    block: Block,
    permit: OwnedSemaphorePermit,
) {
    let outcome = disks.write(id, block).await;
    let write = waiting.lock().remove(&id);
    drop(permit);
    for told in write.into_iter().flat_map(|write| write.told) {
        // Nobody needs to wait for it.
        let _ = told.send(outcome);
    }
}
