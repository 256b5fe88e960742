//! Nodes in one process, real QUIC between them, a local directory as UFS.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use prometheus_client::registry::Registry;

use millpond_cache_node::fill::{FillLimits, Fills};
use millpond_cache_node::metadata::NodeMetadata;
use millpond_cache_node::metrics::NodeMetrics;
use millpond_cache_node::peers::PeerBlocks;
use millpond_cache_node::server::{Asked, NodeService};
use millpond_cache_node::ufs_table::UfsTable;
use millpond_cache_node::view::CurrentView;
use millpond_net::NetError;
use millpond_net::block_client::{BlockClient, BlockClientConfig, Peer};
use millpond_net::block_server::{BlockServer, ServerLimits};
use millpond_net::ca::ClusterCa;
use millpond_net::metrics::{ClientMetrics, ServerMetrics};
use millpond_net::quic;
use millpond_net::tls::PeerRole;
use millpond_proto::wire::frame::{BlockSource, Op, Request, Tier};
use millpond_proto::{
    BlockId, BlockSize, ClusterId, ClusterView, Epoch, ErrorKind, FileId, FileVersion, Member,
    MemberState, MountId, MountTable, NodeId, Ring,
};
use millpond_store::disk::{Faults, FileOp};
use millpond_store::{Store, StoreConfig};
use millpond_ufs::{Ufs, UfsContext};

const CLUSTER: ClusterId = ClusterId([5; 16]);
const BLOCK: u64 = 64 << 10;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node without coordinator: its views come from the test.
struct Node {
    id: NodeId,
    addr: String,
    view: Arc<CurrentView>,
    metrics: Arc<NodeMetrics>,
    store: Store,
    server: BlockServer,
}

impl Node {
    async fn start(ca: &ClusterCa, id: u64, mounts: &MountTable, store: StoreConfig) -> Self {
        let id = NodeId(id);
        let identity = ca.issue(PeerRole::Node(id)).unwrap();
        let endpoint = quic::server_endpoint("127.0.0.1:0".parse().unwrap(), &identity).unwrap();
        let addr = endpoint.local_addr().unwrap().to_string();
        let first = view(1, &[], mounts);
        let ring = Arc::new(Ring::new(first.epoch, &first.members));
        let view = Arc::new(CurrentView::new(first, ring));
        let store = Store::open(store).await.unwrap();
        let metrics = NodeMetrics::new(&mut Registry::default());
        let peers = client(endpoint.clone());
        let fills = Fills::new(
            store.clone(),
            Arc::new(PeerBlocks::new(peers, Arc::clone(&view))),
            FillLimits::for_memory(16 << 20),
            Arc::clone(&metrics),
        );
        let service = NodeService {
            me: id,
            view: Arc::clone(&view),
            store: store.clone(),
            fills,
            ufs: Arc::new(UfsTable::new(UfsContext::detached())),
            metadata: NodeMetadata::new(4 << 20, Arc::clone(&metrics)),
            metrics: Arc::clone(&metrics),
            asked: Asked::default(),
        };
        let server_metrics = Arc::new(ServerMetrics::new(&mut Registry::default()));
        let limits = ServerLimits::default();
        let server = BlockServer::start(endpoint, Arc::new(service), limits, server_metrics);
        Self {
            id,
            addr,
            view,
            metrics,
            store,
            server,
        }
    }

    fn peer(&self) -> Peer {
        Peer {
            id: self.id,
            addr: self.addr.clone(),
        }
    }
}

fn client(endpoint: quinn::Endpoint) -> BlockClient {
    let metrics = Arc::new(ClientMetrics::default());
    BlockClient::new(endpoint, BlockClientConfig::default(), metrics)
}

