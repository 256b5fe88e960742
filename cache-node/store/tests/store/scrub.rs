//! A scrub finds what no reader asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millpond_store::{Scrub, Store, StoreConfig};
use rustix::io::Errno;

use super::sick::Sick;
use super::support::{assert_accounted, assert_right, block, block_files, id};

const ROOM: u64 = 8 << 20;
const LEN: usize = 150_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// Passes without a pause between them.
const EAGER: Scrub = Scrub {
    rate: 1 << 40,
    first: Duration::ZERO,
    every: Duration::ZERO,
};

async fn open(dir: &Path, scrub: Scrub) -> Store {
    let config = StoreConfig::new(0, Some((dir.join("d"), ROOM)), None);
    Store::open(StoreConfig { scrub, ..config }).await.unwrap()
}

fn file_of(dir: &Path, index: u64) -> PathBuf {
    let name = id(1, index).to_string();
    let files = block_files(dir).into_iter();
    files
        .into_iter()
        .find(|file| file.ends_with(&name))
        .unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "still not so: {what}");
}

#[tokio::test]
async fn a_flipped_byte_is_found_dropped_counted_and_healed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Scrub::OFF).await;
    for index in 0..10 {
        let id = id(1, index);
        store.insert(id, block(&id, LEN)).await;
    }
    store.shutdown().await;
    // In the last page, in the checksums, and one that is cut.
    for (index, at) in [(2, LEN - 1), (5, LEN + 3)] {
        let path = file_of(dir.path(), index);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x20;
        fs::write(&path, bytes).unwrap();
    }

    let store = open(dir.path(), EAGER).await;
    until("two passes are done", || store.stats().scrub.passes >= 2).await;
    let stats = store.stats();
    assert_eq!(
        (stats.scrub.bad_blocks, stats.corrupt, stats.disk_blocks),
        (2, 2, 8)
    );
    assert!(stats.scrub.bytes >= 8 * LEN as u64, "{stats:?}");
    assert_accounted(&stats, 0);
    for index in 0..10 {
        let id = id(1, index);
        match store.read(&id, 0, LEN as u32).await {
            Some(hit) => assert_right(&hit, &id, LEN, 0),
            // What a fill does.
            None => {
                assert!(index == 2 || index == 5, "{index} was right");
                store.insert(id, block(&id, LEN)).await;
                let hit = store.read(&id, 0, LEN as u32).await.unwrap();
                assert_right(&hit, &id, LEN, 0);
            }
        }
    }
    store.flush().await;
    let passes = store.stats().scrub.passes;
    until("another pass is done", || {
        store.stats().scrub.passes >= passes + 2
    })
    .await;
    assert_eq!(store.stats().scrub.bad_blocks, 2, "they are whole again");
    store.shutdown().await;
}

#[tokio::test]
async fn a_scrub_keeps_to_its_rate_and_ends_with_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Scrub { rate: 1, ..EAGER };
    let store = open(dir.path(), slow).await;
    for index in 0..4 {
        let id = id(1, index);
        store.insert(id, block(&id, LEN)).await;
    }
    // The first pass may have been over before there was anything.
    until("a block is verified", || store.stats().scrub.bytes > 0).await;
    assert_eq!(
        store.stats().scrub.bytes,
        LEN as u64,
        "the next is due in two days"
    );
    assert!(store.stats().scrub.permille < 1000);
    store.shutdown().await;
}

#[tokio::test]
async fn blocks_that_come_and_go_meanwhile_are_not_taken_for_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), EAGER).await;
    for index in 0..300 {
        let id = id((index % 7) as u8, index);
        store.insert(id, block(&id, LEN)).await;
        if index % 5 == 0 {
            store.remove(&id).await;
        }
    }
    let passes = store.stats().scrub.passes;
    until("a pass is done", || {
        store.stats().scrub.passes >= passes + 2
    })
    .await;
    let stats = store.stats();
    assert_eq!(
        (stats.scrub.bad_blocks, stats.corrupt, stats.disk_dropped),
        (0, 0, 0)
    );
    assert!(stats.disk_evictions > 0, "{stats:?}");
    store.shutdown().await;
}

#[tokio::test]
async fn a_scrub_leaves_a_sick_disk_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (sick, _healed) = Sick::new();
    let mut config = StoreConfig::new(0, Some((dir.path().join("d"), ROOM)), None);
    config.disks[0].faults = sick.faults();
    config.disks[0].read_limit = PATIENCE;
    config.disks[0].write_limit = PATIENCE;
    config.scrub = EAGER;
    let store = Store::open(config).await.unwrap();
    for index in 0..20 {
        let id = id(1, index);
        store.insert(id, block(&id, LEN)).await;
    }
    store.flush().await;
    sick.fail(|op| op == millpond_store::disk::FileOp::Read, Errno::IO);
    until("it is known to be sick", || {
        store.disks()[0].reads == millpond_store::BreakerState::Out
    })
    .await;
    let stats = store.stats();
    assert!(stats.disk_blocks >= 16, "few were given up: {stats:?}");
    assert_accounted(&stats, 20);
    sick.heal();
    let passes = stats.scrub.passes;
    until("it goes on", || store.stats().scrub.passes > passes + 1).await;
    store.shutdown().await;
}
