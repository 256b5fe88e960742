//! Clients of real nodes that ask one store about paths: what that costs the store, and who
//! hears of changes.

use std::net::SocketAddr;

use futures::TryStreamExt as _;
use millpond_cache_node::fill::{FillLimits, Fills};
use millpond_cache_node::metadata::NodeMetadata;
use millpond_cache_node::metrics::NodeMetrics;
use millpond_cache_node::peers::PeerBlocks;
use millpond_cache_node::server::{Asked, NodeService};
use millpond_cache_node::ufs_table::UfsTable;
use millpond_cache_node::view::CurrentView;
use millpond_net::block_client::{BlockClient, BlockClientConfig};
use millpond_net::block_server::{BlockServer, ServerLimits};
use millpond_net::ca::ClusterCa;
use millpond_net::metrics::{ClientMetrics, ServerMetrics};
use millpond_net::quic;
use millpond_net::tls::PeerRole;
use millpond_proto::{
    ClusterId, ClusterView, Epoch, Mount, MountId, MountPath, MountTable, NodeId, Ring,
};
use millpond_s3_fixture::S3Fixture;
use millpond_store::{Store, StoreConfig};
use millpond_ufs::UfsContext;

use super::node::{BLOCK, fixed_view, member};
use super::*;
use crate::connect;

const CLUSTER: ClusterId = ClusterId([9; 16]);

/// A store, nodes, and an authority for their clients.
struct World {
    server: S3Fixture,
    ca: ClusterCa,
    mounts: MountTable,
    nodes: Vec<RealNode>,
}

struct RealNode {
    id: NodeId,
    addr: SocketAddr,
    server: Option<BlockServer>,
}

impl World {
    /// `count` nodes and a bucket mounted at `/data` with `options`.
    async fn new(count: u64, options: &[(&str, &str)]) -> Self {
        let server = S3Fixture::start().await;
        server.create_bucket("bucket");
        let mut all = server.options();
        all.extend(options.iter().map(|(k, v)| ((*k).into(), (*v).into())));
        let mut mounts = MountTable::default();
        let mount = Mount {
            id: MountId(1),
            path: MountPath::parse("/data").unwrap(),
            ufs: "s3://bucket".to_owned(),
            options: all,
        };
        mounts.add(mount).unwrap();
        let ca = ClusterCa::create(&CLUSTER).unwrap();
        let mut nodes = Vec::new();
        for id in 1..=count {
            nodes.push(RealNode::start(NodeId(id), &ca, &mounts).await);
        }
        Self {
            server,
            ca,
            mounts,
            nodes,
        }
    }

    async fn client(&self) -> FileSystem {
        let members = self.nodes.iter().map(|n| member(n.id, n.addr)).collect();
        let watch = fixed_view(CLUSTER, members, self.mounts.clone()).await;
        let identity = self.ca.issue(PeerRole::Client).unwrap();
        let registry = Mutex::new(Registry::default());
        let core = connect::join(small(), &identity, watch, &registry).await;
        FileSystem::of(core.unwrap())
    }

    async fn clients(&self, count: usize) -> Vec<FileSystem> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(self.client().await);
        }
        clients
    }
}

impl RealNode {
    async fn start(id: NodeId, ca: &ClusterCa, mounts: &MountTable) -> Self {
        let identity = ca.issue(PeerRole::Node(id)).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = quic::server_endpoint(any, &identity).unwrap();
        let addr = endpoint.local_addr().unwrap();
        let view = ClusterView {
            cluster: CLUSTER,
            version: 1,
            epoch: Epoch(1),
            block_size: BlockSize::new(BLOCK).unwrap(),
            members: Vec::new(),
            mounts: mounts.clone(),
        };
        let ring = Arc::new(Ring::new(view.epoch, &view.members));
        let view = Arc::new(CurrentView::new(Arc::new(view), ring));
        let store = Store::open(StoreConfig::new(8 << 20, None, None))
            .await
            .unwrap();
        let metrics = NodeMetrics::new(&mut Registry::default());
        let peers = BlockClient::new(
            endpoint.clone(),
            BlockClientConfig::default(),
            Arc::new(ClientMetrics::default()),
        );
        let fills = Fills::new(
            store.clone(),
            Arc::new(PeerBlocks::new(peers, Arc::clone(&view))),
            FillLimits::for_memory(8 << 20),
            Arc::clone(&metrics),
        );
        let service = NodeService {
            me: id,
            view,
            store,
            fills,
            ufs: Arc::new(UfsTable::new(UfsContext::detached())),
            metadata: NodeMetadata::new(4 << 20, Arc::clone(&metrics)),
            asked: Asked::default(),
            metrics,
        };
        let limits = ServerLimits {
            drain_timeout: Duration::from_millis(10),
            ..ServerLimits::default()
        };
        let server_metrics = Arc::new(ServerMetrics::new(&mut Registry::default()));
        let server = BlockServer::start(endpoint, Arc::new(service), limits, server_metrics);
        Self {
            id,
            addr,
            server: Some(server),
        }
    }
}

