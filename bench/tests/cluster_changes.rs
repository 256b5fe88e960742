//! Mounts and nodes come and go in running clients.
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

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use millpond_bench::process_cluster::{
    ClusterSpec, Metrics, ProcessCluster, fuse_or_skip, http_get, wait_until,
};
use millpond_s3_fixture::S3Fixture;

use readers::{Readers, read_all};
use tree::Tree;

const SEEN_WITHIN: Duration = Duration::from_secs(20);

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[test]
fn mounts_appear_nest_and_disappear_in_a_running_client() {
    if !fuse_or_skip("mounts_appear_nest_and_disappear_in_a_running_client") {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    for name in ["root", "outer", "inner"] {
        std::fs::create_dir(source.path().join(name)).unwrap();
        std::fs::write(source.path().join(name).join("file"), name).unwrap();
    }
    let mut cluster = ProcessCluster::start(ClusterSpec {
        nodes: 1,
        ..ClusterSpec::default()
    })
    .unwrap();
    let mount = cluster.add_mount(&["--metadata-ttl", "100ms"]).unwrap();
    let root = cluster.mount(mount).path().to_owned();
    let uri = |name: &str| format!("file://{}/{name}", source.path().display());
    let seen = |path: &str, text: Option<&str>| {
        wait_until(SEEN_WITHIN, || read(&root.join(path)).as_deref() == text)
            .unwrap_or_else(|_| panic!("{path} is {:?}, not {text:?}", read(&root.join(path))));
    };
    let none = BTreeMap::new();

    cluster.add_ufs("/a/b", &uri("outer"), &none).unwrap();
    seen("a/b/file", Some("outer"));
    cluster.add_ufs("/a/b/c", &uri("inner"), &none).unwrap();
    seen("a/b/c/file", Some("inner"));
    cluster.add_ufs("/", &uri("root"), &none).unwrap();
    seen("file", Some("root"));
    seen("a/b/file", Some("outer"));
    let listed = cluster
        .coordinated(&["mounts", "ls", "-o", "json"])
        .unwrap();
    assert!(
        listed.contains("/a/b/c") && listed.contains("inner"),
        "{listed}"
    );

    cluster.coordinated(&["mounts", "rm", "/a/b"]).unwrap();
    seen("a/b/file", None);
    seen("a/b/c/file", Some("inner"));
    cluster.coordinated(&["mounts", "rm", "/a/b/c"]).unwrap();
    seen("a/b/c/file", None);
    seen("file", Some("root"));
    cluster.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_and_leave_under_readers() {
    if !fuse_or_skip("nodes_join_and_leave_under_readers") {
        return;
    }
    let s3 = S3Fixture::start().await;
    let tree = Tree::uniform(4, 6 << 20);
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
    read_all(&root, &tree);
    let readers = Readers::start(&root, &tree, 2);
    readers.go_on_for(50, "one node");
    cluster.add_node().unwrap();
    cluster.add_node().unwrap();
    cluster.wait_active_nodes(3, SEEN_WITHIN).unwrap();
    readers.go_on_for(100, "three nodes");
    cluster
        .node(0)
        .stop_if_running(Duration::from_secs(20))
        .unwrap();
    cluster.wait_active_nodes(2, SEEN_WITHIN).unwrap();
    readers.go_on_for(100, "the first has left");
    readers.stop();
    cluster.shutdown().unwrap();
    s3.shutdown().await;
}

#[test]
fn every_process_tells_its_health_and_metrics() {
    if !fuse_or_skip("every_process_tells_its_health_and_metrics") {
        return;
    }
    let mut cluster = ProcessCluster::start(ClusterSpec {
        nodes: 1,
        ..ClusterSpec::default()
    })
    .unwrap();
    let mount = cluster.add_mount(&[]).unwrap();
    let endpoints = [
        (
            "millpond_coordinator_",
            cluster.coordinator().ready("admin").to_owned(),
        ),
        ("millpond_node_", cluster.node(0).ready("admin").to_owned()),
        (
            "millpond_client_",
            cluster.mount(mount).process().ready("admin").to_owned(),
        ),
        (
            "millpond_fuse_",
            cluster.mount(mount).process().ready("admin").to_owned(),
        ),
    ];
    for (prefix, admin) in endpoints {
        assert_eq!(http_get(&admin, "/healthz").unwrap().0, 200, "{prefix}");
        wait_until(SEEN_WITHIN, || {
            http_get(&admin, "/readyz").is_ok_and(|reply| reply.0 == 200)
        })
        .unwrap_or_else(|_| panic!("{prefix}: {:?}", http_get(&admin, "/readyz")));
        let metrics = Metrics::scrape(&admin).unwrap();
        let ours = metrics.names().iter().any(|name| name.starts_with(prefix));
        assert!(ours, "{prefix}: {:?}", metrics.names());
    }
    cluster.shutdown().unwrap();
}
