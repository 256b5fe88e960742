//! The same rules for the memory tier, the disk tier, and both together.

use std::path::Path;

use millpond_proto::BlockId;
use millpond_proto::wire::frame::Tier;
use millpond_store::{
    Admission, Block, DiskConfig, DiskTier, Hit, MemoryTier, Refusal, Store, StoreConfig,
};

use super::support::{assert_right, block, id};

/// What the rules need of a tier. Each has room for 1 MiB.
enum Subject {
    Memory(MemoryTier),
    Disk(DiskTier),
    Store(Store),
}

impl Subject {
    async fn insert(&self, id: BlockId, block: Block) -> Admission {
        match self {
            Self::Memory(tier) => tier.insert(id, block),
            Self::Disk(tier) => tier.write(id, block).await,
            Self::Store(store) => store.insert(id, block).await.now(),
        }
    }

    async fn read(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        match self {
            Self::Memory(tier) => tier.get(id)?.range(offset, len, Tier::Memory),
            Self::Disk(tier) => tier.read(id, offset, len).await,
            Self::Store(store) => store.read(id, offset, len).await,
        }
    }

    async fn remove(&self, id: &BlockId) {
        match self {
            Self::Memory(tier) => tier.remove(id),
            Self::Disk(tier) => tier.remove(id),
            Self::Store(store) => store.remove(id).await,
        }
    }

    fn within_limits(&self) -> bool {
        match self {
            Self::Memory(tier) => tier.used() <= tier.capacity(),
            Self::Disk(tier) => tier.used() <= tier.capacity(),
            Self::Store(store) => {
                let stats = store.stats();
                stats.memory_used <= stats.memory_capacity && stats.disk_used <= stats.disk_capacity
            }
        }
    }
}

const ROOM: u64 = 1 << 20;

async fn subjects(dir: &Path) -> Vec<(&'static str, Subject)> {
    let disk = DiskConfig::new(dir.join("disk"), ROOM, None);
    let store = |memory, name: &str| {
        let disk = Some((dir.join(name), ROOM));
        Store::open(StoreConfig::new(memory, disk, None))
    };
    vec![
        ("memory", Subject::Memory(MemoryTier::new(ROOM))),
        ("disk", Subject::Disk(DiskTier::open(disk).unwrap())),
        ("both", Subject::Store(store(ROOM, "both").await.unwrap())),
        ("no memory", Subject::Store(store(0, "none").await.unwrap())),
    ]
}

const LENGTHS: [usize; 7] = [1, 100, 65_535, 65_536, 65_537, 131_072, 200_001];

#[tokio::test]
async fn what_was_inserted_is_read_back_in_any_range() {
    let dir = tempfile::tempdir().unwrap();
    for (name, subject) in subjects(dir.path()).await {
        for (file, len) in LENGTHS.into_iter().enumerate() {
            let id = id(file as u8, 3);
            let admission = subject.insert(id, block(&id, len)).await;
            assert_eq!(admission, Admission::Accepted, "{name} {len}");
            let edges = [0, 1, 65_535, 65_536, len / 2, len - 1, len];
            for start in edges.into_iter().filter(|&e| e <= len) {
                for end in edges.into_iter().filter(|&e| start <= e && e <= len) {
                    let (offset, len_read) = (start as u32, (end - start) as u32);
                    let hit = subject.read(&id, offset, len_read).await;
                    let Some(hit) = hit else {
                        panic!("{name}: {start}..{end} of {len} is not there");
                    };
                    assert_eq!(hit.data.len(), end - start, "{name}");
                    assert_right(&hit, &id, len, offset);
                }
            }
            let past = subject.read(&id, len as u32, 1).await;
            assert!(past.is_none(), "{name}: read past the end of {len}");
            let far = subject.read(&id, u32::MAX, u32::MAX).await;
            assert!(far.is_none(), "{name}: read far past the end of {len}");
        }
    }
}

#[tokio::test]
async fn what_was_never_inserted_or_was_removed_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    for (name, subject) in subjects(dir.path()).await {
        assert!(subject.read(&id(1, 0), 0, 1).await.is_none(), "{name}");
        subject.insert(id(1, 0), block(&id(1, 0), 5000)).await;
        assert!(subject.read(&id(1, 1), 0, 1).await.is_none(), "{name}");
        assert!(subject.read(&id(1, 0), 0, 1).await.is_some(), "{name}");
        if let Subject::Store(store) = &subject {
            store.flush().await;
        }
        subject.remove(&id(1, 0)).await;
        assert!(subject.read(&id(1, 0), 0, 1).await.is_none(), "{name}");
        subject.insert(id(1, 0), block(&id(1, 0), 5000)).await;
        assert!(subject.read(&id(1, 0), 0, 1).await.is_some(), "{name}");
    }
}

#[tokio::test]
async fn a_second_insert_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (name, subject) in subjects(dir.path()).await {
        let id = id(9, 9);
        subject.insert(id, block(&id, 70_000)).await;
        let again = subject.insert(id, block(&id, 70_000)).await;
        assert_eq!(again, Admission::Present, "{name}");
        let hit = subject.read(&id, 10, 65_600).await.unwrap();
        assert_right(&hit, &id, 70_000, 10);
    }
}

