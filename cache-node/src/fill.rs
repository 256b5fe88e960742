//! Fills: how a block that no tier holds gets here, once, however many ask.
//!
//! A fill is a task of its own. Whoever asks first starts it, everyone else joins, and none
//! of them owns it: a waiter that goes away changes nothing. Bytes are served to waiters as
//! they arrive; the store gets the block when it is whole and checksummed. A failed fill
//! fails its waiters once, with its cause, and the next to ask starts anew.
//!
//! Fills of blocks that lie beside each other and wait for their turn at the UFS are served by
//! one request: see `queue` and `joint`.

mod budget;
mod buffer;
mod error;
mod joint;
mod queue;
mod shared;
mod source;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info_span, warn};

use millpond_proto::wire::frame::Tier;
use millpond_proto::{BlockId, ErrorKind};
use millpond_store::Store;

use crate::metrics::NodeMetrics;

pub use self::budget::ByteBudget;
pub use self::error::FillError;
pub use self::shared::{FillChunk, FillReader};
pub use self::source::{FillJob, Peek};

use self::queue::Queue;
use self::shared::Fill;

/// The bounds of a fill engine.
#[derive(Debug, Clone, Copy)]
pub struct FillLimits {
    /// Bytes of blocks that are being filled at once; part of the node's memory.
    pub bytes: u64,
    /// Fills running or waiting for their turn; more are refused with `Busy`.
    pub queued: usize,
    /// How long a fill waits for its turn before it fails with `Busy`.
    pub patience: Duration,
    /// How long another node may take to hand over a block.
    pub peek: Duration,
    /// How long the UFS may stay silent within a block.
    pub stall: Duration,
}

impl FillLimits {
    /// The bounds that go with `bytes` of memory for fills.
    pub const fn for_memory(bytes: u64) -> Self {
        Self {
            bytes,
            queued: 4096,
            patience: Duration::from_secs(20),
            peek: Duration::from_secs(1),
            stall: Duration::from_secs(30),
        }
    }
}

/// What joining a fill led to.
#[derive(Debug)]
pub enum Joined {
    /// The store holds the block: read it there.
    Present,
    /// A fill brings the block.
    Filling(FillReader),
}

