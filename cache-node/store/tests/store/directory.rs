//! Restarts, damage, and directories that are not what they should be.

use std::fs;
use std::path::Path;

use millpond_proto::wire::frame::Tier;
use millpond_proto::{ClusterId, ErrorKind};
use millpond_store::{
    Admission, DiskConfig, DiskError, DiskTier, Policy, Refusal, Store, StoreConfig,
};

use super::support::{assert_right, block, block_files, disk_usage, id};

const ROOM: u64 = 1 << 20;

fn open(dir: &Path) -> DiskTier {
    DiskTier::open(DiskConfig::new(dir.to_owned(), ROOM, None)).unwrap()
}

#[test]
fn a_restart_finds_every_block_again() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path());
    for index in 0..10 {
        let id = id(index as u8 * 20, index);
        tier.write_blocking(id, &block(&id, 60_000));
    }
    let used = tier.used();
    drop(tier);
    let tier = open(dir.path());
    assert_eq!((tier.blocks(), tier.used()), (10, used));
    for index in 0..10 {
        let id = id(index as u8 * 20, index);
        let hit = tier.read_blocking(&id, 7, 50_000).unwrap();
        assert_eq!(hit.tier, Tier::Disk);
        assert_right(&hit, &id, 60_000, 7);
    }
}

#[test]
fn a_restart_with_less_room_gives_up_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path());
    for index in 0..10 {
        let id = id(1, index);
        tier.write_blocking(id, &block(&id, 60_000));
        // Files written in one clock tick are equally old.
        let file = dir.path().join("01/11").join(id.to_string());
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(index);
        fs::File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    drop(tier);
    let less = DiskConfig::new(dir.path().to_owned(), 200_000, None);
    let tier = DiskTier::open(less).unwrap();
    assert!(tier.used() <= 200_000);
    assert!(disk_usage(dir.path()) <= 200_000);
    let held: Vec<u64> = (0..10).filter(|&i| tier.contains(&id(1, i))).collect();
    assert_eq!(held, [7, 8, 9]);
}

#[test]
fn half_written_files_are_removed_at_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::write(dir.path().join("tmp/17"), vec![1; 100_000]).unwrap();
    let cut = dir.path().join("01/11");
    fs::create_dir_all(&cut).unwrap();
    fs::write(cut.join(id(1, 5).to_string()), vec![1; 42]).unwrap();
    fs::write(cut.join("notes.txt"), "mine").unwrap();
    let tier = open(dir.path());
    assert_eq!((tier.blocks(), tier.used()), (0, 0));
    let left = block_files(dir.path());
    assert_eq!(left, [cut.join("notes.txt")], "only what is not ours stays");
}

#[test]
fn a_damaged_block_is_dropped_counted_and_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = StoreConfig::new(0, Some((path.clone(), ROOM)), None);
        let store = Store::open(config).await.unwrap();
        let id = id(1, 1);
        store.insert(id, block(&id, 200_000)).await;
        store.flush().await;
        let file = block_files(&path).pop().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        bytes[150_000] ^= 1;
        fs::write(&file, &bytes).unwrap();

        // Pages that are whole are still served: each is verified by itself.
        let hit = store.read(&id, 0, 65_536).await.unwrap();
        assert_right(&hit, &id, 200_000, 0);
        assert!(store.read(&id, 149_000, 10).await.is_none());
        assert_eq!(store.stats().corrupt, 1);
        assert!(!file.exists(), "the damaged file is gone");
        assert!(store.read(&id, 0, 65_536).await.is_none());
        assert_eq!(store.stats().disk_used, 0);

        store.insert(id, block(&id, 200_000)).await;
        store.flush().await;
        let hit = store.read(&id, 149_000, 10).await.unwrap();
        assert_right(&hit, &id, 200_000, 149_000);
    });
}

#[test]
fn a_file_that_was_cut_or_swapped_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path());
    let (a, b) = (id(1, 1), id(1, 2));
    for id in [a, b] {
        tier.write_blocking(id, &block(&id, 100_000));
    }
    let fan = dir.path().join("01/11");
    fs::copy(fan.join(a.to_string()), fan.join(b.to_string())).unwrap();
    assert!(
        tier.read_blocking(&b, 0, 10).is_none(),
        "bytes of another block"
    );
    let file = fs::File::options()
        .write(true)
        .open(fan.join(a.to_string()))
        .unwrap();
    file.set_len(70_000).unwrap();
    assert!(tier.read_blocking(&a, 0, 10).is_none());
    assert_eq!(tier.used(), 0);
}

