//! A cluster authority, a block service to order, and a wire that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_net::block_client::{BlockClient, BlockClientConfig, Peer};
use millpond_net::block_server::{BlockServer, BlockService, Reply, ServerLimits};
use millpond_net::ca::ClusterCa;
use millpond_net::metrics::{ClientMetrics, ServerMetrics};
use millpond_net::tls::PeerRole;
use millpond_net::{NetError, quic};
use millpond_proto::checksum::page_checksums;
use millpond_proto::wire::frame::{Op, Request, Tier};
use millpond_proto::{BlockId, ClusterId, Epoch, ErrorKind, FileId, NodeId};
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const EPOCH: Epoch = Epoch(42);
pub(crate) const NODE: NodeId = NodeId(1);

pub(crate) fn ca() -> ClusterCa {
    ClusterCa::create(&ClusterId([7; 16])).unwrap()
}

/// The content of every block in these tests.
pub(crate) fn content(len: usize) -> Bytes {
    (0..len)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

pub(crate) fn read(offset: u32, len: u32) -> Request {
    Request {
        op: Op::Read,
        epoch: Epoch(1),
        block: BlockId::new(FileId([3; 16]), 5),
        offset,
        len,
        file_size: 1 << 40,
        deadline_ms: 0,
        source: None,
        query: None,
    }
}

pub(crate) fn soon(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Polls until `met` or panics.
pub(crate) async fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = soon(15_000);
    while !met() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the service does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Answers with the right bytes.
    Serve,
    /// Answers with one checksum wrong.
    WrongChecksum,
    /// Refuses with `Stale`.
    Refuse,
    /// Gives up half-way, naming the reason.
    AbortHalfWay,
    /// Forgets the answer half-way.
    DropHalfWay,
    /// Never answers.
    Hang,
    /// Sends data for ever, slowly.
    Endless,
    /// Announces more bytes than were asked for.
    TooMuch,
}

pub(crate) struct Service {
    pub(crate) behaviour: parking_lot::Mutex<Behaviour>,
    pub(crate) callers: parking_lot::Mutex<Vec<PeerRole>>,
    /// Requests that are inside `serve` now.
    pub(crate) inside: Arc<AtomicUsize>,
    pub(crate) undelivered: AtomicUsize,
}

struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl BlockService for Service {
    fn epoch(&self) -> Epoch {
        EPOCH
    }

    async fn serve(
        &self,
        caller: PeerRole,
        request: Request,
        reply: Reply,
    ) -> Result<(), NetError> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let _inside = Inside(Arc::clone(&self.inside));
        self.callers.lock().push(caller);
        let behaviour = *self.behaviour.lock();
        let result = self.answer(behaviour, &request, reply).await;
        if result.is_err() {
            self.undelivered.fetch_add(1, Ordering::SeqCst);
        }
        result
    }
}

impl Service {
    async fn answer(
        &self,
        behaviour: Behaviour,
        request: &Request,
        reply: Reply,
    ) -> Result<(), NetError> {
        let end = (request.offset + request.len) as usize;
        let data = content(end).slice(request.offset as usize..);
        let mut sums: Vec<u32> = millpond_proto::checksum::pieces(request.offset, request.len)
            .map(|p| {
                let start = p.start as usize;
                millpond_proto::checksum::crc32c(&data[start..start + p.len as usize])
            })
            .collect();
        match behaviour {
            Behaviour::Serve if request.op == Op::Stats => {
                use prost::Message;
                let stats = millpond_proto::wire::pb::NodeStats {
                    corrupt: 17,
                    ..Default::default()
                };
                let bytes: Bytes = stats.encode_to_vec().into();
                let sums = page_checksums(&bytes);
                reply.send(Tier::None, bytes, &sums).await
            }
            Behaviour::Serve if request.op == Op::Probe => {
                reply.send(Tier::Disk, Bytes::new(), &[]).await
            }
            Behaviour::Serve => {
                let mut body = reply.head(Tier::Memory, request.len).await?;
                // In uneven chunks, as they would come from elsewhere.
                let mut rest = data;
                while !rest.is_empty() {
                    let chunk = rest.split_to(rest.len().min(100_003));
                    body.data(chunk).await?;
                }
                body.finish(&sums).await
            }
            Behaviour::WrongChecksum => {
                sums[1] ^= 1;
                reply.send(Tier::Disk, data, &sums).await
            }
            Behaviour::Refuse => reply.fail(ErrorKind::Stale, "the object changed").await,
            Behaviour::AbortHalfWay | Behaviour::DropHalfWay => {
                let mut body = reply.head(Tier::Ufs, request.len).await?;
                body.data(data.slice(..data.len() / 2)).await?;
                if behaviour == Behaviour::AbortHalfWay {
                    body.abort(ErrorKind::Stale);
                }
                Ok(())
            }
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Endless => {
                let mut body = reply.head(Tier::Ufs, request.len).await?;
                while body.remaining() > 1 {
                    body.data(Bytes::from_static(&[0])).await?;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(())
            }
            Behaviour::TooMuch => {
                let data = content(request.len as usize + 1);
                let sums = page_checksums(&data);
                reply.send(Tier::Memory, data, &sums).await
            }
        }
    }
}

/// A server of blocks on loopback.
pub(crate) struct Node {
    pub(crate) service: Arc<Service>,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) addr: SocketAddr,
    pub(crate) server: BlockServer,
}

