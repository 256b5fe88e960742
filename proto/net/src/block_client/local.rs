//! Blocks of nodes on this host: through the node's Unix socket instead of QUIC.
//!
//! A client asks each node once, over QUIC, whether it is on the same host. One that is gives
//! descriptors of its block files, which are kept for a while and read here; what it has in
//! memory alone it sends as bytes. Whatever does not work is asked for over QUIC, by the same
//! call, and counted; a socket that fails is left alone for a moment.

mod channel;
mod descriptors;
mod file;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use millpond_proto::wire::frame::{Op, Request, ResponseHead, Tier};
use millpond_proto::wire::local::{Ask, LocalOffer};
use millpond_proto::wire::query;
use millpond_proto::{BlockId, Epoch, FileId};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::Shared;
use super::peer::PeerState;
use super::response::{Data, Response};
use crate::local::host;
use crate::metrics::{ClientMetrics, LocalFailure, Transport};

use channel::{Channel, Got};
use descriptors::{Descriptors, SWEEP};
use file::{BlockFile, ReadFailure};

/// How long a node on this host may take for an answer, and a read of its file, before QUIC is
/// tried instead.
const PATIENCE: Duration = Duration::from_millis(150);

/// How long a node may take to say where its socket is.
const LEARN: Duration = Duration::from_secs(2);

/// How long a socket that failed is left alone at first; doubles with each further failure.
const BACKOFF: Duration = Duration::from_secs(1);

/// How long it is left alone at most, and how long a node that has no socket for us.
const LONGEST: Duration = Duration::from_secs(60);

/// Connections to one node, and requests at a time: each has one.
const CHANNELS: usize = 8;

/// A connection that was idle for so long is not used again: the node may be closing it.
const IDLE: Duration = Duration::from_secs(30);

/// Reads at one time that wait for a disk.
const READERS: usize = 16;

/// What the nodes on this host have in common.
pub(super) struct Local {
    descriptors: Descriptors,
    readers: Arc<Semaphore>,
    metrics: Arc<ClientMetrics>,
    stop: CancellationToken,
}

/// One node's socket.
pub(super) struct Link {
    state: Mutex<State>,
    idle: Mutex<Vec<Channel>>,
    channels: Semaphore,
}

struct State {
    now: Now,
    /// Since the last answer.
    failures: u32,
}

enum Now {
    /// Nobody has asked for it yet.
    Unknown,
    /// Somebody is asking.
    Asked,
    /// It may be used.
    Open(Arc<LocalOffer>),
    /// It is left alone.
    Closed { until: StdInstant },
}

impl Local {
    pub(super) fn new(metrics: Arc<ClientMetrics>) -> Self {
        Self {
            descriptors: Descriptors::new(Arc::clone(&metrics)),
            readers: Arc::new(Semaphore::new(READERS)),
            metrics,
            stop: CancellationToken::new(),
        }
    }

    /// Closes all descriptors.
    pub(super) fn shutdown(&self) {
        self.stop.cancel();
        self.descriptors.clear();
    }

    async fn read(
        &self,
        file: &Arc<BlockFile>,
        request: &Request,
        until: Instant,
    ) -> Result<Data, LocalFailure> {
        let (offset, len) = (request.offset, request.len);
        let failure = match file.range(offset, len, &self.readers, until).await {
            Ok(data) => {
                self.metrics.received(Transport::Descriptor, u64::from(len));
                return Ok(data);
            }
            Err(failure) => failure,
        };
        self.descriptors.forget(&request.block, file);
        let reason = match failure {
            ReadFailure::Corrupt => {
                self.metrics.corrupt_pages.inc();
                LocalFailure::Corrupt
            }
            ReadFailure::Io(error) => {
                debug!(block = %request.block, %error, "cannot read a block's file");
                LocalFailure::Io
            }
        };
        self.metrics.local_failed(reason);
        Err(reason)
    }
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                now: Now::Unknown,
                failures: 0,
            }),
            idle: Mutex::default(),
            channels: Semaphore::new(CHANNELS),
        }
    }

    /// Closes the connections that nobody uses.
    pub(super) fn close(&self) {
        self.idle.lock().clear();
    }

    /// Asks over a connection of its own, an idle one or a new one.
    async fn exchange(&self, offer: &LocalOffer, ask: &Ask) -> Result<Got, Failed> {
        // The semaphore is never closed.
        let _place = self.channels.acquire().await;
        let channel = loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some(channel) if channel.used.elapsed() < IDLE => break Some(channel),
                Some(_) => {}
                None => break None,
            }
        };
        let mut channel = match channel {
            Some(channel) => channel,
            None => Channel::open(offer)
                .await
                .map_err(|e| Failed(LocalFailure::Connect, e))?,
        };
        let got = channel.ask(ask).await;
        let got = got.map_err(|e| Failed(LocalFailure::Lost, e))?;
        self.idle.lock().push(channel);
        let mut state = self.state.lock();
        if state.failures > 0 {
            state.failures = 0;
        }
        Ok(got)
    }
}

