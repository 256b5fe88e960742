//! Nothing that is inserted is lost silently, whatever fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millpond_store::{Admission, DiskConfig, DiskTier, Policy, Refusal, Store, StoreConfig};
use proptest::prelude::*;

use super::sick::Sick;
use super::support::{assert_accounted, assert_right, block, disk_usage, id};

const ROOM: u64 = 300_000;

#[derive(Debug, Clone)]
enum Action {
    Insert { key: u8, len: usize, held: bool },
    Read { key: u8 },
    Remove { key: u8 },
    Probe,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let key = 0u8..10;
    let action = prop_oneof![
        6 => (key.clone(), prop_oneof![1usize..400, 60_000usize..140_000], any::<bool>())
            .prop_map(|(key, len, held)| Action::Insert { key, len, held }),
        4 => key.clone().prop_map(|key| Action::Read { key }),
        1 => key.prop_map(|key| Action::Remove { key }),
        3 => Just(Action::Probe),
    ];
    proptest::collection::vec(action, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_operations_fail_every_insert_is_accounted_for(
        actions in actions(),
        failing in proptest::collection::vec(0u64..400, 0..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (sick, _healed) = Sick::new();
        let tier = DiskTier::open(DiskConfig {
            faults: sick.faults(),
            read_limit: Duration::from_secs(600),
            write_limit: Duration::from_secs(600),
            ..DiskConfig::new(dir.path().to_owned(), ROOM, None)
        });
        let tier = tier.unwrap();
        sick.fail_numbers(failing);
        let mut lens: HashMap<u8, usize> = HashMap::new();
        let mut inserts = 0;
        for action in actions {
            match action {
                Action::Insert { key, len, held } => {
                    let len = *lens.entry(key).or_insert(len);
                    let policy = if held { Policy::Hold } else { Policy::ScanResistant };
                    let id = id(key, 0);
                    let admission = tier.write_blocking(id, &block(&id, len).under(policy));
                    inserts += 1;
                    if admission == Admission::Accepted
                        && let Some(hit) = tier.read_blocking(&id, 0, len as u32)
                    {
                        assert_right(&hit, &id, len, 0);
                    }
                }
                Action::Read { key } => {
                    let id = id(key, 0);
                    let len = lens.get(&key).copied().unwrap_or(0);
                    match tier.read_blocking(&id, 0, len as u32) {
                        Some(hit) => assert_right(&hit, &id, len, 0),
                        // A miss is allowed, but not of what is said to be there twice.
                        None => prop_assert!(tier.read_blocking(&id, 0, len as u32).is_none()),
                    }
                }
                Action::Remove { key } => {
                    tier.remove(&id(key, 0));
                    prop_assert!(tier.read_blocking(&id(key, 0), 0, 0).is_none());
                }
                Action::Probe => tier.probe_blocking(),
            }
            let stats = tier.stats();
            prop_assert!(stats.disk_used <= ROOM, "{:?}", stats);
            // What cannot be removed stays accounted for; the probe's file may be there, too.
            prop_assert!(disk_usage(dir.path()) <= stats.disk_used + 4096, "{:?}", stats);
            assert_accounted(&stats, inserts);
        }
        // A disk that is well again takes blocks again.
        sick.heal();
        tier.probe_blocking();
        let id = id(77, 7);
        let admission = tier.write_blocking(id, &block(&id, 100));
        let full = matches!(admission, Admission::Refused(Refusal::Busy));
        prop_assert!(admission == Admission::Accepted || full, "{admission:?}");
    }
}

#[tokio::test]
async fn an_insert_tells_what_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let config = |memory| StoreConfig::new(memory, Some((path.clone(), ROOM)), None);
    let store = Store::open(config(0)).await.unwrap();
    let (small, large) = (id(1, 1), id(1, 2));
    let inserted = store.insert(small, block(&small, 100_000)).await;
    let too_large = Admission::Refused(Refusal::TooLarge);
    assert_eq!(
        (inserted.memory, inserted.now()),
        (too_large, Admission::Accepted)
    );
    let again = store.insert(small, block(&small, 100_000)).await;
    assert_eq!(again.now(), Admission::Present);
    assert_eq!(inserted.on_disk().await, Some(Admission::Accepted));
    assert!(again.on_disk().await.unwrap().is_in());
    let inserted = store.insert(large, block(&large, 400_000)).await;
    assert_eq!(inserted.on_disk().await, Some(too_large));
    assert_accounted(&store.stats(), 3);
    assert_eq!(store.stats().memory_refused, 3);
    let clone = store.clone();
    store.shutdown().await;
    let late = clone.insert(id(1, 3), block(&id(1, 3), 100)).await;
    assert_eq!(
        late.on_disk().await,
        Some(Admission::Refused(Refusal::Closed))
    );
    assert_accounted(&clone.stats(), 4);
    drop(clone);

    // What was said to be on disk outlives the store.
    let store = Store::open(config(0)).await.unwrap();
    assert_eq!(store.stats().disk_found, 1);
    let hit = store.read(&small, 0, 100_000).await.unwrap();
    assert_right(&hit, &small, 100_000, 0);

    let memory = Store::open(StoreConfig::new(1 << 20, None, None))
        .await
        .unwrap();
    let inserted = memory.insert(small, block(&small, 100)).await;
    assert_eq!(
        (inserted.now(), inserted.on_disk().await),
        (Admission::Accepted, None)
    );
}

#[tokio::test]
async fn many_inserts_at_once_all_have_an_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        write_buffer: 300_000,
        write_wait: Duration::from_millis(1),
        ..StoreConfig::new(0, Some((dir.path().join("d"), ROOM)), None)
    };
    let store = Arc::new(Store::open(config).await.unwrap());
    let inserts = (0..200u64).map(|n| {
        let store = Arc::clone(&store);
        async move {
            let id = id(1, n % 50);
            let inserted = store.insert(id, block(&id, 50_000)).await;
            inserted.on_disk().await.unwrap()
        }
    });
    let outcomes = futures::future::join_all(inserts).await;
    store.flush().await;
    let stats = store.stats();
    assert_accounted(&stats, 200);
    let refused = outcomes
        .iter()
        .filter(|o| matches!(o, Admission::Refused(_)));
    // Who came second for a block hears what became of the first.
    assert!(
        refused.count() as u64 >= stats.disk_refused.total(),
        "{stats:?}"
    );
    assert!(stats.disk_writes > 0, "{stats:?}");
}
