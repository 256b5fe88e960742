//! A sick disk: readers get right bytes or a miss in bounded time, inserts an answer, and the
//! tier recovers.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use millpond_store::disk::FileOp;
use millpond_store::{Access, Admission, BreakerState, DiskConfig, Refusal, Store, StoreConfig};
use rustix::io::Errno;

use super::sick::Sick;
use super::support::{assert_accounted, assert_right, block, id};

const ROOM: u64 = 8 << 20;
const LEN: usize = 100_000;

/// Longer than anything here takes: what exceeds it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A store without memory tier on a disk that may be made sick.
async fn store(dir: &Path, sick: &Sick, limit: Duration) -> Store {
    let disk = DiskConfig {
        read_limit: limit,
        write_limit: limit,
        faults: sick.faults(),
        ..DiskConfig::new(dir.join("blocks"), ROOM, None)
    };
    let config = StoreConfig {
        disks: vec![disk],
        ..StoreConfig::new(0, None, None)
    };
    Store::open(config).await.unwrap()
}

/// One whose disk is not believed to hang while the machine is busy.
async fn patient(dir: &Path, sick: &Sick) -> Store {
    store(dir, sick, PATIENCE).await
}

async fn insert(store: &Store, index: u64) -> Admission {
    let id = id(1, index);
    let inserted = store.insert(id, block(&id, LEN)).await;
    inserted.on_disk().await.unwrap()
}

/// Whether the block is there; if it is, it is right.
async fn holds(store: &Store, index: u64) -> bool {
    let id = id(1, index);
    match store.read(&id, 10, 70_000).await {
        Some(hit) => {
            assert_right(&hit, &id, LEN, 10);
            true
        }
        None => false,
    }
}

fn state(store: &Store, access: Access) -> BreakerState {
    let health = &store.disks()[0];
    match access {
        Access::Read => health.reads,
        Access::Write => health.writes,
    }
}

/// Waits for a condition; one that never comes fails the test.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "still not so: {what}");
}

