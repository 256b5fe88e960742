//! Asks peers for blocks: one QUIC connection per peer, and the Unix socket of one on this host, dialled once for all who need it; a
//! deadline on everything; a peer that failed is left alone for a moment, so that a dead one
//! costs one wait and not one per request.

mod breaker;
mod liveness;
mod local;
mod peer;
mod response;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use millpond_proto::wire::frame::{Op, Request};
use millpond_proto::wire::pb;
use millpond_proto::{BlockId, Epoch, ErrorKind, FileId, NodeId, NodeStats};
use parking_lot::Mutex;
use prost::Message;
use quinn::{ClientConfig, Endpoint, VarInt};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::metrics::ClientMetrics;
use crate::tls::Identity;
use crate::{NetError, quic};

use local::Local;
use peer::PeerState;
pub use response::{Data, Response};

/// A node to ask: who it is, and where the view says it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node; its certificate must name it.
    pub id: NodeId,
    /// `host:port`.
    pub addr: String,
}

/// How patient a [`BlockClient`] is.
#[derive(Debug, Clone)]
pub struct BlockClientConfig {
    /// How long a connection may take to be made, name lookup included.
    pub connect_timeout: Duration,
    /// How long a peer that owes an answer may send nothing at all, not even an
    /// acknowledgement, before it is taken for dead.
    pub silence_timeout: Duration,
    /// How long the data of an answer may pause.
    pub stall_timeout: Duration,
    /// How long a failed peer is left alone at first; doubles with each further failure.
    pub backoff: Duration,
    /// How long a failed peer is left alone at most.
    pub longest_backoff: Duration,
    /// Whether blocks of nodes on this host are read through their Unix sockets, as far as
    /// those work.
    pub local: bool,
}

impl Default for BlockClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(1500),
            silence_timeout: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(10),
            backoff: Duration::from_millis(500),
            longest_backoff: Duration::from_secs(10),
            local: false,
        }
    }
}

/// Asks peers for blocks. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct BlockClient {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    identity: ArcSwapOption<ClientConfig>,
    config: BlockClientConfig,
    metrics: Arc<ClientMetrics>,
    peers: Mutex<HashMap<NodeId, Arc<PeerState>>>,
    tasks: TaskTracker,
    /// None if sockets are not used.
    local: Option<Local>,
}

impl BlockClient {
    /// A client that dials from `endpoint`, which has a default client configuration: one of
    /// [`quic::client_endpoint`] or [`quic::server_endpoint`].
    pub fn new(endpoint: Endpoint, config: BlockClientConfig, metrics: Arc<ClientMetrics>) -> Self {
        let local = config.local.then(|| Local::new(Arc::clone(&metrics)));
        let shared = Shared {
            endpoint,
            local,
            identity: ArcSwapOption::empty(),
            config,
            metrics,
            peers: Mutex::default(),
            tasks: TaskTracker::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Dials with `identity` from now on; open connections stay.
    ///
    /// # Errors
    /// `Invalid` for an unusable identity.
    pub fn replace_identity(&self, identity: &Identity) -> Result<(), NetError> {
        let settings = quic::client_settings(identity)?;
        self.shared.identity.store(Some(Arc::new(settings)));
        Ok(())
    }

    /// Sends `request` to `peer` and waits for the head of the answer. The time left until
    /// `deadline` replaces the request's own deadline field; the deadline also holds for
    /// the data that follows.
    ///
    /// # Errors
    /// - `Unavailable`: not connected, down a moment ago, connection lost, or silent.
    /// - `Timeout`: the deadline passed.
    /// - The kind that the peer gave ([`NetError::Refused`]); its epoch is in the error.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the request; a connection being made for it is still
    /// made.
    pub async fn request(
        &self,
        peer: &Peer,
        request: &Request,
        deadline: Instant,
    ) -> Result<Response, NetError> {
        let shared = &self.shared;
        let state = shared.peer(peer);
        if let Some(here) = state.answer_here(shared, request, deadline).await {
            return Ok(here);
        }
        let result = state.request(shared, request, deadline).await;
        if let Err(error) = &result {
            shared
                .metrics
                .request_ended(request.op, error.kind().into());
        }
        result
    }

    /// Asks `peer` for its counters.
    ///
    /// # Errors
    /// Like [`request`](Self::request).
    pub async fn stats(&self, peer: &Peer, deadline: Instant) -> Result<NodeStats, NetError> {
        let request = Request {
            op: Op::Stats,
            epoch: Epoch(0),
            block: BlockId::new(FileId([0; 16]), 0),
            offset: 0,
            len: 0,
            file_size: 0,
            deadline_ms: 0,
            source: None,
            query: None,
        };
        let response = self.request(peer, &request, deadline).await?;
        let data = response.read_data().await?;
        match pb::NodeStats::decode(data.bytes) {
            Ok(stats) => Ok(stats.into()),
            Err(error) => Err(NetError::Refused {
                node: peer.id,
                kind: ErrorKind::Invalid,
                message: format!("malformed counters: {error}"),
                epoch: Epoch(0),
            }),
        }
    }

    /// Whether `node` failed a moment ago, so that a request would fail at once.
    pub fn is_down(&self, node: NodeId) -> bool {
        let state = self.shared.peers.lock().get(&node).map(Arc::clone);
        state.is_some_and(|s| s.is_down())
    }

    /// Closes the connections to nodes for which `keep` is false and forgets their failures.
    pub fn retain(&self, mut keep: impl FnMut(NodeId) -> bool) {
        let mut gone = Vec::new();
        self.shared.peers.lock().retain(|&id, state| {
            let stays = keep(id);
            if !stays {
                gone.push(Arc::clone(state));
            }
            stays
        });
        for state in gone {
            state.close(b"left the cluster");
        }
    }

    /// Closes all connections of this client; the endpoint stays usable.
    pub async fn shutdown(self) {
        self.retain(|_| false);
        if let Some(local) = &self.shared.local {
            local.shutdown();
        }
        self.shared.tasks.close();
        // Dials in progress end within the connect timeout by themselves.
        let _ = timeout(self.shared.config.connect_timeout, self.shared.tasks.wait()).await;
        self.retain(|_| false);
    }
}

impl fmt::Debug for BlockClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockClient")
            .field("peers", &self.shared.peers.lock().len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The state of `peer`; a fresh one if its address changed.
    fn peer(&self, peer: &Peer) -> Arc<PeerState> {
        let mut peers = self.peers.lock();
        if let Some(state) = peers.get(&peer.id)
            && state.addr() == peer.addr
        {
            return Arc::clone(state);
        }
        let fresh = Arc::new(PeerState::new(peer, &self.config, &self.metrics));
        if let Some(old) = peers.insert(peer.id, Arc::clone(&fresh)) {
            // Requests in flight end by themselves; nobody else will use it.
            old.retire();
        }
        fresh
    }
}

/// The application code with which connections are closed on purpose.
const CLOSE_CODE: VarInt = VarInt::from_u32(0);
