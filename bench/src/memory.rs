//! `millpond-bench memory`: whether processes keep to their `--memory-limit` (a mount) or
//! `--memory` (a node), whatever is read.

mod patterns;

use anyhow::{Context as _, Result};
use clap::Args;
use millpond_fuse::preflight;
use millpond_process::{Size, UsageError};
use millpond_proto::BlockSize;
use millpond_s3_fixture::S3Fixture;

use crate::cluster::{Cluster, ClusterSpec, Kind};
use crate::measure::{Spread, interrupt};
use crate::process_cluster::peak_rss;
use crate::record::{Better, Proof, Row, Status};
use crate::scenario::{CommonArgs, Context};

use patterns::{Plan, Tally};

const SCENARIO: &str = "memory";
const FIGURE: &str = "rss";
const MIB: u64 = 1 << 20;
/// What a process may use beside its limit: code, stacks, connections, metrics.
const BESIDE: u64 = 64 * MIB;
/// The cases: their limits, and how much is read in large files, in full and quick runs.
const CASES: [(&str, u64, u64, u64); 3] = [
    ("64m", 64 * MIB, 512 * MIB, 192 * MIB),
    ("256m", 256 * MIB, 1024 * MIB, 384 * MIB),
    ("1g", 1024 * MIB, 2560 * MIB, 640 * MIB),
];

/// Hold a mount and a node to their memory limits under load.
///
/// Each case starts a cluster of one node and a mount, with --memory and
/// --memory-limit at the limit, and reads through the mount: large files from start to end by 4 jobs, twice; pieces of 128 KiB
/// at random; small files; listings; 1,000 files open at one time with 64 readers. The figure is the larger of the two peaks of resident
/// memory (VmHWM) over the limit and 64 MiB.
///
/// --runs and --duration: clusters of each case [default: 1] and how long pieces are read at
/// random [default: 8s, with --quick 1s].
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  millpond-bench memory --quick
  millpond-bench memory --case 64m --block-size 1MiB
  millpond-bench memory --runs 3 --json")]
pub struct MemoryArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
    /// Block size of the clusters
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    pub block_size: Size,
    /// Bytes of large files that each case reads [default: 512MiB, 1GiB, 2.5GiB; with --quick
    /// 192MiB, 384MiB, 640MiB]
    #[arg(long, value_name = "SIZE")]
    pub dataset: Option<Size>,
}

impl MemoryArgs {
    /// The flags' defaults.
    pub const fn standard(common: CommonArgs) -> Self {
        Self {
            common,
            block_size: Size::mib(4),
            dataset: None,
        }
    }

    fn validate(&self) -> Result<(), UsageError> {
        BlockSize::new(self.block_size.bytes())
            .map_err(|error| UsageError::new(format!("--block-size: {error}")))?;
        if self.dataset.is_some_and(|size| size < Size::mib(4)) {
            return Err(UsageError::new("--dataset must be at least 4MiB"));
        }
        Ok(())
    }
}

/// One run of one case.
struct Peaks {
    tally: Tally,
    client: u64,
    node: u64,
    /// After which pattern each process had how much, by name.
    on_the_way: Vec<(String, u64)>,
}

/// Measures the wanted cases.
///
/// # Errors
/// [`UsageError`] for flags without sense, and when interrupted. What fails while others can
/// go on is a row.
pub fn run(context: &Context, args: &MemoryArgs) -> Result<Vec<Row>> {
    args.validate()?;
    let mut rows = Vec::new();
    for (case, limit, full, quick) in CASES {
        if !context.wanted.wants(case) {
            continue;
        }
        let bytes = context.pick(full, quick);
        let bytes = args.dataset.map_or(bytes, Size::bytes);
        let row = match preflight::check_right() {
            Ok(()) => measure(context, args, case, limit, bytes).unwrap_or_else(|error| {
                let why = failure(&format!("{error:#}"));
                Row::without(SCENARIO, case, FIGURE, Status::Failed, why)
            }),
            Err(why) => {
                let why = why.to_string();
                Row::without(SCENARIO, case, FIGURE, Status::Impossible, why)
            }
        };
        interrupt::check()?;
        rows.push(row);
    }
    Ok(rows)
}

