//! Nodes and coordinator killed, frozen and restarted in the middle of reads: no error, no
//! wrong byte, and the cluster heals.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    reason = "a test that cannot go on should fail; support is shared"
)]

#[path = "support/mmap.rs"]
mod mmap;
#[path = "support/readers.rs"]
mod readers;
#[path = "support/tree.rs"]
mod tree;

use std::path::{Path, PathBuf};
use std::time::Duration;

use millpond_bench::process_cluster::{
    ClusterSpec, Process, ProcessCluster, fuse_or_skip, wait_until,
};
use millpond_s3_fixture::S3Fixture;

use readers::{Readers, read_all};
use tree::Tree;

const NODES: usize = 3;
const HEALS_WITHIN: Duration = Duration::from_secs(60);

/// A cluster over S3 with readers at work.
struct Scene {
    s3: S3Fixture,
    tree: Tree,
    cluster: ProcessCluster,
    root: PathBuf,
    readers: Readers,
}

impl Scene {
    async fn start() -> Self {
        let s3 = S3Fixture::start().await;
        let tree = Tree::uniform(6, 12 << 20);
        tree.put(&s3, "lake", "");
        let mut cluster = ProcessCluster::start(ClusterSpec {
            nodes: NODES,
            ..ClusterSpec::default()
        })
        .unwrap();
        cluster
            .add_ufs("/data", "s3://lake", &s3.options())
            .unwrap();
        // Little memory, so that reads go to the nodes.
        let mount = cluster.add_mount(&["--memory-limit", "48MiB"]).unwrap();
        let root = cluster.mount(mount).path().join("data");
        let readers = Readers::start(&root, &tree, 4);
        readers.go_on_for(60, "cold");
        Self {
            s3,
            tree,
            cluster,
            root,
            readers,
        }
    }

    /// The readers end; then the cluster is whole and the store is not asked any more.
    async fn heal_and_stop(self) {
        let Self {
            s3,
            tree,
            cluster,
            root,
            readers,
        } = self;
        cluster.wait_active_nodes(NODES, HEALS_WITHIN).unwrap();
        readers.go_on_for(60, "healed");
        readers.stop();
        wait_served_by_nodes(&s3, &root, &tree);
        cluster.shutdown().unwrap();
        s3.shutdown().await;
    }
}

fn wait_served_by_nodes(s3: &S3Fixture, root: &Path, tree: &Tree) {
    let mut fetched = Vec::new();
    wait_until(HEALS_WITHIN, || {
        let before = s3.counters().get_bytes;
        read_all(root, tree);
        fetched.push(s3.counters().get_bytes - before);
        fetched.last() == Some(&0)
    })
    .unwrap_or_else(|_| panic!("the store is still asked, per pass: {fetched:?}"));
}