/// What failed on a socket, and how.
struct Failed(LocalFailure, io::Error);

impl PeerState {
    /// The answer to `request` if it can be had on this host. None if it is to be asked for
    /// over QUIC.
    pub(super) async fn answer_here(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        request: &Request,
        deadline: Instant,
    ) -> Option<Response> {
        let local = shared.local.as_ref()?;
        if !matches!(request.op, Op::Read | Op::Peek) || request.len == 0 {
            return None;
        }
        let until = deadline.min(Instant::now() + PATIENCE);
        let mut ask = Ask {
            block: request.block,
            offset: request.offset,
            len: request.len,
            damaged: false,
        };
        if let Some(file) = local.descriptors.of(&request.block) {
            if !file.has(request.offset, request.len) {
                return None;
            }
            match local.read(&file, request, until).await {
                Ok(data) => return Some(self.here(request, file.tier, file.epoch, data)),
                Err(reason) => ask.damaged = reason == LocalFailure::Corrupt,
            }
        }
        let offer = self.offer(shared)?;
        // A second time to say that the file is damaged.
        for _ in 0..2 {
            let got = match timeout_at(until, self.socket.exchange(&offer, &ask)).await {
                Ok(Ok(got)) => got,
                Ok(Err(Failed(reason, error))) => {
                    self.socket_failed(local, reason, &error);
                    return None;
                }
                Err(_) => {
                    let error = io::ErrorKind::TimedOut.into();
                    self.socket_failed(local, LocalFailure::Timeout, &error);
                    return None;
                }
            };
            match got {
                Got::File(file) => {
                    let file = Arc::new(file);
                    keep(shared, local, request.block, &file);
                    match local.read(&file, request, until).await {
                        Ok(data) => return Some(self.here(request, file.tier, file.epoch, data)),
                        Err(LocalFailure::Corrupt) if !ask.damaged => ask.damaged = true,
                        Err(_) => return None,
                    }
                }
                Got::Bytes(data, tier, epoch) => {
                    let len = u64::from(request.len);
                    local.metrics.received(Transport::Socket, len);
                    return Some(self.here(request, tier, epoch, data));
                }
                Got::Corrupt => {
                    local.metrics.corrupt_pages.inc();
                    local.metrics.local_failed(LocalFailure::Corrupt);
                    return None;
                }
                Got::Elsewhere => return None,
            }
        }
        None
    }

    fn here(self: &Arc<Self>, request: &Request, tier: Tier, epoch: Epoch, data: Data) -> Response {
        let head = ResponseHead {
            outcome: Ok(()),
            tier,
            epoch,
            data_len: request.len,
            trailer_len: data.checksums.len() as u32 * 4,
        };
        Response::here(head, request, Arc::clone(self), data)
    }

