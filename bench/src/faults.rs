//! `millpond-bench faults`: what readers notice when a node is killed, hangs, is cut off or
//! becomes slow, and how soon a node with a full disk serves again.
//!
//! | module | holds |
//! |---|---|
//! | `network` | a network that can be cut and slowed down without root |
//! | `load` | readers that compare every byte |
//! | `timeline` | every read with its time, and what that says about a fault |
//! | `scene` | cluster, network and readers together |
//! | `restart` | a start with many blocks on disk |
//! | `rows` | the figures |

pub(crate) mod load;
mod network;
mod restart;
mod rows;
mod scene;
mod tcp;
mod timeline;
mod udp;
mod weather;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use millpond_fuse::preflight;
use millpond_process::{Size, UsageError};

use crate::measure::interrupt;
use crate::record::{Row, Status};
use crate::scenario::{CommonArgs, Context};

use rows::{FIGURES, Runs, together};
use scene::{Fault, Scene, Times};

pub use network::Network;

const SCENARIO: &str = "faults";
/// The three faults that readers must hardly notice.
const TOGETHER: &str = "kill-stop-cut";
/// The longest read.
const MAX_READ: u64 = 16 << 20;

/// Kill, stop, cut off and slow down a node while it is read from.
///
/// Readers read pieces at random from warm nodes, without a pause, and compare every byte.
/// Cases: kill (SIGKILL, then a restart), stop (SIGSTOP, SIGCONT), cut (nothing reaches the
/// node or leaves it), slow (everything takes longer); kill-stop-cut is the worst of the first
/// three; restart is the time from a node's start to its first answer from a full disk.
///
/// --runs and --duration: runs of each fault [default: 1] and how long each lasts [default:
/// 12s, with --quick 6s]; runs of restart [default: 5, with --quick 3].
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  millpond-bench faults --quick
  millpond-bench faults --mount --case kill --duration 30s
  millpond-bench faults --case slow --delay 100ms --json
  millpond-bench faults --case restart --blocks 100000")]
pub struct FaultsArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
    /// Read through a FUSE mount instead of the client library
    #[arg(long)]
    pub mount: bool,
    /// Cache nodes
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub nodes: usize,
    /// Readers at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub jobs: usize,
    /// Bytes of one read
    #[arg(long, value_name = "SIZE", default_value = "128KiB")]
    pub read_size: Size,
    /// What `slow` adds to every round trip of the node
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "20ms")]
    pub delay: Duration,
    /// Option of the UFS, such as shape=s3-same-region; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = key_value)]
    pub options: Vec<(String, String)>,
    /// Blocks on the disk of the node that is restarted
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub blocks: u64,
    /// For restart: drop the whole machine's page cache before each start (root only)
    #[arg(long)]
    pub drop_caches: bool,
}

impl FaultsArgs {
    /// The flags' defaults.
    pub const fn standard(common: CommonArgs) -> Self {
        Self {
            common,
            mount: false,
            nodes: 3,
            jobs: 4,
            read_size: Size(128 << 10),
            delay: Duration::from_millis(20),
            options: Vec::new(),
            blocks: 100_000,
            drop_caches: false,
        }
    }

    fn validate(&self) -> Result<(), UsageError> {
        let wrong = |message: String| Err(UsageError::new(message));
        if !(2..=16).contains(&self.nodes) {
            return wrong(format!("--nodes {} is not in 2..=16", self.nodes));
        }
        if !(1..=256).contains(&self.jobs) {
            return wrong(format!("--jobs {} is not in 1..=256", self.jobs));
        }
        if !(1..=MAX_READ).contains(&self.read_size.bytes()) {
            let size = self.read_size;
            return wrong(format!("--read-size {size} is not in 1B..=16MiB"));
        }
        if !(1..=10_000_000).contains(&self.blocks) {
            return wrong(format!("--blocks {} is not in 1..=10000000", self.blocks));
        }
        if self.drop_caches && !nix::unistd::geteuid().is_root() {
            return wrong("--drop-caches needs root".to_owned());
        }
        Ok(())
    }
}

