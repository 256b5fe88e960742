//! `millpond-bench soak`: everything at once, for long.
//!
//! | module | holds |
//! |---|---|
//! | `lake` | the files, whose every word tells what it is |
//! | `readers` | what is done to them |

mod lake;
mod readers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use millpond_fuse::preflight;

use crate::cluster::{Cluster, ClusterSpec, Kind};
use crate::measure::{Spread, interrupt};
use crate::process_cluster::{Mount, rss};
use crate::record::{Better, Proof, Row, Status};
use crate::scenario::{CommonArgs, Context};

use lake::{CHANGING, Lake};
use readers::Tally;

const SCENARIO: &str = "soak";
const CASE: &str = "mixed";
const MIB: u64 = 1 << 20;
/// What a process may use beside its limit.
const BESIDE: u64 = 64 * MIB;
/// The memory limit of each mount.
const LIMIT: u64 = 256 * MIB;
/// Readers of each mount.
const READERS: u64 = 3;
/// How often something happens to the cluster or the store.
const CHURN: Duration = Duration::from_millis(700);

/// Read, list, replace files and kill nodes, all at random and at once, and compare every
/// byte.
///
/// A cluster of three nodes with little memory and disk, one mount of it with a local disk
/// tier and one without, three readers on each. Meanwhile files are replaced in the store, and nodes
/// are killed and started again, one at a time. Wrong bytes, errors, memory above the limit and file
/// descriptors that are never closed are what it looks for.
///
/// --duration is how long [default: 10m, with --quick 10s].
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  millpond-bench soak --quick
  millpond-bench soak --duration 2h --seed 7 --json")]
pub struct SoakArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// What a process held at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    rss: u64,
    descriptors: u64,
}

impl Held {
    fn of(pid: u32) -> Result<Self> {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).context("a mount ended")?;
        Ok(Self {
            rss: rss(pid)?,
            descriptors: open.count() as u64,
        })
    }
}

/// What was seen of the mounts' processes, the most of all of them, by quarter of the time.
#[derive(Debug, Default)]
struct Quarters([Held; 4]);

impl Quarters {
    fn note(&mut self, passed: f64, held: Held) {
        let quarter = ((passed * 4.0) as usize).min(3);
        let most = &mut self.0[quarter];
        most.rss = most.rss.max(held.rss);
        most.descriptors = most.descriptors.max(held.descriptors);
    }
}

/// Soaks a cluster.
///
/// # Errors
/// When it does not come up, a node that was killed does not come back, or it is interrupted.
pub fn run(context: &Context, args: &SoakArgs) -> Result<Vec<Row>> {
    if !context.wanted.wants(CASE) {
        return Ok(Vec::new());
    }
    if let Err(why) = preflight::check_right() {
        let row = Row::without(
            SCENARIO,
            CASE,
            "errors",
            Status::Impossible,
            why.to_string(),
        );
        return Ok(vec![row]);
    }
    let usual = Duration::from_secs(context.pick(600, 10));
    let time = args.common.duration.unwrap_or(usual);
    context.step("writing the data");
    let root = context.new_dir("lake")?;
    let lake = Lake::write(&root)?;
    let spec = ClusterSpec {
        nodes: 3,
        block_size: "1MiB".to_owned(),
        node_memory: "64MiB".to_owned(),
        node_disk: "128MiB".to_owned(),
        log_level: "error".to_owned(),
        one_host: true,
        ..ClusterSpec::default()
    };
    let mut cluster = Cluster::start(context, spec, Kind::Processes)?;
    let uri = format!("file://{}", root.display());
    cluster.add_ufs("/lake", &uri, &BTreeMap::new())?;
    let limit = format!("{}MiB", LIMIT / MIB);
    let tier = context.new_dir("tier")?;
    let tier = tier.to_string_lossy();
    let plain = ["--memory-limit", &limit, "--metadata-ttl", "200ms"];
    let tiered = [
        &plain[..],
        &["--cache-dir", &tier, "--cache-size", "100MiB"],
    ]
    .concat();
    let mounts = [cluster.mount(&plain)?, cluster.mount(&tiered)?];
    let (tally, quarters, changes) = soak(context, &mut cluster, &mounts, &lake, time)?;
    Ok(rows(tally, &quarters, changes, time))
}

