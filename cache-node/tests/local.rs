//! A node and a client on one host: what the tiers hold comes through the Unix socket.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus_client::registry::Registry;

use millpond_cache_node::fill::{FillLimits, Fills};
use millpond_cache_node::metadata::NodeMetadata;
use millpond_cache_node::metrics::NodeMetrics;
use millpond_cache_node::peers::PeerBlocks;
use millpond_cache_node::server::{Asked, NodeService};
use millpond_cache_node::ufs_table::UfsTable;
use millpond_cache_node::view::CurrentView;
use millpond_net::block_client::{BlockClient, BlockClientConfig, Peer};
use millpond_net::block_server::{BlockServer, LocalSocket, ServerLimits};
use millpond_net::ca::ClusterCa;
use millpond_net::metrics::{ClientMetrics, ServerMetrics, Transport, TransportLabels};
use millpond_net::quic;
use millpond_net::tls::PeerRole;
use millpond_proto::wire::frame::{Op, Request, Tier};
use millpond_proto::{
    BlockId, BlockSize, ClusterId, ClusterView, Epoch, FileId, MountTable, NodeId, Ring,
};
use millpond_store::{Block, Store, StoreConfig};
use millpond_ufs::UfsContext;

const BLOCK: usize = 1 << 20;
const NODE: NodeId = NodeId(1);

struct World {
    peer: Peer,
    store: Store,
    client: BlockClient,
    metrics: Arc<ClientMetrics>,
    server: BlockServer,
    dir: tempfile::TempDir,
}

impl World {
    /// A node with these tiers, and a client that has its socket.
    async fn new(memory: u64, disk: u64) -> Self {
        let ca = ClusterCa::create(&ClusterId([5; 16])).unwrap();
        let identity = ca.issue(PeerRole::Node(NODE)).unwrap();
        let endpoint = quic::server_endpoint("127.0.0.1:0".parse().unwrap(), &identity).unwrap();
        let addr = endpoint.local_addr().unwrap().to_string();
        let dir = tempfile::tempdir().unwrap();
        let disk = (disk > 0).then(|| (dir.path().to_owned(), disk));
        let store = Store::open(StoreConfig::new(memory, disk, None))
            .await
            .unwrap();
        let service = service(store.clone(), endpoint.clone());
        let server = BlockServer::start_with(
            endpoint,
            Some(LocalSocket::bind(NODE, Vec::new()).unwrap()),
            Arc::new(service),
            ServerLimits::default(),
            Arc::new(ServerMetrics::default()),
        );
        let endpoint = quic::client_endpoint(&ca.issue(PeerRole::Client).unwrap()).unwrap();
        let metrics = Arc::new(ClientMetrics::default());
        let config = BlockClientConfig {
            local: true,
            ..BlockClientConfig::default()
        };
        Self {
            peer: Peer { id: NODE, addr },
            store,
            client: BlockClient::new(endpoint, config, Arc::clone(&metrics)),
            metrics,
            server,
            dir,
        }
    }

    async fn insert(&self, index: u64) {
        let block = Block::new(content(index));
        self.store.insert(id(index), block).await;
        self.store.flush().await;
    }

