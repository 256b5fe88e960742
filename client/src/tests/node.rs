//! A cluster in this process for tests: nodes that answer from the memory UFS over real QUIC,
//! and misbehave on demand. Each runs on a thread of its own, so that it can be frozen whole.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use async_trait::async_trait;
use millpond_net::NetError;
use millpond_net::block_server::{BlockServer, BlockService, Reply, ServerLimits};
use millpond_net::ca::ClusterCa;
use millpond_net::control::{ControlClient, ViewWatch, WatchConfig};
use millpond_net::metrics::ServerMetrics;
use millpond_net::quic;
use millpond_net::tls::PeerRole;
use millpond_proto::checksum::page_checksums;
use millpond_proto::wire::frame::{BlockSource, Op, Request, Tier};
use millpond_proto::{
    BlockId, ClusterId, ClusterView, Epoch, ErrorKind, Member, MemberState, Mount, MountId,
    MountPath, MountTable, NodeId,
};
use millpond_ufs::{Ufs, UfsContext, read_to_bytes};
use tokio::sync::oneshot;

use super::*;
use crate::connect;

/// How a node behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It fills and serves.
    Good,
    /// Its data does not match its checksums.
    Corrupt,
    /// It is alive and never answers reads.
    Mute,
    /// It takes this long before it answers a read.
    Slow(Duration),
    /// It answers reads with this error.
    Fails(ErrorKind),
}

/// What a node and its test share.
pub(super) struct Shared {
    pub(super) manner: Mutex<Manner>,
    pub(super) reads: AtomicU64,
    held: Mutex<HashSet<BlockId>>,
    /// Its one file, if it is to serve that whatever the UFS has.
    kept: Mutex<Option<bytes::Bytes>>,
    peeks: Mutex<HashMap<BlockId, u32>>,
    source: Mutex<Option<BlockSource>>,
    ufs: Arc<dyn Ufs>,
}

#[async_trait]
impl BlockService for Shared {
    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    async fn serve(&self, _: PeerRole, request: Request, reply: Reply) -> Result<(), NetError> {
        match request.op {
            Op::Read => self.read(request, reply).await,
            Op::Probe => {
                let held = self.held.lock().contains(&request.block);
                let tier = if held { Tier::Memory } else { Tier::None };
                reply.send(tier, bytes::Bytes::new(), &[]).await
            }
            Op::Peek => {
                let held = self.held.lock().contains(&request.block);
                let good = matches!(*self.manner.lock(), Manner::Good | Manner::Slow(_));
                if !good || held || self.is_asked_for(&request) {
                    return self.read(request, reply).await;
                }
                reply.fail(ErrorKind::NotFound, "not held here").await
            }
            Op::Stats | Op::Stat | Op::List | Op::Forget | Op::Watch | Op::Local => {
                reply.fail(ErrorKind::Unsupported, "not here").await
            }
        }
    }
}

impl Shared {
    /// Whether the block was peeked at often enough to be filled.
    fn is_asked_for(&self, request: &Request) -> bool {
        if request.source.is_none() {
            return false;
        }
        let mut peeks = self.peeks.lock();
        let count = peeks.entry(request.block).or_default();
        *count += 1;
        *count > 2
    }

    async fn read(&self, request: Request, reply: Reply) -> Result<(), NetError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let manner = *self.manner.lock();
        match manner {
            Manner::Mute => std::future::pending().await,
            Manner::Fails(kind) => return reply.fail(kind, "as told").await,
            Manner::Slow(pause) => tokio::time::sleep(pause).await,
            Manner::Good | Manner::Corrupt => {}
        }
        let start = request.block.index * BLOCK + u64::from(request.offset);
        let range = start..start + u64::from(request.len);
        // A peek at what is held has no source; a test has one file.
        let known = self.source.lock().clone();
        let source = request.source.clone().or(known).unwrap();
        *self.source.lock() = Some(source.clone());
        let kept = self.kept.lock().clone();
        let data = match kept {
            Some(kept) => Ok(kept.slice(range.start as usize..range.end as usize)),
            None => read_to_bytes(&*self.ufs, &source.path, &source.version, range).await,
        };
        let data = match data {
            Ok(data) => data,
            Err(error) => return reply.fail(error.kind(), error.to_string()).await,
        };
        let mut checksums = page_checksums(&data);
        if manner == Manner::Corrupt {
            checksums[0] ^= 1;
        }
        let known = !self.held.lock().insert(request.block);
        let tier = if known { Tier::Memory } else { Tier::Ufs };
        reply.send(tier, data, &checksums).await
    }
}

/// The block size of the test cluster.
pub(super) const BLOCK: u64 = 256 * KIB;