fn soak(
    context: &Context,
    cluster: &mut Cluster,
    mounts: &[Mount],
    lake: &Lake,
    time: Duration,
) -> Result<(Tally, Quarters, u64)> {
    let stop = AtomicBool::new(false);
    let roots: Vec<_> = mounts
        .iter()
        .map(|mount| mount.path().join("lake"))
        .collect();
    let workers = roots
        .iter()
        .flat_map(|root| (0..READERS).map(move |_| root.as_path()));
    let workers: Vec<&Path> = workers.collect();
    let start_line = Barrier::new(workers.len() + 1);
    std::thread::scope(|scope| {
        let (stop, start_line) = (&stop, &start_line);
        let running: Vec<_> = workers
            .iter()
            .enumerate()
            .map(|(number, root)| {
                let seed = context.seed.wrapping_add(number as u64);
                scope.spawn(move || {
                    start_line.wait();
                    readers::read(root, lake, seed, stop)
                })
            })
            .collect();
        start_line.wait();
        let churned = churn(context, cluster, mounts, lake, time);
        stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for reader in running {
            tally.add(reader.join().map_err(|_| anyhow!("a reader panicked"))?);
        }
        let (quarters, changes) = churned?;
        Ok((tally, quarters, changes))
    })
}

/// Replaces files, kills and starts nodes, and watches the mounts, for `time`.
fn churn(
    context: &Context,
    cluster: &mut Cluster,
    mounts: &[Mount],
    lake: &Lake,
    time: Duration,
) -> Result<(Quarters, u64)> {
    let mut quarters = Quarters::default();
    let begun = Instant::now();
    let mut changes = 0;
    let mut killed = None;
    while begun.elapsed() < time {
        interrupt::check()?;
        std::thread::park_timeout(CHURN.min(time.saturating_sub(begun.elapsed())));
        context.step(format!("soaking for {} s", begun.elapsed().as_secs()));
        lake.replace(changes % CHANGING.count)?;
        // Every fourth time a node goes, and comes back two times later.
        match (changes % 4, killed) {
            (1, None) => {
                let node = (changes / 4 % 3) as usize;
                cluster.node(node).kill9();
                killed = Some(node);
            }
            (3, Some(node)) => {
                cluster.node(node).restart()?;
                killed = None;
            }
            _ => {}
        }
        changes += 1;
        for mount in mounts {
            let passed = begun.elapsed().as_secs_f64() / time.as_secs_f64();
            quarters.note(passed, Held::of(mount.pid())?);
        }
    }
    Ok((quarters, changes))
}

fn rows(tally: Tally, quarters: &Quarters, changes: u64, time: Duration) -> Vec<Row> {
    let lower = |figure: &str, unit: &str, value: f64| {
        Row::of(
            SCENARIO,
            CASE,
            figure,
            unit,
            Better::Lower,
            Spread::once(value),
        )
    };
    let peak = quarters
        .0
        .iter()
        .map(|held| held.rss)
        .max()
        .unwrap_or_default();
    let [_, early, _, late] = quarters.0;
    let more = late.descriptors as f64 / (early.descriptors as f64).max(1.0);
    let mut errors = lower("errors", "errors", tally.errors as f64)
        .with("replaced", changes as f64)
        .with("said_stale", tally.stale as f64);
    let what = format!(
        "{} s of 6 readers on 2 mounts while files were replaced and nodes killed",
        time.as_secs()
    );
    errors = errors.noted(match &tally.first {
        Some(first) => format!("{first}; {what}"),
        None => what,
    });
    errors.detail.ops = tally.ops;
    errors.detail.bytes = tally.bytes;
    errors.detail.errors = tally.errors;
    errors.detail.first_error = tally.first;
    let proof = Proof {
        verified_bytes: Some(tally.bytes),
        mismatches: Some(tally.mismatches),
        ..Proof::default()
    };
    let rss = lower("rss", "ratio", peak as f64 / (LIMIT + BESIDE) as f64);
    let descriptors = lower("descriptors", "ratio", more);
    vec![
        errors.proved(proof),
        rss.noted("most resident memory of a mount, by its limit and 64 MiB"),
        descriptors.noted("open file descriptors in the last quarter, by those in the second"),
    ]
}
