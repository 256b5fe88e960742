//! A mixed tree through a real mount, three real nodes and real stores, byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    reason = "a test that cannot go on should fail; support is shared"
)]

#[path = "support/mmap.rs"]
mod mmap;
#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use millpond_bench::process_cluster::{
    Binaries, ClusterSpec, Metrics, Mount, Process, ProcessCluster, fuse_or_skip,
};
use millpond_s3_fixture::S3Fixture;

use tree::Tree;

const BLOCK: u64 = 256 << 10;

fn cluster() -> ProcessCluster {
    ProcessCluster::start(ClusterSpec {
        block_size: "256KiB".to_owned(),
        ..ClusterSpec::default()
    })
    .unwrap()
}

fn check(tree: &Tree, root: &Path) {
    tree.check_names(root);
    tree.check_sequentially(root);
    tree.check_at_random(root, 24, 7);
    tree.check_by_mmap(root, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_tree_reads_byte_for_byte_from_s3() {
    if !fuse_or_skip("a_mixed_tree_reads_byte_for_byte_from_s3") {
        return;
    }
    let s3 = S3Fixture::start().await;
    let tree = Tree::mixed(BLOCK);
    tree.put(&s3, "lake", "prefix/");
    let mut cluster = cluster();
    cluster
        .add_ufs("/data", "s3://lake/prefix", &s3.options())
        .unwrap();
    let mount = cluster.add_mount(&["--memory-limit", "96MiB"]).unwrap();
    check(&tree, &cluster.mount(mount).path().join("data"));
    cluster.shutdown().unwrap();
    s3.shutdown().await;
}

#[test]
fn a_mixed_tree_reads_byte_for_byte_from_a_local_directory() {
    if !fuse_or_skip("a_mixed_tree_reads_byte_for_byte_from_a_local_directory") {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let tree = Tree::mixed(BLOCK);
    tree.write(source.path());
    let mut cluster = cluster();
    let uri = format!("file://{}", source.path().display());
    cluster.add_ufs("/data", &uri, &BTreeMap::new()).unwrap();
    let mount = cluster.add_mount(&["--memory-limit", "96MiB"]).unwrap();
    check(&tree, &cluster.mount(mount).path().join("data"));
    cluster.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_mount_reads_byte_for_byte_and_caches_on_disk() {
    if !fuse_or_skip("a_standalone_mount_reads_byte_for_byte_and_caches_on_disk") {
        return;
    }
    let s3 = S3Fixture::start().await;
    let mut tree = Tree::mixed(BLOCK);
    tree.0.remove("sparse-1GiB");
    tree.put(&s3, "lake", "");
    let dir = tempfile::tempdir().unwrap();
    let (at, cache) = (dir.path().join("mnt"), dir.path().join("cache"));
    let mut flags = vec!["--cache-dir".to_owned(), cache.display().to_string()];
    flags.extend(["--cache-size", "256MiB", "--memory-limit", "48MiB"].map(str::to_owned));
    for (key, value) in s3.options() {
        flags.extend(["--option".to_owned(), format!("{key}={value}")]);
    }
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let binaries = Binaries::build().unwrap();
    let log = dir.path().join("log");
    let mut mount = Mount::standalone(&binaries, "s3://lake", &at, &log, &flags).unwrap();
    check(&tree, &at);
    mount.stop().unwrap();

    // A restart finds the local disk tier warm.
    s3.reset_counters();
    let mut mount = Mount::standalone(&binaries, "s3://lake", &at, &log, &flags).unwrap();
    tree.check_sequentially(&at);
    assert_eq!(s3.counters().get_bytes, 0, "{:?}", s3.fetches());
    mount.stop().unwrap();
    s3.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_cold_clients_cost_one_read_of_each_byte() {
    if !fuse_or_skip("four_cold_clients_cost_one_read_of_each_byte") {
        return;
    }
    let s3 = S3Fixture::start().await;
    let mut tree = Tree::mixed(BLOCK);
    tree.0.remove("sparse-1GiB");
    tree.0.extend(Tree::uniform(4, 12 << 20).0);
    tree.put(&s3, "lake", "");
    let mut cluster = cluster();
    cluster.add_ufs("/", "s3://lake", &s3.options()).unwrap();
    let roots: Vec<_> = (0..4)
        .map(|_| {
            let index = cluster.add_mount(&["--memory-limit", "64MiB"]).unwrap();
            cluster.mount(index).path().to_owned()
        })
        .collect();
    s3.reset_counters();
    let tree = Arc::new(tree);
    std::thread::scope(|scope| {
        for root in &roots {
            let tree = Arc::clone(&tree);
            scope.spawn(move || tree.check_sequentially(root));
        }
    });
    let fetched = s3.counters().get_bytes;
    let ratio = fetched as f64 / tree.bytes() as f64;
    println!("UFS bytes / unique bytes = {ratio:.4}");
    // The nodes fetch no byte twice. Clients go to the store themselves where a node is late, for
    // one request in twenty at most, and to compare the two while a node seems slow: on a machine
    // this busy both happen.
    let by_node = |node: &Process| {
        let metrics = Metrics::scrape(node.ready("admin")).unwrap();
        metrics.sum("millpond_node_ufs_read_bytes_total", &[])
    };
    let by_nodes: f64 = cluster.nodes().iter().map(by_node).sum();
    assert!(by_nodes > 0.8 * tree.bytes() as f64, "{by_nodes}");
    assert!(
        by_nodes as u64 <= tree.bytes(),
        "{by_nodes}: {:?}",
        twice(&s3)
    );
    assert!(fetched >= tree.bytes());
    assert!(ratio <= 1.1, "{:?}", twice(&s3));
    cluster.shutdown().unwrap();
    s3.shutdown().await;
}

/// Ranges that were fetched more than once, for the message.
fn twice(s3: &S3Fixture) -> Vec<(String, u64, u64, usize)> {
    let mut counts = BTreeMap::new();
    for fetch in s3.fetches() {
        *counts
            .entry((fetch.key, fetch.range.start, fetch.range.end))
            .or_insert(0) += 1;
    }
    let repeated = counts.into_iter().filter(|(_, count)| *count > 1);
    repeated
        .map(|((key, start, end), count)| (key, start, end, count))
        .take(20)
        .collect()
}