fn freeze_all(nodes: &mut [Process]) {
    nodes.iter().for_each(|node| node.freeze().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_may_die_hang_and_come_back() {
    if !fuse_or_skip("one_node_may_die_hang_and_come_back") {
        return;
    }
    let mut scene = Scene::start().await;
    scene.cluster.node(1).kill9();
    scene.readers.go_on_for(200, "one node killed");
    scene
        .cluster
        .wait_active_nodes(NODES - 1, HEALS_WITHIN)
        .unwrap();
    scene.readers.go_on_for(60, "one node declared dead");
    scene.cluster.node(1).restart().unwrap();
    scene.readers.go_on_for(60, "it is back");
    scene
        .cluster
        .wait_active_nodes(NODES, HEALS_WITHIN)
        .unwrap();

    scene.cluster.node(2).freeze().unwrap();
    scene.readers.go_on_for(200, "one node frozen");
    scene.cluster.node(2).resume().unwrap();
    scene.readers.go_on_for(60, "it is resumed");
    scene
        .cluster
        .wait_active_nodes(NODES, HEALS_WITHIN)
        .unwrap();

    // Too short for anyone to notice the death.
    scene.cluster.node(0).restart().unwrap();
    scene.readers.go_on_for(60, "one node restarted at once");
    scene.heal_and_stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_may_die_hang_and_come_back() {
    if !fuse_or_skip("all_nodes_may_die_hang_and_come_back") {
        return;
    }
    let mut scene = Scene::start().await;
    scene.cluster.nodes().iter_mut().for_each(Process::kill9);
    scene.readers.go_on_for(200, "all nodes killed");
    scene
        .cluster
        .nodes()
        .iter_mut()
        .for_each(|node| node.restart().unwrap());
    scene
        .cluster
        .wait_active_nodes(NODES, HEALS_WITHIN)
        .unwrap();
    scene.readers.go_on_for(60, "all nodes are back");

    freeze_all(scene.cluster.nodes());
    scene.readers.go_on_for(100, "all nodes frozen");
    scene
        .cluster
        .nodes()
        .iter()
        .for_each(|node| node.resume().unwrap());
    scene.heal_and_stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_may_die_hang_and_come_back() {
    if !fuse_or_skip("the_coordinator_may_die_hang_and_come_back") {
        return;
    }
    let mut scene = Scene::start().await;
    scene.cluster.coordinator().kill9();
    scene.readers.go_on_for(200, "coordinator killed");
    // A node may even be lost meanwhile.
    scene.cluster.node(0).kill9();
    scene
        .readers
        .go_on_for(100, "coordinator and a node killed");
    scene.cluster.coordinator().restart().unwrap();
    scene.cluster.node(0).restart().unwrap();
    scene
        .cluster
        .wait_active_nodes(NODES, HEALS_WITHIN)
        .unwrap();
    scene.readers.go_on_for(60, "both are back");

    scene.cluster.coordinator().freeze().unwrap();
    scene.readers.go_on_for(200, "coordinator frozen");
    scene.cluster.coordinator().resume().unwrap();
    scene.heal_and_stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_starts_from_its_last_view_when_no_coordinator_answers() {
    let name = "a_client_starts_from_its_last_view_when_no_coordinator_answers";
    if !fuse_or_skip(name) {
        return;
    }
    let s3 = S3Fixture::start().await;
    let tree = Tree::uniform(2, 1 << 20);
    tree.put(&s3, "lake", "");
    let mut cluster = ProcessCluster::start(ClusterSpec {
        nodes: 1,
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster
        .add_ufs("/data", "s3://lake", &s3.options())
        .unwrap();
    let mount = cluster.add_mount(&["--memory-limit", "48MiB"]).unwrap();
    let root = cluster.mount(mount).path().join("data");
    tree.check_sequentially(&root);
    cluster.mount(mount).stop().unwrap();
    cluster.coordinator().kill9();
    cluster.mount(mount).process().restart().unwrap();
    s3.reset_counters();
    tree.check_sequentially(&root);
    assert_eq!(s3.counters().get_bytes, 0, "the node has it all");
    cluster.shutdown().unwrap();
    s3.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flaky_store_is_invisible_to_readers() {
    if !fuse_or_skip("a_flaky_store_is_invisible_to_readers") {
        return;
    }
    let s3 = S3Fixture::start().await;
    let tree = Tree::uniform(2, 6 << 20);
    tree.put(&s3, "lake", "");
    let mut cluster = ProcessCluster::start(ClusterSpec {
        nodes: 2,
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster
        .add_ufs("/data", "s3://lake", &s3.options())
        .unwrap();
    let mount = cluster.add_mount(&["--memory-limit", "48MiB"]).unwrap();
    let root = cluster.mount(mount).path().join("data");
    s3.faults()
        .fail_next_of(millpond_s3_fixture::Op::Get, 5, 503);
    s3.faults().cut_next(5, 100_000);
    s3.faults().wrong_etag_next(2);
    tree.check_sequentially(&root);
    assert!(s3.counters().errors_injected >= 10, "{:?}", s3.counters());
    cluster.shutdown().unwrap();
    s3.shutdown().await;
}