    /// Peeks at a range of a block; the tier that it came from.
    async fn peek(&self, index: u64, offset: u32, len: u32) -> Option<Tier> {
        let request = Request {
            op: Op::Peek,
            epoch: Epoch(1),
            block: id(index),
            offset,
            len,
            file_size: 1 << 40,
            deadline_ms: 0,
            source: None,
            query: None,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let asked = self
            .client
            .request(&self.peer, &request, deadline.into())
            .await;
        let response = asked.ok()?;
        let tier = response.head.tier;
        let data = response.read_data().await.unwrap();
        let end = (offset + len) as usize;
        assert!(data.bytes == content(index).slice(offset as usize..end));
        Some(tier)
    }

    /// Peeks until bytes come by this way.
    async fn peek_until(&self, index: u64, transport: Transport) -> Tier {
        let before = self.bytes(transport);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let tier = self.peek(index, 0, BLOCK as u32).await.unwrap();
            if self.bytes(transport) > before {
                return tier;
            }
            assert!(Instant::now() < deadline, "nothing comes by {transport:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn bytes(&self, transport: Transport) -> u64 {
        let labels = TransportLabels { transport };
        self.metrics.read_bytes.get_or_create(&labels).get()
    }

    fn file(&self, index: u64) -> PathBuf {
        let name = id(index).to_string();
        Path::new(self.dir.path()).join("07/07").join(name)
    }
}

fn id(index: u64) -> BlockId {
    BlockId::new(FileId([7; 16]), index)
}

fn content(index: u64) -> Bytes {
    (0..BLOCK as u64)
        .map(|i| (((i + index) * 31) >> 5) as u8)
        .collect()
}

fn service(store: Store, endpoint: quinn::Endpoint) -> NodeService {
    let first = Arc::new(ClusterView {
        cluster: ClusterId([5; 16]),
        version: 1,
        epoch: Epoch(1),
        block_size: BlockSize::new(BLOCK as u64).unwrap(),
        members: Vec::new(),
        mounts: MountTable::default(),
    });
    let ring = Arc::new(Ring::new(first.epoch, &first.members));
    let view = Arc::new(CurrentView::new(first, ring));
    let metrics = NodeMetrics::new(&mut Registry::default());
    let config = BlockClientConfig::default();
    let peers = BlockClient::new(endpoint, config, Arc::default());
    NodeService {
        me: NODE,
        view: Arc::clone(&view),
        store: store.clone(),
        fills: Fills::new(
            store,
            Arc::new(PeerBlocks::new(peers, view)),
            FillLimits::for_memory(16 << 20),
            Arc::clone(&metrics),
        ),
        ufs: Arc::new(UfsTable::new(UfsContext::detached())),
        metadata: NodeMetadata::new(4 << 20, Arc::clone(&metrics)),
        metrics,
        asked: Asked::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_on_disk_come_as_files_and_blocks_in_memory_as_bytes() {
    let world = World::new(16 << 20, 64 << 20).await;
    world.insert(0).await;
    assert_eq!(world.peek_until(0, Transport::Descriptor).await, Tier::Disk);
    for offset in (0..BLOCK as u32 - 5000).step_by(33_333) {
        assert!(world.peek(0, offset, 5000).await.is_some());
    }
    assert_eq!(world.peek(1, 0, 10).await, None, "it is not here");
    // The range ends behind the block.
    assert_eq!(world.peek(0, BLOCK as u32 - 5, 10).await, None);

    let world = World::new(16 << 20, 0).await;
    world.insert(0).await;
    assert_eq!(world.peek_until(0, Transport::Socket).await, Tier::Memory);
    world.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evicted_blocks_are_read_to_the_end_and_then_not_found() {
    let world = World::new(0, 4 << 20).await;
    world.insert(0).await;
    world.peek_until(0, Transport::Descriptor).await;
    world.store.remove(&id(0)).await;
    assert!(!world.file(0).exists());
    // By the descriptor, until that is closed.
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.peek(0, 300_000, 200_000).await.is_some() {
        assert!(Instant::now() < deadline, "never closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.metrics.descriptors.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_a_client_finds_damaged_is_dropped_by_the_node() {
    let world = World::new(16 << 20, 64 << 20).await;
    world.insert(0).await;
    world.peek_until(0, Transport::Descriptor).await;
    let file = std::fs::File::options()
        .write(true)
        .open(world.file(0))
        .unwrap();
    file.write_all_at(b"rotten", 400_000).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.store.stats().corrupt == 0 {
        assert!(Instant::now() < deadline, "never dropped");
        // From memory, for the file is wrong.
        assert!(world.peek(0, 390_000, 100_000).await.is_some());
    }
    assert_eq!(world.store.stats().disk_blocks, 0);
    assert!(world.metrics.corrupt_pages.get() > 0);
    assert!(world.peek(0, 0, BLOCK as u32).await.is_some());
}