impl Node {
    pub(crate) fn start(ca: &ClusterCa, behaviour: Behaviour) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        Self::start_with(ca, behaviour, any, ServerLimits::default())
    }

    pub(crate) fn start_with(
        ca: &ClusterCa,
        behaviour: Behaviour,
        addr: SocketAddr,
        limits: ServerLimits,
    ) -> Self {
        let identity = ca.issue(PeerRole::Node(NODE)).unwrap();
        let endpoint = quic::server_endpoint(addr, &identity).unwrap();
        let addr = endpoint.local_addr().unwrap();
        let service = Arc::new(Service {
            behaviour: parking_lot::Mutex::new(behaviour),
            callers: parking_lot::Mutex::default(),
            inside: Arc::default(),
            undelivered: AtomicUsize::new(0),
        });
        let metrics = Arc::new(ServerMetrics::default());
        let server =
            BlockServer::start(endpoint, Arc::clone(&service), limits, Arc::clone(&metrics));
        Self {
            service,
            metrics,
            addr,
            server,
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer {
            id: NODE,
            addr: self.addr.to_string(),
        }
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.service.behaviour.lock() = behaviour;
    }
}

/// A client with its counters.
pub(crate) struct Asker {
    pub(crate) client: BlockClient,
    pub(crate) metrics: Arc<ClientMetrics>,
}

impl Asker {
    pub(crate) fn new(ca: &ClusterCa) -> Self {
        Self::with_config(ca, BlockClientConfig::default())
    }

    pub(crate) fn with_config(ca: &ClusterCa, config: BlockClientConfig) -> Self {
        let endpoint = quic::client_endpoint(&ca.issue(PeerRole::Client).unwrap()).unwrap();
        let metrics = Arc::new(ClientMetrics::default());
        let client = BlockClient::new(endpoint, config, Arc::clone(&metrics));
        Self { client, metrics }
    }

    pub(crate) async fn read(
        &self,
        peer: &Peer,
        offset: u32,
        len: u32,
    ) -> Result<millpond_net::block_client::Data, NetError> {
        let request = read(offset, len);
        let response = self.client.request(peer, &request, soon(20_000)).await?;
        response.read_data().await
    }
}

/// A UDP wire to an address that can be cut: packets then vanish, as with a dead host.
pub(crate) struct Wire {
    pub(crate) addr: SocketAddr,
    pub(crate) cut: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        back.connect(target).await.unwrap();
        let addr = front.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let (is_cut, stopped) = (Arc::clone(&cut), stop.clone());
        TaskTracker::new().spawn(async move {
            let mut there = vec![0; 65_536];
            let mut here = vec![0; 65_536];
            let mut caller = None;
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    Ok((n, from)) = front.recv_from(&mut there) => {
                        caller = Some(from);
                        if !is_cut.load(Ordering::SeqCst) {
                            let _ = back.send(&there[..n]).await;
                        }
                    }
                    Ok(n) = back.recv(&mut here) => {
                        if let (Some(caller), false) = (caller, is_cut.load(Ordering::SeqCst)) {
                            let _ = front.send_to(&here[..n], caller).await;
                        }
                    }
                }
            }
        });
        Self { addr, cut, stop }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer {
            id: NODE,
            addr: self.addr.to_string(),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
