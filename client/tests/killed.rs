//! A client that is killed while it writes its cache directory, and the one that comes after.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use millpond_client::{ClientConfig, FileSystem};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

const FILES: usize = 12;

/// Where the process that is to be killed finds its work.
const WORK: &str = "MILLPOND_TEST_KILLED";

fn content(n: usize) -> Vec<u8> {
    let len = (n * n * 100_003) % 3_000_000 + 1;
    (0..len)
        .map(|at| ((at * 31 + n * 7) ^ (at >> 9)) as u8)
        .collect()
}

async fn open(work: &Path) -> FileSystem {
    let config = ClientConfig {
        memory: 16 << 20,
        // Not all fit, so that files are evicted all the time.
        disk: Some((work.join("cache"), 16 << 20)),
        ..ClientConfig::default()
    };
    let uri = format!("file://{}", work.join("store").display());
    let registry = Mutex::new(Registry::default());
    FileSystem::standalone(&uri, BTreeMap::new(), config, &registry)
        .await
        .unwrap()
}

/// Reads files and compares every byte; returns how many bytes came from the disk tier.
async fn read_and_compare(fs: &FileSystem, files: impl Iterator<Item = usize>) -> u64 {
    for n in files {
        let file = fs.open(&format!("/f{n}")).await.unwrap();
        let expected = content(n);
        for at in (0..expected.len()).step_by(300_000) {
            let got = file.read(at as u64, 300_000).await.unwrap();
            let end = expected.len().min(at + 300_000);
            assert!(got == expected[at..end], "file {n} at {at}");
        }
    }
    fs.sources().disk
}

/// Not a test: what the process does that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_until_it_is_killed() {
    let Some(work) = std::env::var_os(WORK).map(PathBuf::from) else {
        return;
    };
    let fs = open(&work).await;
    for round in 0.. {
        read_and_compare(&fs, (0..FILES).map(|n| (n * 5 + round) % FILES)).await;
    }
}

#[tokio::test]
async fn a_cache_directory_whose_user_was_killed_gives_right_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let work = temp.path().canonicalize().unwrap();
    std::fs::create_dir(work.join("store")).unwrap();
    for n in 0..FILES {
        std::fs::write(work.join("store").join(format!("f{n}")), content(n)).unwrap();
    }
    let mut from_disk = 0;
    for round in 0..8u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "reads_until_it_is_killed", "--nocapture"])
            .env(WORK, &work)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // A moment that differs; that it is in the midst of something is the point.
        tokio::time::sleep(Duration::from_millis(150 + round * 97)).await;
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let fs = open(&work).await;
        from_disk += read_and_compare(&fs, 0..FILES).await;
        fs.shutdown().await;
    }
    assert!(from_disk > 0, "the tier was never used");
}