    /// How to reach the node's socket, if that is known; else it is asked for, for later.
    fn offer(self: &Arc<Self>, shared: &Arc<Shared>) -> Option<Arc<LocalOffer>> {
        let mut state = self.socket.state.lock();
        match &state.now {
            Now::Open(offer) => return Some(Arc::clone(offer)),
            Now::Asked => return None,
            Now::Closed { until } if StdInstant::now() < *until => return None,
            Now::Closed { .. } | Now::Unknown => {}
        }
        state.now = Now::Asked;
        drop(state);
        let (peer, in_task) = (Arc::clone(self), Arc::clone(shared));
        shared.tasks.spawn(async move {
            let learnt = Learning { peer };
            learnt.learn(&in_task).await;
        });
        None
    }

    fn socket_failed(&self, local: &Local, reason: LocalFailure, error: &io::Error) {
        local.metrics.local_failed(reason);
        self.socket.close();
        let mut state = self.socket.state.lock();
        // Requests that were under way together fail together.
        if matches!(state.now, Now::Closed { .. }) {
            return;
        }
        if state.failures == 0 {
            let node = self.node();
            info!(%node, %error, "the node's socket on this host fails, asking over QUIC");
        }
        let backoff = BACKOFF
            .saturating_mul(1 << state.failures.min(16))
            .min(LONGEST);
        state.failures = state.failures.saturating_add(1);
        state.now = Now::Closed {
            until: StdInstant::now() + backoff.mul_f64(rand::random_range(0.75..1.0)),
        };
    }
}

/// Asks a node for its socket. If it is dropped half-way, others may ask again.
struct Learning {
    peer: Arc<PeerState>,
}

impl Learning {
    async fn learn(self, shared: &Arc<Shared>) {
        let (peer, Some(local)) = (&self.peer, &shared.local) else {
            return;
        };
        let offer = tokio::select! {
            () = local.stop.cancelled() => return,
            offer = self.ask(shared) => offer,
        };
        let Some(offer) = offer else {
            return self.leave_alone(LONGEST);
        };
        let until = Instant::now() + LEARN;
        let channel = match timeout_at(until, Channel::open(&offer)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return peer.socket_failed(local, LocalFailure::Connect, &error),
            Err(_) => {
                let error = io::ErrorKind::TimedOut.into();
                return peer.socket_failed(local, LocalFailure::Timeout, &error);
            }
        };
        debug!(node = %peer.node(), "the node is on this host: reading through its socket");
        // Those to a node that was there before are of no use.
        peer.socket.close();
        peer.socket.idle.lock().push(channel);
        peer.socket.state.lock().now = Now::Open(Arc::new(offer));
    }

    /// What the node offers; none if it has no socket for this host.
    async fn ask(&self, shared: &Arc<Shared>) -> Option<LocalOffer> {
        let request = Request {
            op: Op::Local,
            epoch: Epoch(0),
            block: BlockId::new(FileId(host()?), 0),
            offset: 0,
            len: 0,
            file_size: 0,
            deadline_ms: 0,
            source: None,
            query: None,
        };
        let deadline = Instant::now() + LEARN;
        let answer = async {
            let response = self.peer.request(shared, &request, deadline).await?;
            response.read_data().await
        };
        match answer.await {
            Ok(data) => query::decode(&data.bytes).ok(),
            Err(error) => {
                debug!(node = %self.peer.node(), %error, "no socket on this host");
                None
            }
        }
    }

    fn leave_alone(&self, pause: Duration) {
        self.peer.socket.state.lock().now = Now::Closed {
            until: StdInstant::now() + pause,
        };
    }
}

impl Drop for Learning {
    fn drop(&mut self) {
        let mut state = self.peer.socket.state.lock();
        if matches!(state.now, Now::Asked) {
            state.now = Now::Unknown;
        }
    }
}

/// Keeps a descriptor for later reads and sees to it that it is closed in time.
fn keep(shared: &Arc<Shared>, local: &Local, block: BlockId, file: &Arc<BlockFile>) {
    if !local.descriptors.keep(block, Arc::clone(file)) {
        return;
    }
    let shared = Arc::clone(shared);
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let Some(local) = &shared.local else { return };
        loop {
            tokio::select! {
                () = local.stop.cancelled() => return,
                () = sleep(SWEEP) => {}
            }
            if !local.descriptors.sweep() {
                return;
            }
        }
    });
}
