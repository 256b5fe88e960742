//! `millpond-bench herd`: many clients start cold on the same data at once.
//!
//! Nothing of the data is in the cluster, and each client has a cache of its own with nothing in
//! it: the start of a training job. The under-store should give each byte once, in as few
//! requests as there are blocks, and the herd should be done when the under-store alone could
//! have given one copy.
//!
//! # On one machine
//!
//! All clients, nodes and the under-store share this machine's processors, where a herd has a
//! machine for each client. So that the under-store is what everybody waits for, as it is there,
//! its total bandwidth is lowered (`--total-bandwidth`) to a fraction of what this machine can
//! hand out, and `cpu_share` beside the figures tells whether that was enough: near 1, the time
//! is the machine's and not the cluster's. With `--processes` each node has its third of that
//! bandwidth for itself, and one with more than a third of the blocks is slower than it would
//! be: the figure of a single process is the one to publish.
//!
//! | module | holds |
//! |---|---|
//! | `data` | the files, cold under a new name in each run |
//! | `alone` | the under-store alone: one copy in parallel ranged GETs |
//! | `crowd` | the clients |

mod alone;
mod crowd;
mod data;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use millpond_process::{Size, UsageError};

use crate::cluster::{Cluster, ClusterSpec, Kind, UfsUse};
use crate::measure::{Arm, Sample, Spread, interleave};
use crate::record::{Better, Detail, Proof, Row, Status};
use crate::scenario::{CommonArgs, Context};

use alone::Alone;
use crowd::Crowd;
use data::Data;

const SCENARIO: &str = "herd";
const NODES: usize = 3;
const SHAPE: &str = "s3-same-region";
const TOTAL_BANDWIDTH: Size = Size(32_000_000);
/// A node's tier holds five eighths of its memory.
const LEAST_NODE_MEMORY: u64 = 128 << 20;

/// Start many cold clients on the same data at once.
///
/// Each client is a library client with a cache of its own; the cluster has three nodes that
/// hold nothing of the data. Figures of the case N-clients: bytes (from the UFS over unique
/// bytes), gets (ranged reads of the UFS over blocks), time (over the time that the UFS alone
/// takes for one copy, in parallel ranged reads, in turn with the herd). Every byte is compared.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  millpond-bench herd
  millpond-bench herd --clients 32 --size 256MiB --mode shuffled
  millpond-bench herd --shape s3-cross-region --json")]
pub struct HerdArgs {
    /// Clients
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub clients: usize,
    /// Bytes of all files together [default: 128MiB, with --quick 32MiB]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Files
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub files: usize,
    /// In which order each client reads the files
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Together)]
    pub mode: Mode,
    /// Shape of the UFS, see "A store with a known shape" in OPERATIONS
    #[arg(long, value_name = "PRESET", default_value = SHAPE)]
    pub shape: String,
    /// What the UFS gives in total per second, low enough for this machine to hand it to all
    /// clients
    #[arg(long, value_name = "SIZE", default_value_t = TOTAL_BANDWIDTH)]
    pub total_bandwidth: Size,
    /// Share of UFS requests that fail, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub error_rate: f64,
    /// Block size of the cluster
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    pub block_size: Size,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// In which order each client reads the files. Within a file it is always from start to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// All in the same order
    Together,
    /// Each in an order of its own
    Shuffled,
}

impl HerdArgs {
    /// The flags' defaults.
    pub fn standard(common: CommonArgs) -> Self {
        Self {
            clients: 16,
            size: None,
            files: 4,
            mode: Mode::Together,
            shape: SHAPE.to_owned(),
            total_bandwidth: TOTAL_BANDWIDTH,
            error_rate: 0.0,
            block_size: Size::mib(4),
            common,
        }
    }