#[test]
fn what_was_held_is_held_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (held, other) = (id(1, 1), id(1, 2));
    let tier = open(dir.path());
    tier.write_blocking(held, &block(&held, 100_000).under(Policy::Hold));
    tier.write_blocking(other, &block(&other, 100_000));
    let bytes = tier.held();
    assert!(bytes >= 100_000 && bytes < tier.used());
    drop(tier);
    let tier = open(dir.path());
    assert_eq!(tier.held(), bytes);
    for id in [held, other] {
        assert_right(&tier.read_blocking(&id, 0, 100).unwrap(), &id, 100_000, 0);
    }
    // A data set larger than the tier does not push itself out, nor is it written again.
    let writes = (0..200).filter(|n| {
        let id = id(2, *n);
        let block = block(&id, 100_000).under(Policy::Hold);
        tier.write_blocking(id, &block) == Admission::Accepted
    });
    assert!(writes.count() < 200 && tier.contains(&held));
    assert!(tier.used() <= tier.capacity());
    tier.remove(&held);
    assert!(!tier.contains(&held));
}

#[test]
fn a_file_removed_behind_our_back_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path());
    tier.write_blocking(id(1, 1), &block(&id(1, 1), 1000));
    fs::remove_file(&block_files(dir.path())[0]).unwrap();
    assert!(tier.read_blocking(&id(1, 1), 0, 10).is_none());
    assert_eq!(tier.used(), 0);
    let again = tier.write_blocking(id(1, 1), &block(&id(1, 1), 1000));
    assert_eq!(again, Admission::Accepted);
}

#[test]
fn one_directory_serves_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let config = DiskConfig::new(dir.path().to_owned(), ROOM, None);
    let error = DiskTier::open(config.clone()).unwrap_err();
    assert!(matches!(error, DiskError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    drop(first);
    DiskTier::open(config).unwrap();
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = |cluster| DiskConfig::new(dir.path().to_owned(), ROOM, cluster);
    let (one, two) = (ClusterId([1; 16]), ClusterId([2; 16]));
    DiskTier::open(config(Some(one))).unwrap();
    DiskTier::open(config(Some(one))).unwrap();
    for other in [Some(two), None] {
        let error = DiskTier::open(config(other)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&one.to_string()), "{error}");
    }
    let marker = dir.path().join("millpond-store.json");
    let newer = fs::read_to_string(&marker)
        .unwrap()
        .replace("\"format\": 1", "\"format\": 9");
    fs::write(&marker, newer).unwrap();
    let error = DiskTier::open(config(Some(one))).unwrap_err();
    assert!(
        matches!(error, DiskError::Format { found: 9, .. }),
        "{error}"
    );
}

#[test]
fn a_directory_with_something_else_in_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    let config = DiskConfig::new(dir.path().to_owned(), ROOM, None);
    drop(DiskTier::open(config).unwrap());

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let config = DiskConfig::new(dir.path().to_owned(), ROOM, None);
    let error = DiskTier::open(config).unwrap_err();
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing was added"
    );

    let file = dir.path().join("thesis.tex");
    let error = DiskTier::open(DiskConfig::new(file, ROOM, None)).unwrap_err();
    assert!(matches!(error, DiskError::Io { .. }), "{error}");
}

#[test]
fn a_full_tier_of_blocks_being_written_refuses_instead_of_growing() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path());
    let threads: Vec<_> = (0..8u64)
        .map(|worker| {
            let tier = tier.clone();
            std::thread::spawn(move || {
                for step in 0..20 {
                    let id = id(worker as u8, step);
                    let admission = tier.write_blocking(id, &block(&id, 400_000));
                    assert!(
                        matches!(
                            admission,
                            Admission::Accepted
                                | Admission::Evicted
                                | Admission::Refused(Refusal::Busy)
                        ),
                        "{admission:?}"
                    );
                    assert!(tier.used() <= ROOM);
                }
            })
        })
        .collect();
    let mut peak = 0;
    while threads.iter().any(|t| !t.is_finished()) {
        peak = peak.max(disk_usage(dir.path()));
        std::thread::yield_now();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(peak <= ROOM, "{peak} bytes on disk");
    assert_eq!(disk_usage(dir.path()), tier.used(), "the account is exact");
    assert!(tier.blocks() > 0);
}
