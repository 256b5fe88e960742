//! How evenly blocks are spread.

use std::collections::HashMap;

use millpond_proto::NodeId;
use millpond_proto::ring::VNODES;

use super::SCENARIO;
use crate::measure::Spread;
use crate::record::{Better, Row};

/// How full the nodes of one cluster are, over the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    fullest: f64,
    emptiest: f64,
    /// Standard deviation over the mean.
    deviation: f64,
    blocks: usize,
}

/// Of the nodes that own `owners`, `nodes` in all.
pub(super) fn load(owners: &[NodeId], nodes: usize) -> Load {
    let mut counts: HashMap<NodeId, u64> = HashMap::with_capacity(nodes);
    for owner in owners {
        *counts.entry(*owner).or_default() += 1;
    }
    let mean = owners.len() as f64 / nodes as f64;
    let over_mean = |count: u64| count as f64 / mean;
    let idle = nodes.saturating_sub(counts.len());
    let counts: Vec<u64> = counts
        .into_values()
        .chain(std::iter::repeat_n(0, idle))
        .collect();
    let variance = counts
        .iter()
        .map(|&count| (over_mean(count) - 1.0).powi(2))
        .sum::<f64>();
    Load {
        fullest: over_mean(counts.iter().copied().max().unwrap_or_default()),
        emptiest: over_mean(counts.iter().copied().min().unwrap_or_default()),
        deviation: (variance / nodes as f64).sqrt(),
        blocks: owners.len(),
    }
}

/// The row of one size.
pub(super) fn row(nodes: usize, loads: &[Load]) -> Option<Row> {
    let of = |pick: fn(&Load) -> f64| Spread::of(loads.iter().map(pick));
    let value = of(|load| load.fullest)?;
    let (emptiest, deviation) = (of(|load| load.emptiest)?, of(|load| load.deviation)?);
    let case = format!("balance/{nodes}");
    Some(
        Row::of(
            SCENARIO,
            case,
            "max-over-mean",
            "ratio",
            Better::Lower,
            value,
        )
        .with("clusters", loads.len() as f64)
        .with(
            "blocks",
            loads.iter().map(|load| load.blocks).sum::<usize>() as f64,
        )
        .with("virtual_nodes_each", f64::from(VNODES))
        .with("min_over_mean", emptiest.median)
        .with("deviation_over_mean", deviation.median),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(counts: &[usize]) -> Vec<NodeId> {
        let all = counts.iter().enumerate();
        all.flat_map(|(node, &count)| std::iter::repeat_n(NodeId(node as u64), count))
            .collect()
    }

    #[test]
    fn the_fullest_is_held_against_the_mean() {
        let load = load(&owners(&[1, 2, 3]), 3);
        assert_eq!((load.fullest, load.emptiest), (1.5, 0.5));
        assert!((load.deviation - (0.5f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_node_that_owns_nothing_counts() {
        let load = load(&owners(&[2, 2]), 4);
        assert_eq!((load.fullest, load.emptiest), (2.0, 0.0));
        assert_eq!(super::load(&owners(&[5, 5]), 2).deviation, 0.0);
    }
}
