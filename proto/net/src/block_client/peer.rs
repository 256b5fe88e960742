//! One peer: its connection, its breaker, and a request to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared as SharedFuture};
use millpond_proto::NodeId;
use millpond_proto::wire::frame::{
    FrameError, MAX_TRAILER_LEN, Op, RESPONSE_HEADER_LEN, Request, ResponseHead,
};
use millpond_proto::wire::local::MAX_OFFER_LEN;
use millpond_proto::wire::query::MAX_ANSWER_LEN;
use millpond_proto::wire::status;
use parking_lot::Mutex;
use quinn::{Connection, ReadError, ReadExactError, RecvStream};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info};

use super::breaker::Breaker;
use super::liveness::{Liveness, Waited};
use super::response::Response;
use super::{BlockClientConfig, CLOSE_CODE, Peer, Shared, local};
use crate::NetError;
use crate::metrics::{ClientMetrics, Outcome};

type Dial = SharedFuture<BoxFuture<'static, Result<Connection, Arc<str>>>>;

/// What is known of one peer at one address.
pub(super) struct PeerState {
    node: NodeId,
    addr: String,
    metrics: Arc<ClientMetrics>,
    link: Mutex<Link>,
    /// Its Unix socket, if it is on this host.
    pub(super) socket: local::Link,
}

struct Link {
    connection: Option<Connection>,
    /// The attempt under way, shared by all who wait for it.
    dial: Option<Dial>,
    breaker: Breaker,
    /// Nobody will ask for this peer at this address again.
    retired: bool,
}

impl PeerState {
    pub(super) fn new(
        peer: &Peer,
        config: &BlockClientConfig,
        metrics: &Arc<ClientMetrics>,
    ) -> Self {
        Self {
            node: peer.id,
            addr: peer.addr.clone(),
            metrics: Arc::clone(metrics),
            link: Mutex::new(Link {
                connection: None,
                dial: None,
                breaker: Breaker::new(config.backoff, config.longest_backoff),
                retired: false,
            }),
            socket: local::Link::new(),
        }
    }

    pub(super) fn addr(&self) -> &str {
        &self.addr
    }

    pub(super) const fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn metrics(&self) -> Arc<ClientMetrics> {
        Arc::clone(&self.metrics)
    }

    pub(super) fn is_down(&self) -> bool {
        self.link
            .lock()
            .breaker
            .is_open(StdInstant::now())
            .is_some()
    }

    /// Closes the connection now; requests on it fail.
    pub(super) fn close(&self, why: &[u8]) {
        self.socket.close();
        let mut link = self.link.lock();
        link.retired = true;
        if let Some(connection) = link.take(&self.metrics) {
            connection.close(CLOSE_CODE, why);
        }
    }

    /// Lets go of the connection; requests on it end by themselves.
    pub(super) fn retire(&self) {
        self.socket.close();
        let mut link = self.link.lock();
        link.retired = true;
        drop(link.take(&self.metrics));
    }

    /// Sends a request and reads the head of the answer.
    pub(super) async fn request(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        request: &Request,
        deadline: Instant,
    ) -> Result<Response, NetError> {
        let connection = self.connect(shared, deadline).await?;
        let mut liveness = Liveness::new(connection.clone(), shared.config.silence_timeout);
        let left = deadline.saturating_duration_since(Instant::now());
        let frame = Request {
            deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1),
            ..request.clone()
        }
        .encode()?;

