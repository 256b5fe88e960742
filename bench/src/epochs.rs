//! `millpond-bench epochs`: training epochs over a tier smaller than the data set.
//!
//! Every epoch reads each sample once, which is the worst that can happen to a cache that keeps
//! what was read last: of a data set a little larger than itself it then has nothing. What
//! could be had at best is known afterwards, from the order of all reads (Belady); the figure is
//! the share of bytes that came from the tier over that.
//!
//! - A sample is a file of one block, so the order of samples is the order of blocks.
//! - The size of the data set follows from the capacity that the nodes report: at 25 % it has
//!   four times as many blocks as the tier has room for.
//! - The mount has the cache profile `dataset`, which is made for this.
//! - What did not come from the UFS came from the tier: each epoch has a client of its own with
//!   the least memory that one works with, and nothing in it.
//! - The first epoch is not counted: nobody can have anything then.
//!
//! | module | holds |
//! |---|---|
//! | [`belady`] | the best that any cache could have done |
//! | `trace` | the order of reads |
//! | `dataset` | the samples on disk |
//! | `training` | the epochs |

pub mod belady;
mod dataset;
mod trace;
mod training;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use millpond_process::{Size, UsageError};
use millpond_proto::profile::{PROFILE_OPTION, Profile};

use crate::cluster::{Cluster, ClusterSpec, Kind};
use crate::measure::Spread;
use crate::record::{Better, Detail, Proof, Row, Status};
use crate::scenario::{CommonArgs, Context};

use belady::best_hits;
use dataset::Dataset;
use trace::Order;
use training::{Outcome, Training};

const SCENARIO: &str = "epochs";
const FIGURE: &str = "hit-ratio";
const PERCENT: [u32; 4] = [25, 50, 75, 90];
const NODE_MEMORY: Size = Size::mib(64);
const BLOCK_SIZE: Size = Size(256 << 10);

/// Run training epochs over a tier smaller than the data set.
///
/// Cases: shuffled/P and sequential/P, with a tier of P % of the data set. The figure is the
/// share of bytes that came from the tier after the first epoch, over the best possible for the
/// very same order of reads (Belady). Every byte is compared. A run is an epoch: --epochs takes
/// the place of --runs and --duration.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  millpond-bench epochs
  millpond-bench epochs --case shuffled --epochs 6
  millpond-bench epochs --percent 60 --nodes 5 --json")]
pub struct EpochsArgs {
    /// Sizes of the tier in percent of the data set
    #[arg(long, value_name = "P,…", value_delimiter = ',', default_values_t = PERCENT)]
    pub percent: Vec<u32>,
    /// Epochs, the first of which fills the tier [default: 6, with --quick 3]
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Cache nodes [default: 2, with --quick 1]
    #[arg(long, value_name = "N")]
    pub nodes: Option<usize>,
    /// Memory of each node, of which the tier is a part
    #[arg(long, value_name = "SIZE", default_value_t = NODE_MEMORY)]
    pub node_memory: Size,
    /// Size of a block and of a sample
    #[arg(long, value_name = "SIZE", default_value_t = BLOCK_SIZE)]
    pub block_size: Size,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

impl EpochsArgs {
    /// The flags' defaults.
    pub fn standard(common: CommonArgs) -> Self {
        Self {
            percent: PERCENT.to_vec(),
            epochs: None,
            nodes: None,
            node_memory: NODE_MEMORY,
            block_size: BLOCK_SIZE,
            common,
        }
    }