/// The fill engine of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fills {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    peers: Arc<dyn Peek>,
    limits: FillLimits,
    budget: ByteBudget,
    in_flight: Mutex<HashMap<BlockId, Arc<Fill>>>,
    queue: Queue,
    metrics: Arc<NodeMetrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Fills {
    /// An engine that puts blocks into `store` and asks other nodes through `peers`.
    pub fn new(
        store: Store,
        peers: Arc<dyn Peek>,
        limits: FillLimits,
        metrics: Arc<NodeMetrics>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                peers,
                limits,
                budget: ByteBudget::new(limits.bytes),
                in_flight: Mutex::default(),
                queue: Queue::default(),
                metrics,
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// Joins the fill of the job's block, or starts it.
    ///
    /// The store is asked again before a fill starts: a block is in the store before its
    /// fill leaves the table, so a block is never filled twice for want of looking.
    ///
    /// # Errors
    /// [`FillError::Busy`] if too many fills wait, [`FillError::ShuttingDown`] after
    /// [`shutdown`](Self::shutdown).
    pub fn join(&self, job: FillJob) -> Result<Joined, FillError> {
        let block = job.block;
        let fill = {
            let mut in_flight = self.inner.in_flight.lock();
            if let Some(fill) = in_flight.get(&block) {
                return Ok(Joined::Filling(fill.reader()));
            }
            if self.inner.store.locate(&block) != Tier::None {
                return Ok(Joined::Present);
            }
            if self.inner.stop.is_cancelled() {
                return Err(FillError::ShuttingDown { block });
            }
            if in_flight.len() >= self.inner.limits.queued {
                let why = "too many fills wait for their turn";
                return Err(FillError::Busy { block, why });
            }
            let fill = Fill::new(block);
            in_flight.insert(block, Arc::clone(&fill));
            self.inner.metrics.fills_in_flight.inc();
            fill
        };
        let reader = fill.reader();
        let guard = InFlight {
            inner: Arc::clone(&self.inner),
            fill,
        };
        let span = info_span!("fill", %block);
        self.inner.tasks.spawn(run(guard, job).instrument(span));
        Ok(Joined::Filling(reader))
    }

    /// A reader of the block's fill if one is under way that reads the UFS. One that still
    /// asks other nodes is not joined: two nodes might wait for each other.
    pub fn peek(&self, block: &BlockId) -> Option<FillReader> {
        let in_flight = self.inner.in_flight.lock();
        let fill = in_flight.get(block)?;
        fill.reads_the_ufs().then(|| fill.reader())
    }

    /// Bytes of memory that running fills hold.
    pub fn bytes_in_flight(&self) -> u64 {
        self.inner.budget.used()
    }

    /// Ends all fills (their waiters fail with `Unavailable`) and waits for their tasks.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// A fill's place in the table, held by its task: whatever happens to the task, the place is
/// given up and the waiters hear of it.
#[derive(Debug)]
struct InFlight {
    inner: Arc<Inner>,
    fill: Arc<Fill>,
}

impl InFlight {
    /// Leaves the table first, so that a waiter that hears of a failure can start anew.
    fn end(&self, outcome: Result<(), FillError>) {
        let removed = self.inner.in_flight.lock().remove(&self.fill.block());
        if removed.is_some() {
            self.inner.metrics.fills_in_flight.dec();
            self.fill.ended(outcome);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let block = self.fill.block();
        let still_there = {
            let in_flight = self.inner.in_flight.lock();
            let entry = in_flight.get(&block);
            entry.is_some_and(|fill| Arc::ptr_eq(fill, &self.fill))
        };
        if still_there {
            self.end(Err(FillError::Lost { block }));
        }
    }
}

async fn run(guard: InFlight, job: FillJob) {
    let started = Instant::now();
    let inner = Arc::clone(&guard.inner);
    let block = job.block;
    let outcome = tokio::select! {
        biased;
        () = inner.stop.cancelled() => Err(FillError::ShuttingDown { block }),
        outcome = fill_block(&inner, &guard.fill, &job) => outcome,
    };
    let elapsed = started.elapsed();
    let elapsed_ms = elapsed.as_millis() as u64;
    match &outcome {
        Ok(tier) => {
            inner.metrics.fill_ended(*tier, None, elapsed);
            debug!(?tier, bytes = job.block_len(), elapsed_ms, "filled");
        }
        Err(error) => {
            let kind = error.kind();
            inner.metrics.fill_ended(Tier::Ufs, Some(kind), elapsed);
            // The waiters get the cause; what needs an operator's eye is said here, once.
            let cause = error_chain(error);
            match kind {
                ErrorKind::Internal => warn!(%cause, elapsed_ms, "fill failed"),
                _ => debug!(%cause, elapsed_ms, "fill failed"),
            }
        }
    }
    guard.end(outcome.map(|_| ()));
}

/// Brings the block here from the first source that has it and puts it into the store.
async fn fill_block(inner: &Inner, fill: &Arc<Fill>, job: &FillJob) -> Result<Tier, FillError> {
    let limits = &inner.limits;
    // Held until the store has taken the block over into its own account.
    let Some(_permit) = inner.budget.take(job.block_len(), limits.patience).await else {
        let why = "the memory for fills is taken by slower ones";
        return Err(FillError::Busy {
            block: job.block,
            why,
        });
    };
    let deadline = Instant::now() + limits.peek;
    let handed_over = source::from_peers(job, inner.peers.as_ref(), deadline, &inner.metrics).await;
    let (block, tier) = match handed_over {
        Some(block) => {
            fill.came_from_peer(block.clone());
            (block, Tier::Peer)
        }
        None => {
            let block =
                source::from_ufs(job, fill, &inner.queue, limits.stall, &inner.metrics).await?;
            (block, Tier::Ufs)
        }
    };
    inner.store.insert(job.block, block.under(job.policy)).await;
    Ok(tier)
}

/// The message of `error` and of everything that caused it.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