fn measure(
    context: &Context,
    args: &MemoryArgs,
    case: &str,
    limit: u64,
    bytes: u64,
) -> Result<Row> {
    let plan = Plan::new(context, args, bytes);
    let runs: Vec<Peaks> = (0..args.common.runs.unwrap_or(1))
        .map(|_| one_run(context, args, case, limit, &plan))
        .collect::<Result<_>>()?;
    let allowed = (limit + BESIDE) as f64;
    let ratio = |peak: u64| peak as f64 / allowed;
    let worst = runs.iter().map(|run| ratio(run.client.max(run.node)));
    let value = Spread::of(worst).context("no run")?;
    let most = |peak: fn(&Peaks) -> u64| runs.iter().map(peak).max().unwrap_or_default();
    let (client, node) = (most(|run| run.client), most(|run| run.node));
    let mut row = Row::of(SCENARIO, case, FIGURE, "ratio", Better::Lower, value)
        .with("client_ratio", ratio(client))
        .with("node_ratio", ratio(node))
        .with("client_peak_mib", (client / MIB) as f64)
        .with("node_peak_mib", (node / MIB) as f64)
        .with("limit_mib", (limit / MIB) as f64);
    for (name, peak) in runs.iter().flat_map(|run| &run.on_the_way) {
        row = row.with(name, (peak / MIB) as f64);
    }
    let tally = runs
        .iter()
        .fold(Tally::default(), |sum, run| sum.and(&run.tally));
    row.detail.bytes = tally.verified;
    row.detail.ops = tally.reads;
    let fits = if bytes <= limit {
        " (less than the limit: nothing is evicted)"
    } else {
        ""
    };
    let note = format!(
        "peak resident memory over {} MiB, the worse of a mount and a node with --memory-limit and \
         --memory {} MiB; {}{fits}; blocks of {}",
        (limit + BESIDE) / MIB,
        limit / MIB,
        plan.describe(),
        args.block_size
    );
    let proof = Proof {
        verified_bytes: Some(tally.verified),
        mismatches: Some(tally.mismatches),
        ..Proof::default()
    };
    Ok(row.proved(proof).noted(note))
}

fn one_run(
    context: &Context,
    args: &MemoryArgs,
    case: &str,
    limit: u64,
    plan: &Plan,
) -> Result<Peaks> {
    let s3 = context.runtime.block_on(S3Fixture::start());
    plan.put(&s3);
    let memory = format!("{}MiB", limit / MIB);
    let spec = ClusterSpec {
        nodes: 1,
        block_size: args.block_size.to_string(),
        node_memory: memory.clone(),
        node_disk: "8GiB".to_owned(),
        heartbeat: "1s".to_owned(),
        death_timeout: "5s".to_owned(),
        log_level: "warn".to_owned(),
        one_host: false,
    };
    let mut cluster = Cluster::start(context, spec, Kind::Processes)?;
    cluster.add_ufs(
        "/data",
        &format!("s3://{}", patterns::BUCKET),
        &s3.options(),
    )?;
    let mount = cluster.mount(&["--memory-limit", &memory])?;
    let node = cluster.node(0).pid();
    let root = mount.path().join("data");
    let mut tally = Tally::default();
    let mut on_the_way = Vec::new();
    for pattern in plan.patterns() {
        context.step(format!("{case}: {}", pattern.name()));
        let done = plan.read(pattern, &root);
        let done = done.with_context(|| format!("reading: {}", pattern.name()))?;
        tally = tally.and(&done);
        for (process, pid) in [("client", mount.pid()), ("node", node)] {
            let name = format!("{process}_mib_after_{}", pattern.name());
            on_the_way.push((name, peak_rss(pid)?));
        }
    }
    Ok(Peaks {
        tally,
        client: peak_rss(mount.pid())?,
        node: peak_rss(node)?,
        on_the_way,
    })
}

/// What a process said when it refused to start, of an error that holds its whole log.
fn failure(error: &str) -> String {
    let said = error.lines().find_map(|line| line.strip_prefix("error: "));
    said.map_or_else(
        || error.to_owned(),
        |said| format!("it does not start: {said}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_reason_alone_is_shown() {
        let error = "node-0 did not start\n--- log of node-0 (2 lines)\nready\n\
                     error: memory of 1MiB is too little\n---: it ended";
        assert_eq!(
            failure(error),
            "it does not start: memory of 1MiB is too little"
        );
        assert_eq!(failure("other"), "other");
    }
}
