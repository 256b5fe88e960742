//! Answers block requests: accepts connections and streams, decodes requests, bounds what is
//! in flight, and hands each request to a [`BlockService`].

mod connection;
mod local;
mod reply;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_proto::Epoch;
use millpond_proto::wire::frame::Request;
use millpond_proto::wire::local::Ask;
use quinn::{Endpoint, VarInt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info_span};

use crate::NetError;
use crate::metrics::{RejectReason, ServerMetrics};
use crate::tls::PeerRole;

pub use local::{LocalHit, LocalSocket};
pub use reply::{Reply, ReplyBody};

/// What answers block requests.
#[async_trait]
pub trait BlockService: Send + Sync + 'static {
    /// The epoch that answers carry.
    fn epoch(&self) -> Epoch;

    /// Answers one request through `reply`. The returned error is that of the reply (the
    /// caller went away); it is counted and forgotten.
    ///
    /// `request` is decoded, not checked: the range lies within the largest possible block,
    /// nothing else is promised.
    ///
    /// # Cancel safety
    /// The future is dropped when the caller goes away or its deadline passes; work that
    /// others wait for belongs in a task of the service.
    async fn serve(&self, caller: PeerRole, request: Request, reply: Reply)
    -> Result<(), NetError>;

    /// What a client on the same host can have of the block it asks for, without waiting for
    /// anything but a disk; none for what is to be asked for with [`serve`](Self::serve). The
    /// range may lie past the block's end.
    ///
    /// # Cancel safety
    /// Like [`serve`](Self::serve).
    async fn share(&self, ask: &Ask) -> Option<LocalHit> {
        let _ = ask;
        None
    }
}

/// What a server accepts at most.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Connections; more are refused.
    pub connections: usize,
    /// Requests being served, over all connections; more are answered Busy.
    pub requests: usize,
    /// Requests being received and served on one connection; more are answered Busy.
    pub requests_per_connection: usize,
    /// Bytes of response data held for delivery, over all connections; more wait.
    pub in_flight_bytes: u64,
    /// How long an answer waits for its share of them at most; then it is Busy, while its
    /// caller still has time to ask elsewhere.
    pub longest_wait: Duration,
    /// How long a request may take when its sender names no deadline, and at most.
    pub longest_deadline: Duration,
    /// How long a caller may take to send a request.
    pub request_timeout: Duration,
    /// How long a caller may accept no data before its stream is reset.
    pub slow_reader_timeout: Duration,
    /// How long requests in flight may take to end at shutdown.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            requests: 4096,
            requests_per_connection: 512,
            in_flight_bytes: 64 << 20,
            longest_wait: Duration::from_secs(4),
            longest_deadline: Duration::from_secs(60),
            request_timeout: Duration::from_secs(5),
            slow_reader_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// A running server of block requests.
#[derive(Debug)]
pub struct BlockServer {
    endpoint: Endpoint,
    stop: CancellationToken,
    tasks: TaskTracker,
    drain_timeout: Duration,
}

impl BlockServer {
    /// Begins to accept connections on `endpoint`. Needs a tokio runtime.
    pub fn start<S: BlockService>(
        endpoint: Endpoint,
        service: Arc<S>,
        limits: ServerLimits,
        metrics: Arc<ServerMetrics>,
    ) -> Self {
        Self::start_with(endpoint, None, service, limits, metrics)
    }

    /// Like [`start`](Self::start), and on `socket` too, if there is one.
    pub fn start_with<S: BlockService>(
        endpoint: Endpoint,
        socket: Option<LocalSocket>,
        service: Arc<S>,
        limits: ServerLimits,
        metrics: Arc<ServerMetrics>,
    ) -> Self {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let drain_timeout = limits.drain_timeout;
        let (listener, door) = socket.map(LocalSocket::open).unzip();
        let door = door.map(Arc::new);
        let shared = Arc::new(Shared {
            service,
            door: door.as_ref().map(Arc::clone),
            requests: Arc::new(Semaphore::new(limits.requests)),
            bytes: Arc::new(Semaphore::new(reply::permits(limits.in_flight_bytes))),
            connections: Arc::new(Semaphore::new(limits.connections)),
            limits,
            metrics,
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        if let (Some(listener), Some(door)) = (listener, door) {
            tasks.spawn(local::accept(listener, door, Arc::clone(&shared)));
        }
        tasks.spawn(accept(endpoint.clone(), shared));
        Self {
            endpoint,
            stop,
            tasks,
            drain_timeout,
        }
    }

    /// The endpoint, which can also be used to dial.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Stops accepting, lets requests in flight end within the drain timeout, then closes
    /// every connection of the endpoint.
    pub async fn shutdown(self) {
        self.endpoint.set_server_config(None);
        self.stop.cancel();
        self.tasks.close();
        if timeout(self.drain_timeout, self.tasks.wait())
            .await
            .is_err()
        {
            debug!("requests were still in flight at shutdown");
        }
        self.endpoint.close(VarInt::from_u32(0), b"shutdown");
        // Gives the closing packets a chance to leave; a dead peer must not hold us up.
        let _ = timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
        let _ = timeout(Duration::from_secs(1), self.tasks.wait()).await;
    }
}

/// What all connections of a server have in common.
struct Shared<S> {
    service: Arc<S>,
    /// None without a Unix socket.
    door: Option<Arc<local::Door>>,
    limits: ServerLimits,
    metrics: Arc<ServerMetrics>,
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

async fn accept<S: BlockService>(endpoint: Endpoint, shared: Arc<Shared<S>>) {
    loop {
        let incoming = tokio::select! {
            () = shared.stop.cancelled() => return,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            return;
        };
        let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
            shared.metrics.reject(RejectReason::Connections);
            incoming.refuse();
            continue;
        };
        let span = info_span!("connection", peer = %incoming.remote_address());
        let shared = Arc::clone(&shared);
        let tasks = shared.tasks.clone();
        tasks.spawn(
            async move {
                connection::run(incoming, &shared).await;
                drop(permit);
            }
            .instrument(span),
        );
    }
}
