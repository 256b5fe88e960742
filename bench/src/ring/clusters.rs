//! Rings of clusters of one size, and the blocks that are looked up in them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use millpond_proto::ring::NORMAL_WEIGHT;
use millpond_proto::{BlockId, Epoch, FileId, Member, MemberState, NodeId, Ring};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Blocks of each file: 1 GiB in blocks of 4 MiB.
const FILE_BLOCKS: u64 = 256;

/// The numbers of the nodes that a cluster has left, after nodes joined and left.
#[derive(Debug, Clone)]
pub(super) struct History {
    nodes: Vec<u64>,
}

impl History {
    /// The first cluster is young: its nodes are 1 to `nodes`. Of the others' numbers three
    /// of four are gone.
    pub(super) fn new(nodes: usize, seed: u64, cluster: usize) -> Self {
        let mut ids: BTreeSet<u64> = BTreeSet::new();
        if cluster == 0 {
            ids.extend(1..=nodes as u64);
        }
        let mut random = StdRng::seed_from_u64(seed ^ ((cluster as u64) << 32));
        while ids.len() < nodes {
            ids.insert(random.random_range(1..=4 * nodes as u64));
        }
        Self {
            nodes: ids.into_iter().collect(),
        }
    }

    /// How many nodes there are.
    pub(super) const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node that leaves, in the middle of the numbers.
    pub(super) fn leaver(&self) -> NodeId {
        NodeId(self.nodes[self.nodes.len() / 2])
    }

    /// The node that joins: the next number.
    pub(super) fn joiner(&self) -> NodeId {
        NodeId(self.nodes.last().map_or(1, |last| last + 1))
    }

    /// The ring of all its nodes.
    pub(super) fn ring(&self) -> Ring {
        ring(self.nodes.iter().copied())
    }

    /// The ring after [`leaver`](Self::leaver) left.
    pub(super) fn ring_without(&self) -> Ring {
        let leaver = self.leaver();
        ring(
            self.nodes
                .iter()
                .copied()
                .filter(|node| NodeId(*node) != leaver),
        )
    }

    /// The ring after [`joiner`](Self::joiner) joined.
    pub(super) fn ring_with(&self) -> Ring {
        ring(self.nodes.iter().copied().chain([self.joiner().0]))
    }
}

/// The ring of nodes of equal weight.
pub(super) fn ring(nodes: impl Iterator<Item = u64>) -> Ring {
    let members: Vec<Member> = nodes.map(member).collect();
    Ring::new(Epoch(1), &members)
}

fn member(node: u64) -> Member {
    Member {
        id: NodeId(node),
        addr: String::new(),
        admin: String::new(),
        zone: String::new(),
        weight: NORMAL_WEIGHT,
        capacity: 1 << 30,
        state: MemberState::Active,
        incarnation: 1,
    }
}

/// `count` blocks of random files, the same for the same seed.
pub(super) fn blocks(seed: u64, count: usize) -> impl Iterator<Item = BlockId> + Clone {
    let mut random = StdRng::seed_from_u64(seed);
    let mut file = FileId([0; 16]);
    (0..count as u64).map(move |number| {
        let index = number % FILE_BLOCKS;
        if index == 0 {
            file = FileId(random.random());
        }
        BlockId::new(file, index)
    })
}

/// The owner of each block.
pub(super) fn owners(ring: &Ring, blocks: impl Iterator<Item = BlockId>) -> Result<Vec<NodeId>> {
    blocks
        .map(|block| {
            ring.owner(&block)
                .with_context(|| format!("nobody owns {block:?}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_one_size_differ_and_repeat() {
        let young = History::new(20, 1, 0);
        assert_eq!(young.nodes, (1..=20).collect::<Vec<_>>());
        let old = History::new(20, 1, 1);
        assert_eq!(old.len(), 20);
        assert_ne!(old.nodes, young.nodes);
        assert_eq!(old.nodes, History::new(20, 1, 1).nodes);
        assert_ne!(old.nodes, History::new(20, 2, 1).nodes);
        assert!(!old.nodes.contains(&old.joiner().0));
    }

    #[test]
    fn the_same_seed_gives_the_same_blocks() {
        let all: Vec<BlockId> = blocks(7, 1000).collect();
        assert_eq!(all, blocks(7, 1000).collect::<Vec<_>>());
        let unique: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(unique.len(), 1000);
        assert_ne!(all[0], blocks(8, 1).next().unwrap());
    }
}