/// Measures the wanted cases.
///
/// # Errors
/// [`UsageError`] for flags without sense. What fails while others can go on is a row.
pub fn run(context: &Context, args: &FaultsArgs) -> Result<Vec<Row>> {
    args.validate()?;
    let wanted = &context.wanted;
    let all = [
        Fault::Kill,
        Fault::Stop,
        Fault::Cut,
        Fault::Slow(args.delay),
    ];
    let faults: Vec<Fault> = all
        .into_iter()
        .filter(|fault| {
            let of_three = !matches!(fault, Fault::Slow(_));
            wanted.wants(fault.name()) || of_three && wanted.wants(TOGETHER)
        })
        .collect();
    let mut rows = Vec::new();
    if !faults.is_empty() {
        rows = match preflight::check_right() {
            Err(why) if args.mount => {
                let why = format!("{why}; leave out --mount");
                without(&faults, Status::Impossible, &why)
            }
            _ => match Scene::start(context, args) {
                Ok(mut scene) => break_things(context, args, &mut scene, &faults)?,
                Err(error) => without(&faults, Status::Failed, &format!("{error:#}")),
            },
        };
        rows.retain(|row| wanted.wants(&row.case));
    }
    interrupt::check()?;
    if wanted.wants(restart::CASE) {
        rows.push(restart::run(context, args));
    }
    interrupt::check()?;
    Ok(rows)
}

fn break_things(
    context: &Context,
    args: &FaultsArgs,
    scene: &mut Scene<'_>,
    faults: &[Fault],
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut of_three = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        let times = times(context, args, *fault);
        // Another node each time.
        let victim = number % args.nodes;
        let runs: Result<Vec<_>> = (0..args.common.runs.unwrap_or(1))
            .map(|_| scene.run(*fault, victim, times))
            .collect();
        interrupt::check()?;
        match runs {
            Ok(runs) => {
                let what = what(args, times);
                let runs = Runs {
                    fault: *fault,
                    runs,
                    what,
                };
                rows.extend(runs.rows());
                of_three.extend((!matches!(fault, Fault::Slow(_))).then_some(runs));
            }
            // The scene may be broken for good: what follows would blame the wrong fault.
            Err(error) => {
                let why = format!("{error:#}");
                rows.extend(without(&faults[number..], Status::Failed, &why));
                return Ok(rows);
            }
        }
    }
    if of_three.len() == 3 {
        rows.extend(together(TOGETHER, &of_three.iter().collect::<Vec<_>>()));
    }
    Ok(rows)
}

fn times(context: &Context, args: &FaultsArgs, fault: Fault) -> Times {
    let slow = matches!(fault, Fault::Slow(_));
    let lasts = match (context.quick, slow) {
        (true, true) => 2500,
        // Longer than it takes to declare a node dead.
        (true, false) => 5500,
        (false, _) => 12_000,
    };
    let lasts = Duration::from_millis(lasts);
    Times {
        before: context.pick(Duration::from_secs(6), Duration::from_millis(1600)),
        fault: args.common.duration.unwrap_or(lasts),
        after: context.pick(Duration::from_secs(8), Duration::from_millis(1600)),
    }
}

fn what(args: &FaultsArgs, times: Times) -> String {
    let access = if args.mount {
        "a FUSE mount"
    } else {
        "the client library"
    };
    let ufs = match &args.options[..] {
        [] => "S3 on this machine, not slowed down".to_owned(),
        options => {
            let list: Vec<_> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("S3 on this machine with {}", list.join(" "))
        }
    };
    format!(
        "{} readers of {} at random from {} warm nodes through {access}; the fault lasts {:.1} s; \
         dead after 5 s; UFS: {ufs}",
        args.jobs,
        args.read_size,
        args.nodes,
        times.fault.as_secs_f64()
    )
}

/// Rows without figures, of these faults and of all that depend on them.
fn without(faults: &[Fault], status: Status, why: &str) -> Vec<Row> {
    let mut cases: Vec<(&str, &[&str])> = faults
        .iter()
        .map(|fault| (fault.name(), &FIGURES[..]))
        .collect();
    if faults.iter().any(|fault| !matches!(fault, Fault::Slow(_))) {
        cases.push((TOGETHER, &FIGURES[..3]));
    }
    let rows = cases.into_iter().flat_map(|(case, figures)| {
        let row = |figure: &&str| Row::without(SCENARIO, case, figure, status, why);
        figures.iter().map(row).collect::<Vec<_>>()
    });
    rows.collect()
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is not KEY=VALUE"))
}
