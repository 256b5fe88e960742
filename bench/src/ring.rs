//! `millpond-bench ring`: how evenly the ring places blocks, how many move when a node joins
//! or leaves, and what a lookup costs.
//!
//! | module | holds |
//! |---|---|
//! | `clusters` | rings of clusters of one size, and the blocks that are looked up |
//! | `balance` | the fullest node over the mean |
//! | `movement` | blocks that change their owner over those that have to |
//! | `lookup` | lookups per second, beside a binary search in as many points |

mod balance;
mod clusters;
mod lookup;
mod movement;

use anyhow::{Result, ensure};
use clap::Args;
use millpond_process::UsageError;

use crate::measure::interrupt;
use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

use clusters::{History, blocks};

const SCENARIO: &str = "ring";
/// Sizes that are measured unless told otherwise.
const NODES: [usize; 6] = [3, 10, 30, 100, 300, 1000];
/// No size is measured with fewer blocks than this: ± 0.5 % a node at 10 nodes.
const LEAST_BLOCKS: usize = 200_000;

/// Check the balance and the movement of the consistent-hash ring.
///
/// It is the ring of this build, with the virtual nodes that clusters use. Each size is measured
/// on several clusters: a young one, whose nodes are 1 to N, and older ones, whose node numbers
/// have gaps. The median is the figure.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  millpond-bench ring
  millpond-bench ring --case balance/100 --clusters 25
  millpond-bench ring --nodes 7,14 --json")]
pub struct RingArgs {
    /// Sizes of cluster
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = NODES)]
    pub nodes: Vec<usize>,
    /// Clusters of each size [default: 9, above 100 nodes 3; with --quick 3 and 1]
    #[arg(long, value_name = "N")]
    pub clusters: Option<usize>,
    /// Blocks for each node, at least 200,000 together; few make every ring look uneven
    /// [default: 2048, with --quick 512]
    #[arg(long, value_name = "N")]
    pub blocks: Option<usize>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

impl RingArgs {
    /// What `all` and `check` measure.
    pub fn standard(common: CommonArgs) -> Self {
        Self {
            nodes: NODES.to_vec(),
            clusters: None,
            blocks: None,
            common,
        }
    }

    fn validate(&self) -> Result<(), UsageError> {
        if self.nodes.is_empty() || self.nodes.iter().any(|nodes| !(2..=10_000).contains(nodes)) {
            return Err(UsageError::new("--nodes takes sizes from 2 to 10000"));
        }
        if self.clusters == Some(0) || self.blocks == Some(0) {
            return Err(UsageError::new(
                "--clusters 0 and --blocks 0 measure nothing",
            ));
        }
        Ok(())
    }

    fn clusters_of(&self, context: &Context, nodes: usize) -> usize {
        let usual = if nodes <= 100 {
            context.pick(9, 3)
        } else {
            context.pick(3, 1)
        };
        self.clusters.unwrap_or(usual)
    }

    fn blocks_of(&self, context: &Context, nodes: usize) -> usize {
        let each = self.blocks.unwrap_or_else(|| context.pick(2048, 512));
        (each * nodes).max(LEAST_BLOCKS)
    }
}

/// Measures the wanted cases.
///
/// # Errors
/// When the flags say nothing sensible, or the ring has no owner for a block.
pub fn run(context: &Context, args: &RingArgs) -> Result<Vec<Row>> {
    args.validate()?;
    let wanted = &context.wanted;
    let mut rows = Vec::new();
    let mut moves = Vec::new();
    for &nodes in &args.nodes {
        let moved = wanted.wants("moved") || wanted.wants(&format!("moved/{nodes}"));
        let balance = wanted.wants(&format!("balance/{nodes}"));
        if !moved && !balance {
            continue;
        }
        let (mut loads, mut movements) = (Vec::new(), Vec::new());
        for cluster in 0..args.clusters_of(context, nodes) {
            interrupt::check()?;
            context.step(format!("ring of {nodes} nodes, cluster {cluster}"));
            let history = History::new(nodes, context.seed, cluster);
            let ring = history.ring();
            ensure!(
                ring.len() == nodes,
                "the ring has {} nodes, not {nodes}",
                ring.len()
            );
            let blocks = blocks(
                context.seed + cluster as u64,
                args.blocks_of(context, nodes),
            );
            let owners = clusters::owners(&ring, blocks.clone())?;
            if balance {
                loads.push(balance::load(&owners, nodes));
            }
            if moved {
                movements.push(movement::measure(&history, &owners, blocks)?);
            }
        }
        rows.extend(balance::row(nodes, &loads));
        rows.extend(movement::row(&format!("moved/{nodes}"), &movements));
        moves.extend(movements);
    }
    if wanted.wants("moved") {
        rows.extend(movement::row("moved", &moves));
    }
    rows.extend(lookup::rows(context, &args.nodes)?);
    Ok(rows)
}
