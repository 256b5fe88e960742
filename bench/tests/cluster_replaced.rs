//! Objects that change while they are read: the old version or ESTALE, never a mix; the next
//! open has the new one.
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
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond_bench::process_cluster::{ClusterSpec, ProcessCluster, fuse_or_skip, wait_until};
use millpond_s3_fixture::{Content, S3Fixture};

use tree::{check_file, write_file};

/// The mounts here believe metadata for so long.
const TTL: &str = "100ms";
/// By then an open must have the new version: the TTL, and time for a loaded machine.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

fn version(n: u64, size: u64) -> Content {
    Content::Generated {
        size,
        seed: 5_000 + n,
    }
}

/// Replaces the object by another version.
type Replace<'a> = dyn Fn(&Content) + Sync + 'a;

/// Reads half, replaces, reads the rest: all of it old, or ESTALE; then a new open is new.
fn replace_while_open(path: &Path, old: &Content, new: &Content, replace: &Replace<'_>) {
    replace(old);
    wait_until(SEEN_WITHIN, || starts_with(path, old)).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .unwrap();
    let mut buffer = vec![0; 128 << 10];
    let mut at = 0;
    let mut replaced = false;
    while at < old.len() {
        if at >= old.len() / 2 && !replaced {
            replace(new);
            replaced = true;
        }
        match file.read_at(&mut buffer, at) {
            Ok(0) => panic!("the file ends at {at} of {}", old.len()),
            Ok(n) => {
                tree::compare("open file", at, &buffer[..n], old);
                at += n as u64;
            }
            Err(error) => {
                assert!(replaced, "{error} before the replacement");
                assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
                break;
            }
        }
    }
    wait_until(SEEN_WITHIN, || starts_with(path, new)).unwrap();
    check_file(path, new);
}

fn starts_with(path: &Path, content: &Content) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let mut head = vec![0; 64];
    let size = file
        .metadata()
        .map(|metadata| metadata.len())
        .unwrap_or_default();
    size == content.len() && file.read_exact_at(&mut head, 0).is_ok() && head == content.read(0, 64)
}

/// While versions follow each other, every open reads as exactly one of them, or ends with
/// ESTALE after a part of one; and never an older one than was seen before.
fn read_under_replacement(path: &Path, size: u64, replacements: u64, replace: &Replace<'_>) {
    replace(&version(0, size));
    wait_until(SEEN_WITHIN, || starts_with(path, &version(0, size))).unwrap();
    let latest = AtomicU64::new(0);
    let whole = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while latest.load(Ordering::SeqCst) < replacements {
                    if read_one_version(path, size, replacements) {
                        whole.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        for n in 1..=replacements {
            let seen = whole.load(Ordering::SeqCst);
            replace(&version(n, size));
            // Faster replacement than reading would leave nothing but ESTALE.
            let _ = wait_until(SEEN_WITHIN, || whole.load(Ordering::SeqCst) > seen);
            latest.store(n, Ordering::SeqCst);
        }
    });
    println!(
        "{} whole reads under {replacements} replacements",
        whole.load(Ordering::SeqCst)
    );
    assert!(whole.load(Ordering::SeqCst) >= replacements / 2);
}

/// Whether the file could be read to its end; every byte read was of one version.
fn read_one_version(path: &Path, size: u64, newest: u64) -> bool {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return stale(&error),
    };
    let mut buffer = vec![0; 96 << 10];
    let mut of: Option<Content> = None;
    let mut at = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                let content = of.get_or_insert_with(|| which(&buffer[..n], size, newest));
                tree::compare("one version", at, &buffer[..n], content);
                at += n as u64;
            }
            Err(error) => return stale(&error),
        }
    }
    assert_eq!(at, size, "a whole read has the whole size");
    true
}

fn which(head: &[u8], size: u64, newest: u64) -> Content {
    (0..=newest)
        .map(|n| version(n, size))
        .find(|content| content.read(0, 64) == head[..64])
        .expect("the first bytes are of a version that was stored")
}

fn stale(error: &std::io::Error) -> bool {
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    false
}

fn cluster() -> ProcessCluster {
    ProcessCluster::start(ClusterSpec {
        nodes: 2,
        ..ClusterSpec::default()
    })
    .unwrap()
}

const SIZE: u64 = 6 << 20;

fn all_cases(path: &Path, replace: &Replace<'_>) {
    // Same size, shorter and longer.
    replace_while_open(path, &version(100, SIZE), &version(101, SIZE), replace);
    replace_while_open(path, &version(102, SIZE), &version(103, SIZE / 3), replace);
    replace_while_open(path, &version(104, SIZE), &version(105, SIZE * 2), replace);
    read_under_replacement(path, SIZE / 2, 20, replace);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_s3_object_is_never_mixed() {
    if !fuse_or_skip("a_replaced_s3_object_is_never_mixed") {
        return;
    }
    let s3 = S3Fixture::start().await;
    s3.create_bucket("lake");
    let mut cluster = cluster();
    cluster
        .add_ufs("/data", "s3://lake", &s3.options())
        .unwrap();
    let mount = cluster
        .add_mount(&["--memory-limit", "48MiB", "--metadata-ttl", TTL])
        .unwrap();
    let path = cluster.mount(mount).path().join("data/object");
    let put = |content: &Content| {
        s3.put_content("lake", "object", content.clone(), Default::default());
    };
    all_cases(&path, &put);
    cluster.shutdown().unwrap();
    s3.shutdown().await;
}

#[test]
fn a_replaced_local_file_is_never_mixed() {
    if !fuse_or_skip("a_replaced_local_file_is_never_mixed") {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let mut cluster = cluster();
    let uri = format!("file://{}", source.path().display());
    cluster.add_ufs("/data", &uri, &BTreeMap::new()).unwrap();
    let mount = cluster
        .add_mount(&["--memory-limit", "48MiB", "--metadata-ttl", TTL])
        .unwrap();
    let path = cluster.mount(mount).path().join("data/object");
    let aside = tempfile::tempdir_in(source.path().parent().unwrap()).unwrap();
    let rename = |content: &Content| {
        let new = aside.path().join("new");
        write_file(&new, content);
        std::fs::rename(&new, source.path().join("object")).unwrap();
    };
    all_cases(&path, &rename);
    cluster.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_object_is_gone_and_a_new_one_appears() {
    if !fuse_or_skip("a_deleted_object_is_gone_and_a_new_one_appears") {
        return;
    }
    let s3 = S3Fixture::start().await;
    s3.put("lake", "dir/a", "first");
    let mut cluster = cluster();
    cluster
        .add_ufs("/data", "s3://lake", &s3.options())
        .unwrap();
    let mount = cluster
        .add_mount(&["--memory-limit", "48MiB", "--metadata-ttl", TTL])
        .unwrap();
    let dir = cluster.mount(mount).path().join("data/dir");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
    assert_eq!(read("a").as_deref(), Some("first"));
    assert_eq!(read("b"), None);
    s3.put("lake", "dir/b", "second");
    s3.delete("lake", "dir/a");
    wait_until(SEEN_WITHIN, || read("b").as_deref() == Some("second")).unwrap();
    wait_until(SEEN_WITHIN, || read("a").is_none()).unwrap();
    wait_until(SEEN_WITHIN, || names(&dir) == ["b"]).unwrap();
    cluster.shutdown().unwrap();
    s3.shutdown().await;
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