fn view(version: u64, nodes: &[&Node], mounts: &MountTable) -> Arc<ClusterView> {
    let member = |node: &&Node| Member {
        id: node.id,
        addr: node.addr.clone(),
        admin: String::new(),
        zone: String::new(),
        weight: 100,
        capacity: 64 << 20,
        state: MemberState::Active,
        incarnation: 1,
    };
    Arc::new(ClusterView {
        cluster: CLUSTER,
        version,
        epoch: Epoch(version),
        block_size: BlockSize::MIN,
        members: nodes.iter().map(member).collect(),
        mounts: mounts.clone(),
    })
}

/// One file in a directory, a client, and an authority for nodes.
struct World {
    dir: tempfile::TempDir,
    ca: ClusterCa,
    mounts: MountTable,
    client: BlockClient,
    data: Vec<u8>,
    ufs: Arc<dyn Ufs>,
    version: FileVersion,
}

const FILE: &str = "a file";

impl World {
    async fn new(blocks: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let len = blocks * BLOCK - 13;
        let data: Vec<u8> = (0..len).map(|i| (i * 7 / 3 % 253) as u8).collect();
        std::fs::write(dir.path().join(FILE), &data).unwrap();
        let uri = format!("file://{}", dir.path().display());
        let options = BTreeMap::new();
        let ufs = millpond_ufs::open(&uri, &options, UfsContext::detached());
        let ufs = ufs.await.unwrap();
        let ca = ClusterCa::create(&CLUSTER).unwrap();
        let identity = ca.issue(PeerRole::Client).unwrap();
        Self {
            client: client(quic::client_endpoint(&identity).unwrap()),
            mounts: MountTable::standalone(uri, BTreeMap::new()),
            version: ufs.stat(FILE).await.unwrap().version.unwrap(),
            dir,
            ca,
            data,
            ufs,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(FILE)
    }

    async fn node(&self, id: u64) -> Node {
        let store = StoreConfig::new(64 << 20, None, None);
        Node::start(&self.ca, id, &self.mounts, store).await
    }

    /// All of `nodes` serve from now on, and know it.
    fn see(&self, version: u64, nodes: &[&Node]) -> Ring {
        self.show(version, nodes, nodes)
    }

    /// `members` serve from now on; `nodes` know it.
    fn show(&self, version: u64, members: &[&Node], nodes: &[&Node]) -> Ring {
        let view = view(version, members, &self.mounts);
        for node in nodes {
            let ring = Arc::new(Ring::new(view.epoch, &view.members));
            assert!(node.view.advance(Arc::clone(&view), ring, Instant::now()));
        }
        Ring::new(view.epoch, &view.members)
    }

    fn block(&self, index: u64) -> BlockId {
        let size = self.data.len() as u64;
        let file = FileId::derive(&self.ufs.object_uri(FILE), &self.version, size);
        BlockId::new(file, index)
    }

    fn request(&self, op: Op, index: u64) -> Request {
        Request {
            op,
            epoch: Epoch(1),
            block: self.block(index),
            offset: 0,
            len: BlockSize::MIN.block_len(index, self.data.len() as u64),
            file_size: self.data.len() as u64,
            deadline_ms: 0,
            source: (op == Op::Read).then(|| BlockSource {
                mount: MountId(0),
                path: FILE.to_owned(),
                version: self.version.clone(),
            }),
            query: None,
        }
    }

    async fn ask(&self, node: &Node, request: &Request) -> Result<(Tier, Bytes), NetError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let answer = self
            .client
            .request(&node.peer(), request, deadline.into())
            .await?;
        let tier = answer.head.tier;
        assert_eq!(answer.head.epoch, node.view.load().epoch());
        Ok((tier, answer.read_data().await?.bytes))
    }

    async fn read(&self, node: &Node, index: u64) -> Result<Tier, NetError> {
        let (tier, bytes) = self.ask(node, &self.request(Op::Read, index)).await?;
        let from = (index * BLOCK) as usize;
        assert!(
            bytes[..] == self.data[from..][..bytes.len()],
            "block {index} is wrong"
        );
        Ok(tier)
    }

