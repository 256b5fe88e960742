//! The best that any cache could have done. Pure.

use std::collections::{BTreeSet, HashMap};

/// For each access of `trace`, whether it hits in the best possible cache of `capacity` blocks
/// of equal size, which starts empty, knows the whole trace and need not keep what it reads.
///
/// It is Belady's MIN (A study of replacement algorithms for a virtual-storage computer, IBM
/// Systems Journal 5(2), 1966) with bypass: after each access it holds, of what it held and
/// what was read, the blocks that are needed again soonest. No other choice has more hits in
/// all.
pub fn best_hits(trace: &[u32], capacity: usize) -> Vec<bool> {
    let next = next_uses(trace);
    // The blocks that are held, by their next use, which is one of theirs alone.
    let mut held: BTreeSet<usize> = BTreeSet::new();
    let mut hits = Vec::with_capacity(trace.len());
    for (at, next) in next.iter().enumerate() {
        hits.push(held.remove(&at));
        if let Some(next) = next {
            held.insert(*next);
        }
        if held.len() > capacity {
            held.pop_last();
        }
    }
    hits
}

/// When each block that is accessed is accessed again.
fn next_uses(trace: &[u32]) -> Vec<Option<usize>> {
    let mut seen: HashMap<u32, usize> = HashMap::new();
    let mut next = vec![None; trace.len()];
    for (at, block) in trace.iter().enumerate().rev() {
        next[at] = seen.insert(*block, at);
    }
    next
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    fn hits(trace: &[u32], capacity: usize) -> usize {
        best_hits(trace, capacity)
            .into_iter()
            .filter(|hit| *hit)
            .count()
    }

    /// The most hits over all that a cache could ever do: it tries everything.
    fn most_hits(trace: &[u32], capacity: usize) -> usize {
        let mut states: HashMap<BTreeSet<u32>, usize> = HashMap::from([(BTreeSet::new(), 0)]);
        for block in trace {
            let mut after: HashMap<BTreeSet<u32>, usize> = HashMap::new();
            for (held, hits) in states {
                let hits = hits + usize::from(held.contains(block));
                let mut may: BTreeSet<u32> = held;
                may.insert(*block);
                for kept in subsets(&may, capacity) {
                    let best = after.entry(kept).or_default();
                    *best = hits.max(*best);
                }
            }
            states = after;
        }
        states.into_values().max().unwrap_or(0)
    }

    fn subsets(of: &BTreeSet<u32>, most: usize) -> Vec<BTreeSet<u32>> {
        let all: Vec<u32> = of.iter().copied().collect();
        (0..1u32 << all.len())
            .filter(|mask| mask.count_ones() as usize <= most)
            .map(|mask| {
                let chosen = all.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 1);
                chosen.map(|(_, block)| *block).collect()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn nothing_has_more_hits(
            trace in prop::collection::vec(0u32..6, 0..14),
            capacity in 0usize..5,
        ) {
            prop_assert_eq!(hits(&trace, capacity), most_hits(&trace, capacity));
        }

        #[test]
        fn more_room_never_has_fewer_hits(trace in prop::collection::vec(0u32..40, 0..300)) {
            let curve: Vec<_> = (0..41).map(|capacity| hits(&trace, capacity)).collect();
            prop_assert!(curve.is_sorted());
            let distinct = trace.iter().collect::<BTreeSet<_>>().len();
            prop_assert_eq!(curve[40], trace.len() - distinct);
            prop_assert_eq!(curve[0], 0);
        }
    }

    #[test]
    fn a_loop_keeps_a_part_of_itself() {
        // Four blocks in turn, room for two: two of the four can be had each time, but for the
        // one that makes room for another's next turn.
        let trace: Vec<u32> = (0..40).map(|n| n % 4).collect();
        let hits = best_hits(&trace, 2);
        assert!(hits[..4].iter().all(|hit| !hit));
        assert_eq!(
            hits.iter().filter(|hit| **hit).count(),
            most_hits(&trace, 2)
        );
    }
}