async fn until_well(store: &Store) {
    until("the disk is well again", || {
        Access::ALL
            .into_iter()
            .all(|access| state(store, access) == BreakerState::Normal)
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_hangs_holds_no_reader_and_few_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (sick, _healed) = Sick::new();
    let store = store(dir.path(), &sick, Duration::from_millis(500)).await;
    // A machine so busy that the disk seems sick now refuses some.
    let mut kept = Vec::new();
    while kept.len() < 40 {
        until_well(&store).await;
        for index in 0..40 {
            if !kept.contains(&index) && insert(&store, index).await.is_in() {
                kept.push(index);
            }
        }
    }
    until_well(&store).await;

    sick.hang(|op| op == FileOp::Read);
    let reads = (0..200u64).map(|n| {
        let store = &store;
        async move { store.read(&id(1, n % 40), 0, 70_000).await }
    });
    let hits = tokio::time::timeout(PATIENCE, join_all(reads)).await;
    let hits = hits.expect("a reader is held by the disk");
    assert!(hits.iter().all(Option::is_none), "the disk gave nothing");
    assert_ne!(state(&store, Access::Read), BreakerState::Normal);
    assert!(store.stats().disk_overdue > 0);

    // Now they go round it: no thread more is held, and nothing is said to be there.
    until("the probe hangs, too", || {
        state(&store, Access::Read) == BreakerState::Out
    })
    .await;
    let before = sick.operations();
    for index in 0..40 {
        assert!(!holds(&store, index).await);
        assert_eq!(
            store.locate(&id(1, index)),
            millpond_proto::wire::frame::Tier::None
        );
    }
    // But for the threads that were about to.
    let more = sick.operations() - before;
    assert!(more <= 17, "the disk was not left alone: {more} operations");
    // Those of the readers, and one that probes.
    assert!(
        sick.most_hanging() <= 17,
        "{} threads hang",
        sick.most_hanging()
    );

    sick.heal();
    until_well(&store).await;
    until("no thread hangs", || sick.hanging() == 0).await;
    let mut found = std::collections::BTreeSet::new();
    let all = async {
        while found.len() < kept.len() {
            for index in kept.iter().copied() {
                if holds(&store, index).await {
                    found.insert(index);
                }
            }
        }
    };
    let all = tokio::time::timeout(PATIENCE, all).await;
    assert!(all.is_ok(), "what was there is there");
}

#[tokio::test]
async fn readers_that_gave_up_leave_a_disk_that_hangs_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (sick, _healed) = Sick::new();
    let store = store(dir.path(), &sick, Duration::from_millis(500)).await;
    until_well(&store).await;
    while !insert(&store, 1).await.is_in() {
        until_well(&store).await;
    }
    until_well(&store).await;
    sick.hang(|op| op == FileOp::Open);
    let gave_up = {
        let id = id(1, 1);
        let read = store.read(&id, 0, 10);
        let hangs = until("the read hangs", || sick.hanging() > 0);
        tokio::select! {
            biased;
            hit = read => hit,
            () = hangs => None,
        }
    };
    assert!(gave_up.is_none());
    until("it is found out", || {
        state(&store, Access::Read) != BreakerState::Normal
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_hangs_writing_refuses_what_comes_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let (sick, _healed) = Sick::new();
    let disk = DiskConfig {
        write_limit: Duration::from_secs(1),
        read_limit: PATIENCE,
        faults: sick.faults(),
        ..DiskConfig::new(dir.path().join("blocks"), ROOM, None)
    };
    let config = StoreConfig {
        disks: vec![disk],
        ..StoreConfig::new(0, None, None)
    };
    let store = Store::open(config).await.unwrap();
    while !insert(&store, 0).await.is_in() {
        until_well(&store).await;
    }
    until_well(&store).await;

    sick.hang(|op| op == FileOp::Rename);
    let mut hanging = Vec::new();
    for index in 1..4 {
        let id = id(1, index);
        hanging.push(store.insert(id, block(&id, LEN)).await);
    }
    until("the disk is found out", || {
        state(&store, Access::Write) != BreakerState::Normal
    })
    .await;
    let refused = store.stats().disk_refused.of(Refusal::Out);
    assert_eq!(insert(&store, 9).await, Admission::Refused(Refusal::Out));
    // A thread that comes late may have been refused, too.
    assert!(store.stats().disk_refused.of(Refusal::Out) > refused);
    // One that is held up is readable from the buffer, others from the disk.
    assert!(holds(&store, 0).await);
    assert_eq!(state(&store, Access::Read), BreakerState::Normal);

    sick.heal();
    for inserted in hanging {
        let outcome = inserted.on_disk().await.unwrap();
        assert!(
            matches!(
                outcome,
                Admission::Accepted | Admission::Refused(Refusal::Out)
            ),
            "{outcome:?}"
        );
    }
    until_well(&store).await;
    let again = async {
        while !insert(&store, 9).await.is_in() {
            until_well(&store).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, again).await.is_ok());
    assert!(holds(&store, 9).await);
}

/// What all writes fail with, and how inserts are refused for it.
async fn writes_fail(which: fn(FileOp) -> bool, errno: Errno, refusal: Refusal) {
    let dir = tempfile::tempdir().unwrap();
    let (sick, _healed) = Sick::new();
    let store = patient(dir.path(), &sick).await;
    for index in 0..3 {
        assert_eq!(insert(&store, index).await, Admission::Accepted);
    }
    sick.fail(which, errno);
    assert_eq!(insert(&store, 3).await, Admission::Refused(refusal));
    until("the probe fails", || {
        state(&store, Access::Write) == BreakerState::Out
    })
    .await;
    assert_eq!(insert(&store, 4).await, Admission::Refused(Refusal::Out));
    for index in 0..3 {
        assert!(holds(&store, index).await, "what is there can be read");
    }
    assert!(!holds(&store, 3).await && !holds(&store, 4).await);
    assert_eq!(state(&store, Access::Read), BreakerState::Normal);

    sick.heal();
    until_well(&store).await;
    for index in 3..6 {
        assert_eq!(insert(&store, index).await, Admission::Accepted);
        assert!(holds(&store, index).await);
    }
    let stats = store.stats();
    assert_eq!(
        (
            stats.disk_refused.of(refusal),
            stats.disk_refused.of(Refusal::Out)
        ),
        (1, 1)
    );
    assert_accounted(&stats, 8);
}

#[tokio::test]
async fn a_full_disk_is_read_and_not_written() {
    writes_fail(|op| op == FileOp::Write, Errno::NOSPC, Refusal::Full).await;
}

#[tokio::test]
async fn a_file_system_that_became_read_only_is_read_and_not_written() {
    writes_fail(FileOp::changes, Errno::ROFS, Refusal::Failed).await;
}

#[tokio::test]
async fn a_disk_that_fails_writing_is_read_and_not_written() {
    writes_fail(
        |op| op == FileOp::Sync || op == FileOp::Write,
        Errno::IO,
        Refusal::Failed,
    )
    .await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_gone_round_and_keeps_its_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let (sick, _healed) = Sick::new();
    let store = patient(dir.path(), &sick).await;
    for index in 0..20 {
        assert_eq!(insert(&store, index).await, Admission::Accepted);
    }
    sick.fail(|op| op == FileOp::Read, Errno::IO);
    for index in 0..20 {
        assert!(!holds(&store, index).await);
    }
    until("the probe fails", || {
        state(&store, Access::Read) == BreakerState::Out
    })
    .await;
    sick.heal();
    until_well(&store).await;
    let mut left = 0;
    for index in 0..20 {
        left += u32::from(holds(&store, index).await);
    }
    // A few were given up before it was clear that the disk is to blame.
    assert!(left >= 17, "{left} blocks are left");
    let stats = store.stats();
    assert_eq!(stats.disk_blocks, u64::from(left));
    assert_accounted(&stats, 20);
}

#[tokio::test]
async fn a_directory_that_vanishes_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (sick, _healed) = Sick::new();
    let store = patient(dir.path(), &sick).await;
    for index in 0..10 {
        assert_eq!(insert(&store, index).await, Admission::Accepted);
    }
    std::fs::remove_dir_all(dir.path().join("blocks")).unwrap();
    for index in 0..10 {
        assert!(!holds(&store, index).await);
    }
    let refused = insert(&store, 10).await;
    until_well(&store).await;
    let again = async {
        while !insert(&store, 11).await.is_in() {
            until_well(&store).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, again).await.is_ok(),
        "after {refused:?}"
    );
    assert!(holds(&store, 11).await);
    assert!(dir.path().join("blocks/millpond-store.json").exists());
    let stats = store.stats();
    assert!(stats.disk_used <= stats.disk_blocks * 106_496, "{stats:?}");
    assert!(stats.disk_lost + stats.disk_dropped >= 10, "{stats:?}");
}

#[tokio::test]
async fn what_is_meant_for_a_sick_directory_goes_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let (sick, _healed) = Sick::new();
    let config = |name: &str, faults| DiskConfig {
        read_limit: PATIENCE,
        write_limit: PATIENCE,
        faults,
        ..DiskConfig::new(dir.path().join(name), ROOM, None)
    };
    let config = StoreConfig {
        disks: vec![config("sick", sick.faults()), config("well", None)],
        ..StoreConfig::new(0, None, None)
    };
    let store = Store::open(config).await.unwrap();
    for index in 0..30 {
        assert_eq!(insert(&store, index).await, Admission::Accepted);
    }
    let in_sick = super::support::block_files(&dir.path().join("sick")).len();
    assert!(
        in_sick > 0 && in_sick < 30,
        "both have some, not {in_sick} of 30"
    );
    sick.fail(|_| true, Errno::IO);
    for index in 30..60 {
        assert_eq!(insert(&store, index).await, Admission::Accepted);
        assert!(holds(&store, index).await);
    }
    sick.heal();
    until_well(&store).await;
    for index in 0..60 {
        assert!(holds(&store, index).await, "{index}");
    }
}
