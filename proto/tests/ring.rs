//! Properties of the ring: agreement, balance, minimal movement, distinct owners.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::collections::HashMap;

use millpond_proto::ring::{MAX_OWNERS, NORMAL_WEIGHT};
use millpond_proto::{BlockId, Epoch, FileId, Member, MemberState, NodeId, Ring};
use proptest::prelude::*;

fn member(id: u64, zone: &str, weight: u32) -> Member {
    Member {
        id: NodeId(id),
        addr: format!("10.0.0.{id}:7100"),
        admin: String::new(),
        zone: zone.to_owned(),
        weight,
        capacity: 1 << 30,
        state: MemberState::Active,
        incarnation: 1,
    }
}

fn members(n: u64) -> Vec<Member> {
    (1..=n).map(|id| member(id, "", NORMAL_WEIGHT)).collect()
}

fn ring(members: &[Member]) -> Ring {
    Ring::new(Epoch(1), members)
}

fn blocks(n: u64) -> impl Iterator<Item = BlockId> {
    (0..n).map(|i| {
        let mut file = [0; 16];
        file[..8].copy_from_slice(&(i / 256).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        BlockId::new(FileId(file), i % 256)
    })
}

fn load(ring: &Ring, keys: u64) -> HashMap<NodeId, u64> {
    let mut load = HashMap::new();
    for block in blocks(keys) {
        *load.entry(ring.owner(&block).unwrap()).or_default() += 1;
    }
    load
}

fn max_over_mean(nodes: u64, keys: u64) -> f64 {
    let max = load(&ring(&members(nodes)), keys)
        .into_values()
        .max()
        .unwrap();
    max as f64 / (keys as f64 / nodes as f64)
}

/// Placement is a wire format: another build must find the same owners.
#[test]
fn golden_owners_are_stable() {
    let ring = ring(&members(5));
    let owners: Vec<Vec<u64>> = blocks(4)
        .map(|b| ring.owners(&b, 3).as_slice().iter().map(|n| n.0).collect())
        .collect();
    assert_eq!(
        format!("{owners:?}"),
        "[[2, 5, 4], [5, 4, 3], [4, 3, 2], [4, 2, 5]]"
    );
    let path = ring.owners_of_path("/data/train/000.tar", 2);
    assert_eq!(format!("{path:?}"), "[node-4, node-5]");
}

#[test]
fn load_is_balanced() {
    assert!(max_over_mean(3, 100_000) <= 1.10);
    assert!(max_over_mean(10, 200_000) <= 1.10);
    assert!(max_over_mean(100, 400_000) <= 1.25);
}

#[test]
fn weight_scales_load() {
    let mut members = members(4);
    members[0].weight = 3 * NORMAL_WEIGHT;
    let load = load(&ring(&members), 100_000);
    let share = load[&NodeId(1)] as f64 / 100_000.0;
    assert!((share - 0.5).abs() < 0.05, "{share}");
}

#[test]
fn a_leave_moves_only_the_leavers_blocks() {
    let all = members(10);
    for gone in [1, 5, 10] {
        let rest: Vec<_> = all.iter().filter(|m| m.id.0 != gone).cloned().collect();
        let (before, after) = (ring(&all), ring(&rest));
        let mut moved = 0;
        for block in blocks(50_000) {
            let owner = before.owner(&block).unwrap();
            if owner == NodeId(gone) {
                moved += 1;
            } else {
                assert_eq!(after.owner(&block), Some(owner));
            }
        }
        let ratio = f64::from(moved) / 5_000.0;
        assert!((0.85..1.15).contains(&ratio), "{ratio}");
    }
}

#[test]
fn zones_are_spread_before_nodes_repeat_a_zone() {
    let members: Vec<_> = (1..=6)
        .map(|id| member(id, ["a", "b", "c"][id as usize % 3], NORMAL_WEIGHT))
        .collect();
    let ring = ring(&members);
    for block in blocks(500) {
        let owners = ring.owners(&block, 3);
        let mut zones: Vec<_> = owners.as_slice().iter().map(|n| n.0 % 3).collect();
        zones.sort_unstable();
        assert_eq!(zones, [0, 1, 2]);
    }
}

#[test]
fn an_empty_ring_has_no_owner() {
    let mut members = members(2);
    members[0].state = MemberState::Dead;
    members[1].state = MemberState::Left;
    let ring = ring(&members);
    assert!(ring.is_empty());
    assert_eq!(ring.owner(&blocks(1).next().unwrap()), None);
    assert!(
        ring.owners(&blocks(1).next().unwrap(), 3)
            .as_slice()
            .is_empty()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Owners are distinct, led by `owner`, and do not depend on the order of members.
    #[test]
    fn owners_are_distinct_and_agreed(
        count in 1u64..20, n in 1usize..12, seed in any::<u64>(), rotate in 0usize..20,
    ) {
        let all = members(count);
        let mut shuffled = all.clone();
        shuffled.rotate_left(rotate % all.len());
        let (a, b) = (ring(&all), ring(&shuffled));
        for i in 0..50 {
            let block = BlockId::new(FileId([(seed >> (i % 8)) as u8; 16]), seed ^ i);
            let owners = a.owners(&block, n);
            let owners = owners.as_slice();
            prop_assert_eq!(owners.len(), n.min(MAX_OWNERS).min(count as usize));
            prop_assert_eq!(Some(owners[0]), a.owner(&block));
            let other = b.owners(&block, n);
            prop_assert_eq!(owners, other.as_slice());
            let mut unique = owners.to_vec();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), owners.len());
        }
    }
}
