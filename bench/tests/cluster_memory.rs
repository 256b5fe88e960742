//! Memory limits hold, whatever is read.
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

use millpond_bench::process_cluster::{ClusterSpec, ProcessCluster, fuse_or_skip, peak_rss};
use millpond_s3_fixture::S3Fixture;

use tree::Tree;

const MIB: u64 = 1 << 20;
/// What each process is given.
const LIMIT: u64 = 256 * MIB;
/// What a mount and a node may use beyond it, as `docs/OPERATIONS.md` states it.
const MOUNT_BEYOND: u64 = 64 * MIB;
const NODE_BEYOND: u64 = 96 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_8_gib_keeps_mount_and_node_under_their_limits() {
    if !fuse_or_skip("reading_8_gib_keeps_mount_and_node_under_their_limits") {
        return;
    }
    let s3 = S3Fixture::start().await;
    let tree = Tree::uniform(8, 1 << 30);
    tree.put(&s3, "lake", "");
    let mut cluster = ProcessCluster::start(ClusterSpec {
        nodes: 1,
        block_size: "4MiB".to_owned(),
        node_memory: "256MiB".to_owned(),
        node_disk: "512MiB".to_owned(),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster
        .add_ufs("/data", "s3://lake", &s3.options())
        .unwrap();
    let mount = cluster.add_mount(&["--memory-limit", "256MiB"]).unwrap();
    let root = cluster.mount(mount).path().join("data");
    std::thread::scope(|scope| {
        // Two readers at once, each of one half.
        let mut first = tree.clone();
        let second = Tree(first.0.split_off("part-004"));
        let root = &root;
        scope.spawn(move || first.check_sequentially(root));
        scope.spawn(move || second.check_sequentially(root));
    });
    for (name, pid, beyond) in [
        ("mount", cluster.mount(mount).process().pid(), MOUNT_BEYOND),
        ("node", cluster.node(0).pid(), NODE_BEYOND),
    ] {
        let peak = peak_rss(pid).unwrap();
        println!("{name}: peak {} MiB of {} MiB", peak / MIB, LIMIT / MIB);
        assert!(
            peak <= LIMIT + beyond,
            "{name} used {} MiB, its limit is {} MiB and {} MiB for itself",
            peak / MIB,
            LIMIT / MIB,
            beyond / MIB
        );
    }
    let blocks = cluster.dir().join("node-0").join("blocks");
    let used = disk_use(&blocks);
    println!("node: {} MiB of 512 MiB on disk", used / MIB);
    assert!(
        used > 0 && used <= 512 * MIB,
        "{used} bytes in {}",
        blocks.display()
    );
    cluster.shutdown().unwrap();
    s3.shutdown().await;
}

fn disk_use(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_use(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
