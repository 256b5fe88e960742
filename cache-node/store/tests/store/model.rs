//! Random operations against a map: a tier may forget, but never lies and never grows.

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use millpond_store::{DiskConfig, DiskTier, Policy, Store, StoreConfig};
use proptest::prelude::*;

use super::support::{assert_accounted, assert_right, block, disk_usage, id};

const ROOM: u64 = 300_000;

#[derive(Debug, Clone)]
enum Action {
    Insert { key: u8, len: usize, held: bool },
    Read { key: u8, from: f64, to: f64 },
    Remove { key: u8 },
    Damage { key: u8, at: f64 },
    Reopen,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let key = 0u8..12;
    let action = prop_oneof![
        5 => (key.clone(), prop_oneof![1usize..400, 60_000usize..140_000], any::<bool>())
            .prop_map(|(key, len, held)| Action::Insert { key, len, held }),
        6 => (key.clone(), 0.0..1.0f64, 0.0..1.0f64)
            .prop_map(|(key, from, to)| Action::Read { key, from, to }),
        1 => key.clone().prop_map(|key| Action::Remove { key }),
        1 => (key, 0.0..1.0f64).prop_map(|(key, at)| Action::Damage { key, at }),
        1 => Just(Action::Reopen),
    ];
    proptest::collection::vec(action, 1..60)
}

const fn policy(held: bool) -> Policy {
    if held {
        Policy::Hold
    } else {
        Policy::ScanResistant
    }
}

fn disk(dir: &Path) -> DiskTier {
    DiskTier::open(DiskConfig::new(dir.to_owned(), ROOM, None)).unwrap()
}

/// A range of `0..len` from two fractions.
fn range(len: usize, from: f64, to: f64) -> (u32, u32) {
    let at = |f: f64| (f * (len + 1) as f64) as usize;
    let (start, end) = (at(from).min(at(to)), at(from).max(at(to)).min(len));
    (start as u32, (end - start) as u32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_disk_tier_never_serves_wrong_bytes_nor_exceeds_its_limit(actions in actions()) {
        let dir = tempfile::tempdir().unwrap();
        let mut tier = disk(dir.path());
        // An id stands for one content, so the length of a key is that of its first insert.
        let mut lens: HashMap<u8, usize> = HashMap::new();
        let mut inserts = 0;
        for action in actions {
            match action {
                Action::Insert { key, len, held } => {
                    let len = *lens.entry(key).or_insert(len);
                    let id = id(key, 0);
                    tier.write_blocking(id, &block(&id, len).under(policy(held)));
                    inserts += 1;
                }
                Action::Read { key, from, to } => {
                    let id = id(key, 0);
                    match lens.get(&key) {
                        Some(&len) => {
                            let (offset, n) = range(len, from, to);
                            if let Some(hit) = tier.read_blocking(&id, offset, n) {
                                prop_assert_eq!(hit.data.len(), n as usize);
                                assert_right(&hit, &id, len, offset);
                            }
                        }
                        None => prop_assert!(tier.read_blocking(&id, 0, 0).is_none()),
                    }
                }
                Action::Remove { key } => {
                    tier.remove(&id(key, 0));
                    prop_assert!(tier.read_blocking(&id(key, 0), 0, 0).is_none());
                }
                Action::Damage { key, at } => damage(dir.path(), &id(key, 0).to_string(), at),
                Action::Reopen => {
                    let (blocks, used) = (tier.blocks(), tier.used());
                    drop(tier);
                    tier = disk(dir.path());
                    prop_assert_eq!((tier.blocks(), tier.used()), (blocks, used));
                    inserts = 0;
                }
            }
            prop_assert!(tier.used() <= ROOM);
            prop_assert_eq!(disk_usage(dir.path()), tier.used());
            assert_accounted(&tier.stats(), inserts);
        }
    }

    #[test]
    fn a_store_never_serves_wrong_bytes_nor_exceeds_its_limits(actions in actions()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let config = StoreConfig::new(150_000, Some((dir.path().join("d"), ROOM)), None);
            let mut store = Store::open(config.clone()).await.unwrap();
            let mut lens: HashMap<u8, usize> = HashMap::new();
            let mut inserts = 0;
            for action in actions {
                match action {
                    Action::Insert { key, len, held } => {
                        let len = *lens.entry(key).or_insert(len);
                        let id = id(key, 0);
                        store.insert(id, block(&id, len).under(policy(held))).await;
                        inserts += 1;
                    }
                    Action::Read { key, from, to } => {
                        let id = id(key, 0);
                        let len = lens.get(&key).copied().unwrap_or(0);
                        let (offset, n) = range(len, from, to);
                        if let Some(hit) = store.read(&id, offset, n).await {
                            assert_right(&hit, &id, len, offset);
                        }
                    }
                    Action::Remove { key } => {
                        store.flush().await;
                        store.remove(&id(key, 0)).await;
                        assert!(store.read(&id(key, 0), 0, 0).await.is_none());
                    }
                    Action::Damage { key, at } => {
                        store.flush().await;
                        damage(&dir.path().join("d"), &id(key, 0).to_string(), at);
                    }
                    Action::Reopen => {
                        store.shutdown().await;
                        store = Store::open(config.clone()).await.unwrap();
                        inserts = 0;
                    }
                }
                let stats = store.stats();
                assert!(stats.memory_used <= stats.memory_capacity);
                assert!(stats.disk_used <= stats.disk_capacity);
                assert!(disk_usage(&dir.path().join("d")) <= ROOM);
            }
            store.flush().await;
            assert_accounted(&store.stats(), inserts);
        });
    }
}

/// Flips one bit of the block's file, if it has one.
fn damage(dir: &Path, name: &str, at: f64) {
    let files = super::support::block_files(dir);
    let Some(path) = files.into_iter().find(|f| f.ends_with(name)) else {
        return;
    };
    // That of a block that is held is read-only.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = ((bytes.len() as f64) * at) as usize;
    bytes[at] ^= 4;
    std::fs::write(&path, bytes).unwrap();
}