    fn validate(&self) -> Result<(), UsageError> {
        let wrong = |message: String| Err(UsageError::new(message));
        if !(1..=256).contains(&self.clients) {
            return wrong(format!("--clients {} is not in 1..=256", self.clients));
        }
        if !(1..=10_000).contains(&self.files) {
            return wrong(format!("--files {} is not in 1..=10000", self.files));
        }
        if let Some(size) = self.size
            && !(self.files as u64..=1 << 34).contains(&size.bytes())
        {
            return wrong(format!(
                "--size {size} is not between a byte for each file and 16GiB"
            ));
        }
        if !(0.0..=0.9).contains(&self.error_rate) {
            return wrong(format!(
                "--error-rate {} is not in 0..=0.9",
                self.error_rate
            ));
        }
        Ok(())
    }

    /// The options of a UFS that has `of` times less to give than the whole.
    fn options(&self, of: u64) -> BTreeMap<String, String> {
        let total = (self.total_bandwidth.bytes() / of).max(1);
        [
            ("shape", self.shape.clone()),
            ("shape.total_bandwidth", total.to_string()),
            ("shape.error_rate", self.error_rate.to_string()),
            ("shape.seed", self.common.seed.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

/// Measures the wanted cases.
///
/// # Errors
/// [`UsageError`] for flags without sense; when the cluster or the data cannot be set up.
pub fn run(context: &Context, args: &HerdArgs) -> Result<Vec<Row>> {
    args.validate()?;
    let case = format!("{}-clients", args.clients);
    if !context.wanted.wants(&case) {
        return Ok(Vec::new());
    }
    match measure(context, args) {
        Ok(runs) => Ok(rows(&case, &runs)),
        // Flags are not a figure that could not be taken.
        Err(error) if error.is::<UsageError>() => Err(error),
        Err(error) => {
            let failed = |figure| {
                let note = format!("{error:#}");
                Row::without(SCENARIO, case.clone(), figure, Status::Failed, note)
            };
            Ok(["bytes", "gets", "time"].map(failed).into())
        }
    }
}

/// What all runs did.
struct Runs {
    herd: Vec<Sample>,
    alone: Vec<Sample>,
    used: Vec<UfsUse>,
    unique_bytes: u64,
    blocks: u64,
    parallel: usize,
}

fn measure(context: &Context, args: &HerdArgs) -> Result<Runs> {
    context.step("herd: writing the data");
    let size = args
        .size
        .map_or_else(|| context.pick(128 << 20, 32 << 20), Size::bytes);
    let data = Data::write(context, size, args.files, context.runs)?;
    // All of it fits on each node: how blocks are spread is not measured here.
    let memory = Size(LEAST_NODE_MEMORY.max(size * 2));
    let spec = ClusterSpec {
        nodes: NODES,
        block_size: args.block_size.to_string(),
        node_memory: memory.to_string(),
        node_disk: "0".to_owned(),
        ..ClusterSpec::default()
    };
    let cluster = Cluster::start(context, spec, Kind::InProcess)?;
    // In one process all share the store; a process of its own has one of its own.
    let shares = if cluster.pids().is_empty() {
        1
    } else {
        NODES as u64
    };
    cluster.add_ufs("/herd", &data.uri(), &args.options(shares))?;

    let alone = Alone::new(context, &data, &args.options(1), args.block_size.bytes())?;
    context.step("herd: how the UFS alone is fastest");
    let parallel = alone.best_parallelism()?;
    let mut used = Vec::new();
    let samples = interleave(
        context.runs,
        &mut [
            Arm::new("the herd", |round| {
                context.step(format!("herd: run {} of {}", round + 1, context.runs));
                let crowd = Crowd::connect(context, &cluster, args.clients)?;
                let before = cluster.ufs_use(&[])?;
                let sample = crowd.read(&data, round, args.mode)?;
                let mut all = cluster.ufs_use(&[])? - before;
                all += crowd.finish()?;
                used.push(all);
                good(sample)
            }),
            Arm::new("the UFS alone", |round| good(alone.read(round, parallel)?)),
        ],
    )?;
    let [herd, alone] = <[Vec<Sample>; 2]>::try_from(samples)
        .ok()
        .context("two arms give two lists of samples")?;
    Ok(Runs {
        herd,
        alone,
        used,
        unique_bytes: size,
        blocks: data.blocks(args.block_size.bytes()),
        parallel,
    })
}

/// A sample in which nothing failed.
fn good(sample: Sample) -> Result<Sample> {
    ensure!(
        sample.errors == 0,
        "{} of {} reads failed, the first: {}",
        sample.errors,
        sample.ops,
        sample.first_error.as_deref().unwrap_or("without a message")
    );
    Ok(sample)
}

fn rows(case: &str, runs: &Runs) -> Vec<Row> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let median = |of: &dyn Fn(&Sample) -> f64| {
        Spread::of(runs.herd.iter().map(of)).map_or(f64::NAN, |spread| spread.median)
    };
    let cpu_share = median(&|sample| sample.cpu_seconds / sample.seconds() / cpus);
    let proof = Proof {
        verified_bytes: Some(runs.herd.iter().map(|sample| sample.bytes).sum()),
        mismatches: Some(0),
        ufs_requests: Some(runs.used.iter().map(|used| used.requests).sum()),
        ufs_bytes: Some(runs.used.iter().map(|used| used.bytes).sum()),
        kernel_cache: None,
    };
    let row = |figure: &str, values: Vec<f64>, note: &str| {
        let Some(spread) = Spread::of(values) else {
            let why = "a run without a figure";
            return Row::without(SCENARIO, case, figure, Status::Failed, why);
        };
        let mut row = Row::of(SCENARIO, case, figure, "ratio", Better::Lower, spread);
        row.detail = Detail::of(&runs.herd);
        row.with("cpu_share", cpu_share)
            .proved(proof.clone())
            .noted(note)
    };
    let used = |of: &dyn Fn(&UfsUse) -> u64, by: u64| {
        let ratio = |used: &UfsUse| of(used) as f64 / by as f64;
        runs.used.iter().map(ratio).collect()
    };
    let pairs = runs.herd.iter().zip(&runs.alone);
    let time = pairs.map(|(herd, alone)| herd.seconds() / alone.seconds());
    let alone = Spread::of(runs.alone.iter().map(Sample::seconds));
    vec![
        row(
            "bytes",
            used(&|used| used.bytes, runs.unique_bytes),
            "bytes from the UFS over unique bytes",
        ),
        row(
            "gets",
            used(&|used| used.gets, runs.blocks),
            "ranged reads of the UFS over blocks of the data",
        ),
        row(
            "time",
            time.collect(),
            &format!(
                "over the time of one copy from the UFS alone, in {} ranged reads at a time",
                runs.parallel
            ),
        )
        .with("herd_seconds", median(&Sample::seconds))
        .with(
            "alone_seconds",
            alone.map_or(f64::NAN, |spread| spread.median),
        ),
    ]
}

/// From the start of the first to the end of the last.
fn elapsed(clocks: &[(Instant, Instant)]) -> std::time::Duration {
    let first = clocks.iter().map(|(start, _)| *start).min();
    let last = clocks.iter().map(|(_, end)| *end).max();
    match (first, last) {
        (Some(first), Some(last)) => last - first,
        _ => std::time::Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn figures_are_quotients_run_by_run() {
        let sample = |millis| Sample {
            elapsed: Duration::from_millis(millis),
            bytes: 32,
            ..Sample::default()
        };
        let used = |requests, gets, bytes| UfsUse {
            requests,
            gets,
            bytes,
        };
        let runs = Runs {
            herd: vec![sample(400), sample(200)],
            alone: vec![sample(100), sample(200)],
            used: vec![used(9, 8, 200), used(5, 4, 100)],
            unique_bytes: 100,
            blocks: 4,
            parallel: 8,
        };
        let rows = rows("2-clients", &runs);
        let values = |row: &Row| row.value.clone().unwrap().values;
        assert_eq!(rows[0].id(), "herd/2-clients/bytes");
        assert_eq!(values(&rows[0]), [2.0, 1.0]);
        assert_eq!(values(&rows[1]), [2.0, 1.0]);
        assert_eq!(values(&rows[2]), [4.0, 1.0]);
        assert_eq!(rows[2].proof.ufs_bytes, Some(300));
        assert!(rows.iter().all(|row| row.better == Better::Lower));
    }
}