        let doing = "waiting for an answer of";
        let opened = liveness.watch(connection.open_bi(), deadline).await;
        let (mut send, mut recv) = opened
            .map_err(|waited| self.waited(waited, &connection, doing))?
            .map_err(|e| self.lost(e))?;
        let exchange = async {
            send.write_all(&frame).await.map_err(|e| self.lost(e))?;
            // Cannot fail: the stream was opened above and never finished.
            let _ = send.finish();
            self.read_head(&mut recv).await
        };
        liveness.sending();
        let head = match liveness.watch(exchange, deadline).await {
            Ok(head) => head?,
            Err(waited) => return Err(self.waited(waited, &connection, doing)),
        };
        self.check_head(request, &head)?;
        if let Err(kind) = head.outcome {
            let message = liveness
                .watch(self.read_message(&mut recv, head.trailer_len), deadline)
                .await
                .unwrap_or_default();
            return Err(NetError::Refused {
                node: self.node,
                kind,
                message,
                epoch: head.epoch,
            });
        }
        Ok(Response::new(
            head,
            request,
            Arc::clone(self),
            recv,
            liveness,
            connection,
            deadline,
            shared.config.stall_timeout,
            Arc::clone(&self.metrics),
        ))
    }

    async fn read_head(&self, recv: &mut RecvStream) -> Result<ResponseHead, NetError> {
        let mut bytes = [0; RESPONSE_HEADER_LEN];
        recv.read_exact(&mut bytes).await.map_err(|e| match e {
            ReadExactError::FinishedEarly(_) => self.malformed(FrameError::Short),
            ReadExactError::ReadError(e) => self.read_failed(e),
        })?;
        ResponseHead::decode(&bytes).map_err(|e| self.malformed(e))
    }

    /// The answer must fit the request: nobody makes us hold more than we asked for.
    fn check_head(&self, request: &Request, head: &ResponseHead) -> Result<(), NetError> {
        if head.outcome.is_err() {
            return Ok(());
        }
        let fits = match request.op {
            Op::Read | Op::Peek => head.data_len == request.len,
            Op::Probe => head.data_len == 0,
            Op::Stats => head.data_len <= MAX_STATS_LEN,
            Op::Local => head.data_len <= MAX_OFFER_LEN,
            Op::Stat | Op::List | Op::Forget | Op::Watch => head.data_len <= MAX_ANSWER_LEN,
        };
        if fits {
            Ok(())
        } else {
            Err(self.malformed(FrameError::Field("data length")))
        }
    }

    async fn read_message(&self, recv: &mut RecvStream, len: u32) -> String {
        let mut bytes = vec![0; len.min(MAX_TRAILER_LEN) as usize];
        match recv.read_exact(&mut bytes).await {
            Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        }
    }

    /// The open connection, or a new one, by `deadline`.
    async fn connect(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<Connection, NetError> {
        let dial = {
            let mut link = self.link.lock();
            if let Some(connection) = link.usable(&self.metrics) {
                return Ok(connection);
            }
            let now = StdInstant::now();
            match &link.dial {
                Some(dial) => {
                    // While a peer that failed is tried again, others do not wait for it.
                    if let Some(rejected) = link.breaker.is_open(now) {
                        return Err(self.down(rejected.failures, rejected.retry_in));
                    }
                    dial.clone()
                }
                None => {
                    link.breaker
                        .admit(now)
                        .map_err(|r| self.down(r.failures, r.retry_in))?;
                    let dial = self.start_dial(shared);
                    link.dial = Some(dial.clone());
                    dial
                }
            }
        };
        match timeout_at(deadline, dial).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(why)) => Err(NetError::Connect {
                node: self.node,
                addr: self.addr.clone(),
                why,
            }),
            Err(_) => Err(NetError::Timeout {
                node: self.node,
                doing: "connecting to",
            }),
        }
    }

    /// Dials in a task of its own: whoever gives up waiting does not stop it for others.
    fn start_dial(self: &Arc<Self>, shared: &Arc<Shared>) -> Dial {
        let peer = Arc::clone(self);
        let in_task = Arc::clone(shared);
        let task = shared.tasks.spawn(async move {
            let limit = in_task.config.connect_timeout;
            let result = match timeout(limit, peer.dial(&in_task)).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer within {}ms", limit.as_millis()).into()),
            };
            peer.dialled(&result);
            result
        });
        async move {
            task.await
                .unwrap_or_else(|_| Err("the attempt was cancelled".into()))
        }
        .boxed()
        .shared()
    }

    async fn dial(&self, shared: &Shared) -> Result<Connection, Arc<str>> {
        let addrs: Vec<SocketAddr> = tokio::net::lookup_host(&self.addr)
            .await
            .map_err(|e| Arc::from(format!("cannot resolve the address: {e}")))?
            .collect();
        let mut last: Arc<str> = "the name has no address".into();
        let name = self.node.to_string();
        for addr in addrs {
            let connecting = match shared.identity.load_full() {
                Some(config) => shared.endpoint.connect_with((*config).clone(), addr, &name),
                None => shared.endpoint.connect(addr, &name),
            };
            match connecting {
                Ok(connecting) => match connecting.await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => last = error.to_string().into(),
                },
                Err(error) => last = error.to_string().into(),
            }
        }
        Err(last)
    }

    fn dialled(&self, result: &Result<Connection, Arc<str>>) {
        let mut link = self.link.lock();
        link.dial = None;
        match result {
            Ok(connection) => {
                self.metrics.connect_ended(Outcome::Ok);
                if link.breaker.failures() > 0 {
                    info!(node = %self.node, addr = self.addr, "node answers again");
                }
                link.breaker.succeed();
                if !link.retired {
                    link.connection = Some(connection.clone());
                    self.metrics.connections.inc();
                }
                debug!(node = %self.node, addr = self.addr, "connected");
            }
            Err(why) => {
                self.metrics.connect_ended(Outcome::Unavailable);
                self.open_breaker(&mut link);
                debug!(node = %self.node, addr = self.addr, %why, "connection failed");
            }
        }
    }

    fn open_breaker(&self, link: &mut Link) {
        let first = link.breaker.failures() == 0;
        link.breaker.fail(StdInstant::now(), rand::random());
        self.metrics.breaker_opens.inc();
        if first && !link.retired {
            info!(node = %self.node, addr = self.addr, "node does not answer");
        }
    }

    /// What waiting in vain means. A silent peer is dead: its connection is closed, so that
    /// everyone else who waits on it moves on too.
    pub(super) fn waited(
        &self,
        waited: Waited,
        connection: &Connection,
        doing: &'static str,
    ) -> NetError {
        match waited {
            Waited::Deadline => NetError::Timeout {
                node: self.node,
                doing,
            },
            Waited::Silent(after) => {
                let mut link = self.link.lock();
                let id = connection.stable_id();
                // Only the first to notice counts it.
                if link
                    .connection
                    .as_ref()
                    .is_some_and(|c| c.stable_id() == id)
                {
                    drop(link.take(&self.metrics));
                    self.open_breaker(&mut link);
                    connection.close(CLOSE_CODE, b"silent");
                }
                NetError::Silent {
                    node: self.node,
                    after,
                }
            }
        }
    }

    pub(super) fn read_failed(&self, error: ReadError) -> NetError {
        match error {
            ReadError::Reset(code) => NetError::Reset {
                node: self.node,
                kind: status::from_code(code.into_inner()),
            },
            other => self.lost(other),
        }
    }

    pub(super) const fn malformed(&self, source: FrameError) -> NetError {
        NetError::Frame {
            node: self.node,
            source,
        }
    }

    fn lost(&self, error: impl std::fmt::Display) -> NetError {
        NetError::Lost {
            node: self.node,
            why: error.to_string(),
        }
    }

    const fn down(&self, failures: u32, retry_in: Duration) -> NetError {
        NetError::Down {
            node: self.node,
            failures,
            retry_in,
        }
    }
}

impl Link {
    /// The connection if it is still open.
    fn usable(&mut self, metrics: &ClientMetrics) -> Option<Connection> {
        let open = self.connection.as_ref()?.close_reason().is_none();
        if open {
            return self.connection.clone();
        }
        drop(self.take(metrics));
        None
    }

    fn take(&mut self, metrics: &ClientMetrics) -> Option<Connection> {
        let connection = self.connection.take()?;
        metrics.connections.dec();
        Some(connection)
    }
}

/// The longest answer to a request for counters.
const MAX_STATS_LEN: u32 = 64 << 10;