#[tokio::test]
async fn filling_past_the_limit_stays_under_it_and_keeps_it_used() {
    let dir = tempfile::tempdir().unwrap();
    for (name, subject) in subjects(dir.path()).await {
        for index in 0..100 {
            let id = id(4, index);
            subject.insert(id, block(&id, 50_000)).await;
            assert!(subject.within_limits(), "{name} at {index}");
        }
        if let Subject::Store(store) = &subject {
            store.flush().await;
            assert!(subject.within_limits(), "{name} after flush");
        }
        let mut held = 0;
        for index in 0..100 {
            let id = id(4, index);
            if let Some(hit) = subject.read(&id, 0, 50_000).await {
                assert_right(&hit, &id, 50_000, 0);
                held += 1;
            }
        }
        assert!(
            held >= 15,
            "{name} holds only {held} blocks of 50 kB in 1 MiB"
        );
    }
}

#[tokio::test]
async fn a_block_larger_than_the_tier_is_refused_and_evicts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (name, subject) in subjects(dir.path()).await {
        let small = id(1, 1);
        subject.insert(small, block(&small, 1000)).await;
        let large = id(1, 2);
        let refused = subject.insert(large, block(&large, 2 << 20)).await;
        if let Subject::Store(store) = &subject {
            // The disk is asked in the background; the answer is that nothing is kept.
            store.flush().await;
        } else {
            assert_eq!(refused, Admission::Refused(Refusal::TooLarge), "{name}");
        }
        assert!(subject.read(&large, 0, 1).await.is_none(), "{name}");
        assert!(subject.read(&small, 0, 1000).await.is_some(), "{name}");
    }
}

#[tokio::test]
async fn concurrent_use_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    for (name, subject) in subjects(dir.path()).await {
        let subject = std::sync::Arc::new(subject);
        let tasks = tokio_util::task::TaskTracker::new();
        for worker in 0..8u64 {
            let subject = std::sync::Arc::clone(&subject);
            tasks.spawn(async move {
                for step in 0..60u64 {
                    let id = id(1, (worker * 31 + step * 7) % 40);
                    let len = 30_000 + id.index as usize * 1000;
                    match subject.read(&id, 5, 20_000).await {
                        Some(hit) => assert_right(&hit, &id, len, 5),
                        None => {
                            subject.insert(id, block(&id, len)).await;
                        }
                    }
                    if step % 13 == 0 {
                        subject.remove(&id).await;
                    }
                    assert!(subject.within_limits());
                }
            });
        }
        let mut joined = 0;
        tasks.close();
        tasks.wait().await;
        for index in 0..40 {
            let id = id(1, index);
            let len = 30_000 + index as usize * 1000;
            if let Some(hit) = subject.read(&id, 0, len as u32).await {
                assert_right(&hit, &id, len, 0);
                joined += 1;
            }
        }
        assert!(joined > 0, "{name} kept nothing");
    }
}

#[tokio::test]
async fn a_store_reads_from_the_fastest_tier_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::new(64 << 10, Some((dir.path().join("d"), 4 << 20)), None);
    let store = Store::open(config).await.unwrap();
    let (a, b) = (id(1, 0), id(2, 0));
    assert_eq!(store.locate(&a), Tier::None);
    store.insert(a, block(&a, 50_000)).await;
    assert_eq!(store.locate(&a), Tier::Memory);
    assert_eq!(store.read(&a, 0, 10).await.unwrap().tier, Tier::Memory);
    store.insert(b, block(&b, 50_000)).await;
    store.flush().await;
    let tiers = [store.locate(&a), store.locate(&b)];
    assert!(
        tiers.contains(&Tier::Memory) && tiers.contains(&Tier::Disk),
        "{tiers:?}"
    );
    for id in [a, b] {
        let tier = store.locate(&id);
        let hit = store.read(&id, 100, 1000).await.unwrap();
        assert_eq!(hit.tier, tier);
        assert_right(&hit, &id, 50_000, 100);
        assert_eq!(store.read_memory(&id, 0, 1).is_some(), tier == Tier::Memory);
    }
    let stats = store.stats();
    assert_eq!(
        (stats.disk_blocks, stats.disk_writes, stats.disk_hits),
        (2, 2, 1)
    );
    assert_eq!(stats.writing_bytes, 0);
}

#[tokio::test]
async fn a_block_on_its_way_to_disk_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::new(0, Some((dir.path().join("d"), 64 << 20)), None);
    let store = Store::open(config).await.unwrap();
    for index in 0..20 {
        let id = id(1, index);
        assert_eq!(
            store.insert(id, block(&id, 1 << 20)).await.now(),
            Admission::Accepted
        );
        let hit = store.read(&id, 0, 1 << 20).await.unwrap();
        assert_right(&hit, &id, 1 << 20, 0);
        let stats = store.stats();
        assert!(stats.writing_bytes <= 32 << 20, "{stats:?}");
    }
    store.flush().await;
    for index in 0..20 {
        let id = id(1, index);
        assert_eq!(store.locate(&id), Tier::Disk);
    }
}