async fn names(fs: &FileSystem, path: &str) -> Vec<String> {
    let pages: Vec<_> = fs.list(path).try_collect().await.unwrap();
    let entries = pages.into_iter().flatten();
    entries.map(|entry| entry.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_that_stat_the_same_files_cost_one_question_each() {
    const FILES: u64 = 400;
    let world = World::new(2, &[("metadata_ttl", "1h")]).await;
    for i in 0..FILES {
        world
            .server
            .put("bucket", &format!("d/f{i:03}"), vec![b'x'; i as usize]);
    }
    let clients = world.clients(10).await;
    world.server.reset_counters();
    let all = clients.iter().enumerate().map(|(at, fs)| async move {
        for i in 0..FILES {
            // Some in step with one another, some not.
            let i = (i + at as u64 / 2 * 37) % FILES;
            let attr = fs.stat(&format!("/data/d/f{i:03}")).await.unwrap();
            assert_eq!(attr.size, i);
        }
        let absent = fs.look_up("/data/d/none").await.unwrap();
        assert!(absent.attr.is_none());
    });
    futures::future::join_all(all).await;
    let asked = world.server.counters();
    let most = (FILES + 1) * 105 / 100;
    assert!(asked.requests <= most, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_listing_is_fetched_once_for_all_clients() {
    let world = World::new(2, &[("metadata_ttl", "1h")]).await;
    for i in 0..2500 {
        world.server.put("bucket", &format!("d/f{i:04}"), "x");
    }
    let clients = world.clients(6).await;
    world.server.reset_counters();
    let lists = clients.iter().map(|fs| names(fs, "/data/d"));
    let expected: Vec<String> = (0..2500).map(|i| format!("f{i:04}")).collect();
    for listed in futures::future::join_all(lists).await {
        assert!(listed == expected, "{} entries", listed.len());
    }
    assert_eq!(world.server.counters().requests, 3);
    for fs in &clients {
        assert_eq!(fs.stat("/data/d/f0007").await.unwrap().size, 1);
        assert!(fs.is_known_absent("/data/d/none"));
    }
    // One who comes later, too.
    assert_eq!(names(&world.client().await, "/data/d").await, expected);
    assert_eq!(world.server.counters().requests, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ages_add_up() {
    let world = World::new(1, &[("metadata_ttl", "1h")]).await;
    world.server.put("bucket", "f", "x");
    let clients = world.clients(2).await;
    let hour = Duration::from_secs(3600);
    let first = clients[0].look_up("/data/f").await.unwrap();
    assert!(first.valid <= hour);
    let pause = Duration::from_millis(60);
    tokio::time::sleep(pause).await;
    let second = clients[1].look_up("/data/f").await.unwrap();
    assert!(second.valid <= hour - pause, "{:?}", second.valid);
    assert!(second.valid > hour / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_through_one_client_is_seen_by_the_others() {
    let world = World::new(2, &[("metadata", "immutable")]).await;
    world.server.put("bucket", "d/f", "old");
    let clients = world.clients(3).await;
    for fs in &clients {
        assert_eq!(fs.stat("/data/d/f").await.unwrap().size, 3);
        assert_eq!(names(fs, "/data/d").await, ["f"]);
        assert!(fs.is_known_absent("/data/d/g"));
    }
    let mut changes: Vec<_> = clients.iter().map(FileSystem::changes).collect();
    // Each must follow a node before the change, to hear of it and not only of a gap.
    for fs in &clients {
        wait_for("a node to be followed", || fs.hears_changes()).await;
    }
    world.server.put("bucket", "d/f", "newer");
    world.server.put("bucket", "d/g", "1");
    for fs in &clients {
        assert_eq!(fs.stat("/data/d/f").await.unwrap().size, 3, "immutable");
    }
    let refreshed = clients[0].refresh("/data/d", true).await.unwrap();
    assert_eq!(refreshed.told.len(), 2);
    assert_eq!(refreshed.silent, []);
    for (fs, changes) in clients.iter().zip(&mut changes) {
        let next = tokio::time::timeout(Duration::from_secs(20), changes.next());
        let change = next.await.expect("it is pushed").unwrap();
        assert!(change.concerns("/data/d/f") && change.recursive);
        assert_eq!(fs.stat("/data/d/f").await.unwrap().size, 5);
        assert_eq!(names(fs, "/data/d").await, ["f", "g"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_finds_its_file_changed_makes_it_known() {
    let world = World::new(2, &[("metadata", "immutable")]).await;
    world.server.put("bucket", "f", "old content");
    let clients = world.clients(2).await;
    let file = clients[0].open("/data/f").await.unwrap();
    clients[1].stat("/data/f").await.unwrap();
    wait_for("a node to be followed", || clients[1].hears_changes()).await;
    let mut changes = clients[1].changes();
    world.server.put("bucket", "f", "new and longer content");
    let error = file.read(0, 100).await.unwrap_err();
    assert_eq!(error.kind(), millpond_proto::ErrorKind::Stale);
    let again = clients[0].open("/data/f").await.unwrap();
    assert_eq!(again.read(0, 100).await.unwrap(), "new and longer content");
    let next = tokio::time::timeout(Duration::from_secs(20), changes.next());
    assert_eq!(next.await.expect("it is pushed").unwrap().path, "/data/f");
    assert_eq!(clients[1].stat("/data/f").await.unwrap().size, 22);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_gone_cost_no_error() {
    let mut world = World::new(2, &[]).await;
    for i in 0..1500 {
        world.server.put("bucket", &format!("d/f{i:04}"), "x");
    }
    let fs = world.client().await;
    let mut pages = fs.pages("/data/d");
    let first = pages.try_next().await.unwrap().unwrap();
    for node in &mut world.nodes {
        node.server.take().unwrap().shutdown().await;
    }
    // In the middle of a listing, and from its start.
    let rest: Vec<_> = pages.try_collect().await.unwrap();
    let rest = rest.iter().map(|page| page.entries().len());
    assert_eq!(first.entries().len() + rest.sum::<usize>(), 1500);
    assert_eq!(fs.stat("/data/d/f0001").await.unwrap().size, 1);
    assert_eq!(names(&fs, "/data").await, ["d"]);
    let refreshed = fs.refresh("/data", true).await.unwrap();
    assert_eq!(refreshed.silent.len(), 2);
}

#[tokio::test]
async fn a_strict_mount_asks_the_store_itself() {
    let world = World::new(1, &[("metadata", "strict")]).await;
    let clients = world.clients(2).await;
    for size in 1..4 {
        world.server.put("bucket", "f", vec![b'x'; size]);
        for fs in &clients {
            assert_eq!(fs.stat("/data/f").await.unwrap().size, size as u64);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_through_one_client_are_seen_by_the_others() {
    let world = World::new(2, &[("metadata", "immutable")]).await;
    world.server.put("bucket", "d/old", "x");
    let clients = world.clients(2).await;
    let (one, other) = (&clients[0], &clients[1]);
    assert_eq!(names(other, "/data/d").await, ["old"]);
    wait_for("a node to be followed", || other.hears_changes()).await;
    let none = crate::Attributes::default();
    one.mkdir("/data/d/new", &none).await.unwrap();
    let (from, to) = ("/data/d/old", "/data/d/new/moved");
    let renamed = one.rename(from, to, crate::RenameMode::Replace).await;
    renamed.unwrap();
    let writer = one.create("/data/d/file", none, true).await.unwrap();
    let written = writer.write(0, bytes::Bytes::from_static(b"y")).await;
    written.unwrap();
    writer.close().await.unwrap();
    assert_eq!(names(one, "/data/d").await, ["file", "new"]);
    for attempt in 0.. {
        let seen = names(other, "/data/d").await;
        if seen == ["file", "new"] {
            break;
        }
        assert!(attempt < 1000, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(names(other, "/data/d/new").await, ["moved"]);
    assert!(other.stat(from).await.is_err());
}
