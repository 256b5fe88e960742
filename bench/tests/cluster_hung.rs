//! Coordinator, nodes and store hang, all at once: what a mount knows it still answers, what it
//! cannot know ends with an error, and it can be taken away.
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

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use millpond_bench::process_cluster::{
    ClusterSpec, ProcessCluster, fuse_or_skip, is_mounted, unmount_lazily,
};
use millpond_s3_fixture::S3Fixture;

use tree::Tree;

/// Far beyond the deadline of a call: what takes longer hangs.
const HANGS: Duration = Duration::from_secs(120);

/// Takes the mount away should the test fail while a thread hangs in it.
struct Unmounts(PathBuf);

impl Drop for Unmounts {
    fn drop(&mut self) {
        unmount_lazily(&self.0);
    }
}

/// What `call` gives; fails if it hangs.
fn ends<T: Send + 'static>(what: &str, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(call()));
    let ended = receiver.recv_timeout(HANGS);
    ended.unwrap_or_else(|_| panic!("{what} hangs"))
}

fn df(dir: &Path) -> bool {
    Command::new("df")
        .arg(dir)
        .output()
        .unwrap()
        .status
        .success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_hangs_when_everything_else_does() {
    if !fuse_or_skip("nothing_hangs_when_everything_else_does") {
        return;
    }
    let s3 = S3Fixture::start().await;
    let tree = Tree::uniform(2, 1 << 20);
    tree.put(&s3, "lake", "");
    s3.put("lake", "unread", vec![7; 1 << 20]);
    let mut cluster = ProcessCluster::start(ClusterSpec {
        nodes: 2,
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster
        .add_ufs("/data", "s3://lake", &s3.options())
        .unwrap();
    let flags = ["--memory-limit", "64MiB", "--metadata", "immutable"];
    let mount = cluster.add_mount(&flags).unwrap();
    let top = cluster.mount(mount).path().to_owned();
    let root = top.join("data");
    let _unmounts = Unmounts(top.clone());
    tree.check_sequentially(&root);
    // The paths alone: an entry keeps its directory open.
    let names: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert_eq!(names.len(), 3);

    let store = s3.faults().hold(None);
    cluster.coordinator().freeze().unwrap();
    for node in cluster.nodes() {
        node.freeze().unwrap();
    }
    let dir = top.clone();
    assert!(ends("df", move || df(&dir)));
    let known: Vec<_> = names
        .into_iter()
        .chain([root.clone(), top.clone()])
        .collect();
    ends("stat of what is known", move || {
        for path in known {
            fs::metadata(&path).unwrap();
        }
    });
    let unread = root.join("unread");
    let read = ends("a read of what nobody can give", move || fs::read(unread));
    assert!(read.is_err());
    // Also after something failed.
    let dir = top.clone();
    assert!(ends("df", move || df(&dir)));

    let dir = top.clone();
    let unmounted = ends("unmount", move || {
        nix::mount::umount2(&dir, nix::mount::MntFlags::empty())
    });
    unmounted.unwrap();
    assert!(!is_mounted(&top));
    store.release();
    cluster.coordinator().resume().unwrap();
    for node in cluster.nodes() {
        node.resume().unwrap();
    }
    drop(cluster);
    s3.shutdown().await;
}