/// A node on a thread of its own.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) shared: Arc<Shared>,
    addr: SocketAddr,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Node {
    async fn start(id: NodeId, ca: &ClusterCa, uri: &str) -> Self {
        let identity = ca.issue(PeerRole::Node(id)).unwrap();
        let ufs = millpond_ufs::open(uri, &BTreeMap::new(), UfsContext::detached())
            .await
            .unwrap();
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Good),
            reads: AtomicU64::new(0),
            held: Mutex::default(),
            kept: Mutex::default(),
            peeks: Mutex::default(),
            source: Mutex::default(),
            ufs,
        });
        let (ready, started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let service = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let endpoint = quic::server_endpoint(any, &identity).unwrap();
                let addr = endpoint.local_addr().unwrap();
                let metrics = Arc::new(ServerMetrics::new(&mut Registry::default()));
                let limits = ServerLimits {
                    drain_timeout: Duration::from_millis(10),
                    ..ServerLimits::default()
                };
                let server = BlockServer::start(endpoint, service, limits, metrics);
                ready
                    .send((addr, tokio::runtime::Handle::current()))
                    .unwrap();
                let _ = stopped.await;
                server.shutdown().await;
            });
        });
        let (addr, runtime) = started.await.unwrap();
        Self {
            id,
            shared,
            addr,
            runtime,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Stops the node's only thread until the returned value is dropped, as SIGSTOP would.
    pub(super) fn freeze(&self) -> Frozen {
        let (frozen, is_frozen) = mpsc::channel();
        let (thaw, until) = mpsc::channel::<()>();
        let stuck = async move {
            let _ = frozen.send(());
            let _ = until.recv();
        };
        tokio_util::task::TaskTracker::new().spawn_on(stuck, &self.runtime);
        is_frozen.recv().unwrap();
        Frozen { _thaw: thaw }
    }

    pub(super) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock() = manner;
    }

    /// Has it serve `data` from now on, whatever the UFS has.
    pub(super) fn keep(&self, data: &[u8]) {
        *self.shared.kept.lock() = Some(bytes::Bytes::copy_from_slice(data));
    }

    pub(super) fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::SeqCst)
    }

    /// Ends the node and closes its port.
    pub(super) fn kill(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) struct Frozen {
    _thaw: mpsc::Sender<()>,
}

/// A client and its nodes.
pub(super) struct Cluster {
    pub(super) fs: FileSystem,
    pub(super) nodes: Vec<Node>,
    pub(super) registry: Mutex<Registry>,
}

impl Cluster {
    /// `count` nodes, one mount of `uri` at `/data`, and a client.
    pub(super) async fn start(count: u64, uri: &str) -> Self {
        let cluster = ClusterId([9; 16]);
        let ca = ClusterCa::create(&cluster).unwrap();
        let mut nodes = Vec::new();
        for id in 1..=count {
            nodes.push(Node::start(NodeId(id), &ca, uri).await);
        }
        let mounts = mounts(&[("/data", uri)]);
        let members = nodes.iter().map(|n| member(n.id, n.addr)).collect();
        let identity = ca.issue(PeerRole::Client).unwrap();
        let config = ClientConfig {
            memory: 32 * MIB,
            ..small()
        };
        let registry = Mutex::new(Registry::default());
        let watch = fixed_view(cluster, members, mounts).await;
        let core = connect::join(config, &identity, watch, &registry)
            .await
            .unwrap();
        Self {
            fs: FileSystem::of(core),
            nodes,
            registry,
        }
    }

    pub(super) fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock()).unwrap();
        let value = text
            .lines()
            .find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }

    pub(super) fn node_reads(&self) -> u64 {
        self.nodes.iter().map(Node::reads).sum()
    }
}

/// Mounts numbered from 1.
pub(super) fn mounts(entries: &[(&str, &str)]) -> MountTable {
    let mut table = MountTable::default();
    for (i, (path, uri)) in entries.iter().enumerate() {
        let mount = Mount {
            id: MountId(i as u64 + 1),
            path: MountPath::parse(path).unwrap(),
            ufs: (*uri).to_owned(),
            options: BTreeMap::new(),
        };
        table.add(mount).unwrap();
    }
    table
}

pub(super) fn member(id: NodeId, addr: SocketAddr) -> Member {
    Member {
        id,
        addr: addr.to_string(),
        admin: String::new(),
        zone: String::new(),
        weight: 100,
        capacity: 1 << 30,
        state: MemberState::Active,
        incarnation: 1,
    }
}

/// A view that no coordinator will ever change.
pub(super) async fn fixed_view(
    cluster: ClusterId,
    members: Vec<Member>,
    mounts: MountTable,
) -> ViewWatch {
    let view = ClusterView {
        cluster,
        version: 1,
        epoch: Epoch(1),
        block_size: BlockSize::new(BLOCK).unwrap(),
        members,
        mounts,
    };
    let control = ControlClient::new(vec!["127.0.0.1:1".to_owned()]).unwrap();
    let config = WatchConfig {
        initial: Some(view),
        ..WatchConfig::default()
    };
    ViewWatch::start(control, config).await.unwrap()
}

/// A client that has mounts and no node.
pub(super) async fn client_of(mounts: MountTable) -> FileSystem {
    client_with(mounts, small()).await
}

/// The same with settings of its own.
pub(super) async fn client_with(mounts: MountTable, config: ClientConfig) -> FileSystem {
    let cluster = ClusterId([9; 16]);
    let ca = ClusterCa::create(&cluster).unwrap();
    let identity = ca.issue(PeerRole::Client).unwrap();
    let watch = fixed_view(cluster, Vec::new(), mounts).await;
    let registry = Mutex::new(Registry::default());
    let core = connect::join(config, &identity, watch, &registry).await;
    FileSystem::of(core.unwrap())
}