    async fn kind(&self, node: &Node, request: &Request) -> ErrorKind {
        self.ask(node, request).await.unwrap_err().kind()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joining_node_takes_blocks_over_instead_of_reading_the_ufs() {
    let world = World::new(40).await;
    let (one, two) = (world.node(1).await, world.node(2).await);
    // A node that joins sees the cluster without itself first.
    world.show(2, &[&one], &[&one, &two]);
    for index in 0..40 {
        assert_eq!(world.read(&one, index).await.unwrap(), Tier::Ufs);
    }
    let ring = world.see(3, &[&one, &two]);
    let moved: Vec<u64> = (0..40)
        .filter(|i| ring.owner(&world.block(*i)) == Some(two.id))
        .collect();
    assert!(!moved.is_empty());
    for &index in &moved {
        assert_eq!(world.read(&two, index).await.unwrap(), Tier::Peer);
        assert_eq!(world.read(&two, index).await.unwrap(), Tier::Memory);
    }
    assert_eq!(two.metrics.ufs_bytes.get(), 0);
    assert!(two.metrics.peer_bytes.get() > 0);
    assert_eq!(one.metrics.ufs_bytes.get(), world.data.len() as u64);
    // The previous owner gone: the UFS is still there.
    one.server.shutdown().await;
    let fresh = world.node(3).await;
    let nodes = [&two, &fresh];
    let ring = world.see(4, &nodes);
    for index in 0..40 {
        let owner = if ring.owner(&world.block(index)) == Some(two.id) {
            &two
        } else {
            &fresh
        };
        world.read(owner, index).await.unwrap();
    }
    two.server.shutdown().await;
    fresh.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_of_a_cold_block_cost_one_ufs_read() {
    let world = World::new(4).await;
    let node = world.node(1).await;
    world.see(2, &[&node]);
    let reads = (0..64).map(|i| world.read(&node, i % 4));
    for tier in futures::future::join_all(reads).await {
        assert!(matches!(tier.unwrap(), Tier::Ufs | Tier::Memory));
    }
    assert_eq!(node.metrics.ufs_reads.get(), 4);
    assert_eq!(node.metrics.ufs_bytes.get(), world.data.len() as u64);
    node.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operation_answers_as_the_frame_says() {
    let world = World::new(3).await;
    let node = world.node(1).await;
    world.see(2, &[&node]);
    // Peek and probe never fill.
    assert_eq!(
        world.kind(&node, &world.request(Op::Peek, 0)).await,
        ErrorKind::NotFound
    );
    let probe = Request {
        len: 0,
        ..world.request(Op::Probe, 0)
    };
    assert_eq!(world.ask(&node, &probe).await.unwrap().0, Tier::None);
    assert_eq!(node.metrics.ufs_reads.get(), 0);

    assert_eq!(world.read(&node, 0).await.unwrap(), Tier::Ufs);
    assert_eq!(world.ask(&node, &probe).await.unwrap().0, Tier::Memory);
    let part = Request {
        offset: 100,
        len: 1000,
        ..world.request(Op::Peek, 0)
    };
    let (tier, bytes) = world.ask(&node, &part).await.unwrap();
    assert_eq!((tier, &bytes[..]), (Tier::Memory, &world.data[100..1100]));

    let deadline = Instant::now() + Duration::from_secs(30);
    let stats = world
        .client
        .stats(&node.peer(), deadline.into())
        .await
        .unwrap();
    assert_eq!((stats.ufs_reads, stats.ufs_bytes), (1, BLOCK));
    assert_eq!(stats.memory_blocks, 1);
    node.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_do_not_fit_are_refused_and_store_nothing() {
    let world = World::new(3).await;
    let node = world.node(1).await;
    world.see(2, &[&node]);
    let good = world.request(Op::Read, 0);
    // Bytes of one object under the id of another.
    let mut forged = good.clone();
    forged.block.file = FileId([9; 16]);
    assert_eq!(world.kind(&node, &forged).await, ErrorKind::Invalid);
    let mut resized = good.clone();
    resized.file_size += 1;
    assert_eq!(world.kind(&node, &resized).await, ErrorKind::Invalid);
    let outside = Request {
        offset: 1,
        ..good.clone()
    };
    assert_eq!(world.kind(&node, &outside).await, ErrorKind::Invalid);
    let sourceless = Request {
        source: None,
        query: None,
        ..good.clone()
    };
    assert_eq!(world.kind(&node, &sourceless).await, ErrorKind::Invalid);
    // A mount that this node does not know is the node's lack, not the caller's mistake.
    let mut elsewhere = good.clone();
    elsewhere.source.as_mut().unwrap().mount = MountId(77);
    assert_eq!(world.kind(&node, &elsewhere).await, ErrorKind::Unavailable);
    assert_eq!(node.metrics.ufs_reads.get(), 0);
    node.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_file_is_stale_but_what_is_cached_stays_readable() {
    let world = World::new(3).await;
    let node = world.node(1).await;
    world.see(2, &[&node]);
    assert_eq!(world.read(&node, 0).await.unwrap(), Tier::Ufs);
    let other = world.dir.path().join("other");
    std::fs::write(&other, vec![b'x'; world.data.len()]).unwrap();
    std::fs::rename(&other, world.path()).unwrap();
    assert_eq!(world.read(&node, 0).await.unwrap(), Tier::Memory);
    assert_eq!(
        world.kind(&node, &world.request(Op::Read, 1)).await,
        ErrorKind::Stale
    );
    node.server.shutdown().await;
}

/// A disk whose reads wait while it hangs.
#[derive(Debug, Default)]
struct Hung {
    hangs: Mutex<bool>,
    changed: Condvar,
}

impl Hung {
    fn set(&self, hangs: bool) {
        *self.hangs.lock() = hangs;
        self.changed.notify_all();
    }
}

impl Faults for Hung {
    fn before(&self, op: FileOp, _: &Path) -> std::io::Result<()> {
        let mut hangs = self.hangs.lock();
        while *hangs && op == FileOp::Read {
            self.changed.wait(&mut hangs);
        }
        Ok(())
    }
}

/// Heals a disk when the test ends, whatever way: its threads would keep the runtime.
struct Heals(Arc<Hung>);

impl Drop for Heals {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_fails_no_read() {
    let world = World::new(6).await;
    let dir = tempfile::tempdir().unwrap();
    let disk = Heals(Arc::default());
    let mut config = StoreConfig::new(0, Some((dir.path().join("blocks"), 64 << 20)), None);
    config.disks[0].faults = Some(Arc::clone(&disk.0) as Arc<dyn Faults>);
    let node = Node::start(&world.ca, 1, &world.mounts, config).await;
    world.see(2, &[&node]);
    for index in 0..6 {
        assert_eq!(world.read(&node, index).await.unwrap(), Tier::Ufs);
    }
    node.store.flush().await;
    let from_disk = async {
        // Unless the machine is so busy that the disk seems to hang now.
        while world.read(&node, 0).await.unwrap() != Tier::Disk {}
    };
    assert!(tokio::time::timeout(PATIENCE, from_disk).await.is_ok());

    disk.0.set(true);
    let reads = (0..6).map(|index| world.read(&node, index));
    for tier in futures::future::join_all(reads).await {
        assert!(matches!(tier.unwrap(), Tier::Ufs | Tier::Memory));
    }
    let stats = node.metrics.node_stats(&node.store);
    assert_eq!((stats.disks_not_read, stats.errors), (1, 0));

    disk.0.set(false);
    let back = async {
        while world.read(&node, 0).await.unwrap() != Tier::Disk {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, back).await.is_ok());
    node.server.shutdown().await;
}