    fn validate(&self) -> Result<(), UsageError> {
        let wrong = |message: String| Err(UsageError::new(message));
        if let Some(percent) = self.percent.iter().find(|p| !(5..=100).contains(*p)) {
            return wrong(format!("--percent {percent} is not in 5..=100"));
        }
        if let Some(epochs) = self.epochs
            && !(2..=100).contains(&epochs)
        {
            return wrong(format!("--epochs {epochs} is not in 2..=100"));
        }
        if let Some(nodes) = self.nodes
            && !(1..=16).contains(&nodes)
        {
            return wrong(format!("--nodes {nodes} is not in 1..=16"));
        }
        if self.node_memory > Size::gib(1) {
            let memory = self.node_memory;
            return wrong(format!(
                "--node-memory {memory} is above 1GiB; the data set would be many times that"
            ));
        }
        Ok(())
    }
}

/// Measures the wanted cases, each on a cluster of its own: what an earlier one left in the
/// tier would be in the way.
///
/// # Errors
/// [`UsageError`] for flags without sense; when the data cannot be written. A case that fails
/// is a row.
pub fn run(context: &Context, args: &EpochsArgs) -> Result<Vec<Row>> {
    args.validate()?;
    let sample = usize::try_from(args.block_size.bytes()).context("--block-size is too large")?;
    let mut dataset = Dataset::new(context, sample)?;
    let mut rows = Vec::new();
    for order in Order::ALL {
        for percent in &args.percent {
            let case = format!("{}/{percent}", order.name());
            if !context.wanted.wants(&case) {
                continue;
            }
            let row = measure(context, args, &mut dataset, order, *percent, &case);
            rows.push(row.unwrap_or_else(|error| {
                let note = format!("{error:#}");
                Row::without(SCENARIO, case, FIGURE, Status::Failed, note)
            }));
        }
    }
    Ok(rows)
}

fn measure(
    context: &Context,
    args: &EpochsArgs,
    dataset: &mut Dataset,
    order: Order,
    percent: u32,
    case: &str,
) -> Result<Row> {
    let spec = ClusterSpec {
        nodes: args.nodes.unwrap_or_else(|| context.pick(2, 1)),
        block_size: args.block_size.to_string(),
        node_memory: args.node_memory.to_string(),
        node_disk: "0".to_owned(),
        ..ClusterSpec::default()
    };
    let cluster = Cluster::start(context, spec, Kind::InProcess)?;
    let tier_blocks = capacity(&cluster)? / args.block_size.bytes();
    let samples = samples(tier_blocks, percent)?;
    dataset.extend_to(samples)?;
    let mount = format!("/{case}");
    let profile = (PROFILE_OPTION.to_owned(), Profile::Dataset.to_string());
    cluster.add_ufs(&mount, &dataset.uri(), &BTreeMap::from([profile]))?;
    let outcome = Training {
        context,
        cluster: &cluster,
        mount,
        order,
        samples,
        sample_bytes: args.block_size.bytes() as usize,
        epochs: args.epochs.unwrap_or_else(|| context.pick(6, 3)),
    }
    .run()?;
    row(case, &outcome, samples, tier_blocks)
}

/// Bytes of blocks that the memory tiers of all nodes may hold.
fn capacity(cluster: &Cluster) -> Result<u64> {
    let of_node = |index| {
        let metrics = cluster.node_metrics(index)?;
        let labels = ["tier=\"memory\""];
        anyhow::Ok(metrics.sum("millpond_node_tier_capacity_bytes", &labels) as u64)
    };
    let all: Result<Vec<u64>> = (0..cluster.nodes()).map(of_node).collect();
    let sum = all?.into_iter().sum();
    ensure!(sum > 0, "no node reports the capacity of its memory tier");
    Ok(sum)
}

/// Of how many samples a tier of so many blocks holds so many percent.
fn samples(tier_blocks: u64, percent: u32) -> Result<u32> {
    let samples = (tier_blocks * 100).div_ceil(u64::from(percent));
    u32::try_from(samples).context("too many samples")
}

fn row(case: &str, outcome: &Outcome, samples: u32, tier_blocks: u64) -> Result<Row> {
    let room = usize::try_from(tier_blocks).unwrap_or(usize::MAX);
    let best: Vec<f64> = best_hits(&outcome.trace, room)
        .chunks(samples as usize)
        .map(|epoch| epoch.iter().filter(|hit| **hit).count() as f64 / f64::from(samples))
        .collect();
    let came = outcome.runs.iter().zip(&outcome.ufs_bytes);
    let hits: Vec<f64> = came
        .map(|(run, ufs)| 1.0 - *ufs as f64 / run.bytes as f64)
        .map(|ratio| ratio.clamp(0.0, 1.0))
        .collect();
    let after_first = |ratios: &[f64]| Spread::of(ratios.iter().skip(1).copied());
    let mean = |ratios: &[f64]| ratios.iter().skip(1).sum::<f64>() / (ratios.len() - 1) as f64;
    let (value, limit) = after_first(&hits)
        .zip(after_first(&best))
        .context("there is no epoch after the first")?;
    let mut row = Row::of(SCENARIO, case, FIGURE, "ratio", Better::Higher, value);
    row.detail = Detail::of(&outcome.runs);
    Ok(row
        .against_value("best possible (Belady)", limit)
        .with("tier_blocks", tier_blocks as f64)
        .with("samples", f64::from(samples))
        .with("mean_hit_ratio", mean(&hits))
        .with("mean_best", mean(&best))
        .proved(Proof {
            verified_bytes: Some(outcome.runs.iter().map(|run| run.bytes).sum()),
            mismatches: Some(0),
            ufs_requests: Some(outcome.ufs_requests),
            ufs_bytes: Some(outcome.ufs_bytes.iter().sum()),
            kernel_cache: None,
        })
        .noted("bytes from the tier over bytes read, epoch by epoch after the first"))
}

#[cfg(test)]
mod tests {
    use crate::measure::Sample;

    use super::*;

    #[test]
    fn the_data_set_follows_from_the_tier() {
        assert_eq!(samples(100, 25).unwrap(), 400);
        assert_eq!(samples(100, 90).unwrap(), 112);
        assert_eq!(samples(100, 100).unwrap(), 100);
    }

    #[test]
    fn hits_are_held_against_the_best_of_the_same_reads() {
        // Four samples of 10 bytes in turn, three times, room for two.
        let run = || Sample {
            bytes: 40,
            ..Sample::default()
        };
        let outcome = Outcome {
            trace: [0, 1, 2, 3].repeat(3),
            runs: vec![run(), run(), run()],
            ufs_bytes: vec![40, 30, 50],
            ufs_requests: 12,
        };
        let row = row("sequential/50", &outcome, 4, 2).unwrap();
        assert_eq!(row.id(), "epochs/sequential/50/hit-ratio");
        // More from the UFS than was read is no hit, and not less than that.
        assert_eq!(row.value.as_ref().unwrap().values, [0.25, 0.0]);
        let limit = &row.limit.as_ref().unwrap().value;
        assert!(limit.values.iter().all(|best| (0.25..=0.5).contains(best)));
        assert!(row.ratio.unwrap().max <= 1.0);
        assert_eq!(row.proof.verified_bytes, Some(120));
    }
}
