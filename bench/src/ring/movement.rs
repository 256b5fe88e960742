//! How many blocks change their owner when a node joins or leaves.

use anyhow::{Context, Result};
use millpond_proto::{BlockId, NodeId};

use super::SCENARIO;
use super::clusters::History;
use crate::measure::Spread;
use crate::record::{Better, Row};

/// What one join and one leave moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Movement {
    /// Blocks that moved at the join over one node's share of the blocks.
    join: f64,
    /// The same at the leave.
    leave: f64,
    /// Blocks that moved though the node that joined or left owned them neither before nor
    /// after. A consistent ring moves none.
    needless: u64,
}

impl Movement {
    /// Both together: one node's share more or less evens out over a join and a leave.
    fn ratio(&self) -> f64 {
        f64::midpoint(self.join, self.leave)
    }
}

/// Lets one node join and another leave the cluster in which `blocks` have these `owners`.
pub(super) fn measure(
    history: &History,
    owners: &[NodeId],
    blocks: impl Iterator<Item = BlockId>,
) -> Result<Movement> {
    let (with, without) = (history.ring_with(), history.ring_without());
    let (joiner, leaver) = (history.joiner(), history.leaver());
    let (mut join, mut leave) = (Tally::default(), Tally::default());
    for (block, &before) in blocks.zip(owners) {
        let nobody = || format!("nobody owns {block:?}");
        let after = with.owner(&block).with_context(nobody)?;
        join.count(before, after, joiner);
        let after = without.owner(&block).with_context(nobody)?;
        leave.count(before, after, leaver);
    }
    let share = |nodes: usize| owners.len() as f64 / nodes as f64;
    Ok(Movement {
        join: join.moved as f64 / share(history.len() + 1),
        leave: leave.moved as f64 / share(history.len()),
        needless: join.needless + leave.needless,
    })
}

#[derive(Debug, Default)]
struct Tally {
    moved: u64,
    needless: u64,
}

impl Tally {
    fn count(&mut self, before: NodeId, after: NodeId, changed: NodeId) {
        if before != after {
            self.moved += 1;
            self.needless += u64::from(before != changed && after != changed);
        }
    }
}

/// The row of some clusters.
pub(super) fn row(case: &str, movements: &[Movement]) -> Option<Row> {
    let of = |pick: fn(&Movement) -> f64| Spread::of(movements.iter().map(pick));
    let (join, leave) = (of(|one| one.join)?, of(|one| one.leave)?);
    let needless: u64 = movements.iter().map(|one| one.needless).sum();
    let mut row = Row::of(
        SCENARIO,
        case,
        "moved-over-ideal",
        "ratio",
        Better::Lower,
        of(Movement::ratio)?,
    )
    .with("clusters", movements.len() as f64)
    .with("join", join.median)
    .with("join_most", join.max)
    .with("leave", leave.median)
    .with("leave_most", leave.max)
    .with("moved_needlessly", needless as f64);
    if needless > 0 {
        row = row.noted(format!(
            "{needless} blocks moved between nodes that both stayed"
        ));
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::super::clusters::{blocks, owners};
    use super::*;

    #[test]
    fn a_join_and_a_leave_move_about_one_share_and_nothing_else() {
        let history = History::new(8, 1, 1);
        let blocks = blocks(1, 50_000);
        let owners = owners(&history.ring(), blocks.clone()).unwrap();
        let movement = measure(&history, &owners, blocks).unwrap();
        assert_eq!(movement.needless, 0);
        for ratio in [movement.join, movement.leave] {
            assert!((0.7..1.3).contains(&ratio), "{movement:?}");
        }
    }

    #[test]
    fn a_placement_that_reshuffles_is_caught() {
        let history = History::new(8, 1, 0);
        let blocks = blocks(1, 5_000);
        // As "block modulo nodes" would have placed them.
        let owners: Vec<NodeId> = (0..5_000).map(|n| NodeId(1 + n % 8)).collect();
        let movement = measure(&history, &owners, blocks).unwrap();
        assert!(
            movement.needless > 1_000 && movement.ratio() > 5.0,
            "{movement:?}"
        );
        assert!(row("moved", &[movement]).unwrap().note.is_some());
    }

    #[test]
    fn only_the_changed_nodes_blocks_move_of_need() {
        let mut tally = Tally::default();
        tally.count(NodeId(1), NodeId(1), NodeId(9));
        tally.count(NodeId(1), NodeId(9), NodeId(9));
        tally.count(NodeId(9), NodeId(1), NodeId(9));
        tally.count(NodeId(1), NodeId(2), NodeId(9));
        assert_eq!((tally.moved, tally.needless), (3, 1));
    }
}
