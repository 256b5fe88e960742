//! The command line: what there is to measure, and the way there.

use std::io::Write;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};
use millpond_bench::goals::{Goals, judge};
use millpond_bench::measure::interrupt;
use millpond_bench::plan::{self, Plan};
use millpond_bench::record::{GoalRow, Recorder, Row, RunRecord, Status};
use millpond_bench::scenario::{CommonArgs, Context, OutputArgs};
use millpond_bench::verdict::Missed;
use millpond_bench::{
    accelerators, checkpoint, compare, epochs, faults, field, herd, limits, memory, peer, read,
    report, ring, small_files, soak, summary,
};
use millpond_process::shutdown;

/// Measures Millpond, and any other directory by the same code, beside the limits of this
/// machine.
///
/// Each scenario starts what it needs, measures the thing and its limit in turn, verifies
/// bytes in the run, and prints ratios.
#[derive(Debug, Parser)]
#[command(name = "millpond-bench", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  Everything, roughly, in five minutes; the worst ratios first:
    millpond-bench all --quick
  Everything, for a report to look at:
    millpond-bench all --out run.json && millpond-bench report run.json -o report.html
  Is this goal met?
    millpond-bench check fuse.kernel_warm herd.bytes
  Another product's mount, by the same code:
    millpond-bench read --dir /mnt/other --pattern random --block-size 4KiB --jobs 4
  Did my change make anything worse?
    millpond-bench compare before.json after.json";

/// The help of each is that of its arguments.
#[derive(Debug, Subcommand)]
enum Command {
    All(AllArgs),
    Check(CheckArgs),
    Read(read::ReadArgs),
    SmallFiles(small_files::SmallFilesArgs),
    Peer(peer::PeerArgs),
    Herd(herd::HerdArgs),
    Epochs(epochs::EpochsArgs),
    Accelerators(accelerators::AcceleratorsArgs),
    Checkpoint(checkpoint::CheckpointArgs),
    Faults(faults::FaultsArgs),
    Field(field::FieldArgs),
    Memory(memory::MemoryArgs),
    Ring(ring::RingArgs),
    Soak(soak::SoakArgs),
    Limits(limits::LimitsArgs),
    Report(report::ReportArgs),
    Compare(compare::CompareArgs),
}

/// Run all scenarios and print one table of goals, the worst first.
///
/// With --quick it takes less than 5 minutes on two cores and measures what the goals need;
/// without, every case, for half an hour and longer. --out has what was measured so far after
/// each scenario.
#[derive(Debug, Clone, Args)]
struct AllArgs {
    #[command(flatten)]
    common: CommonArgs,
}

/// Measure just what some goals need, and exit with 3 when one is missed.
#[derive(Debug, Clone, Args)]
struct CheckArgs {
    /// Goals, or families of goals like `fuse.cold` [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Only list the goals
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the command.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::All(args) => all(args).await,
        Command::Check(args) => check(args).await,
        Command::Read(args) => one(args.common.clone(), move |c| read::run(c, &args)).await,
        Command::SmallFiles(args) => {
            one(args.common.clone(), move |c| small_files::run(c, &args)).await
        }
        Command::Peer(args) => one(args.common.clone(), move |c| peer::run(c, &args)).await,
        Command::Herd(args) => one(args.common.clone(), move |c| herd::run(c, &args)).await,
        Command::Epochs(args) => one(args.common.clone(), move |c| epochs::run(c, &args)).await,
        Command::Accelerators(args) => {
            one(args.common.clone(), move |c| accelerators::run(c, &args)).await
        }
        Command::Checkpoint(args) => {
            one(args.common.clone(), move |c| checkpoint::run(c, &args)).await
        }
        Command::Faults(args) => one(args.common.clone(), move |c| faults::run(c, &args)).await,
        Command::Field(args) => one(args.common.clone(), move |c| field::run(c, &args)).await,
        Command::Memory(args) => one(args.common.clone(), move |c| memory::run(c, &args)).await,
        Command::Ring(args) => one(args.common.clone(), move |c| ring::run(c, &args)).await,
        Command::Soak(args) => one(args.common.clone(), move |c| soak::run(c, &args)).await,
        Command::Limits(args) => one(args.common.clone(), move |c| limits::run(c, &args)).await,
        Command::Report(args) => report::run(&args, &mut std::io::stdout().lock()),
        Command::Compare(args) => compare::run(&args, &mut std::io::stdout().lock()),
    }
}

/// One scenario, with the goals that its figures decide.
async fn one(
    common: CommonArgs,
    scenario: impl FnOnce(&Context) -> Result<Vec<Row>> + Send + 'static,
) -> Result<()> {
    let output = common.output.clone();
    let record = record(common, move |run| {
        let figures = scenario(&run.context)?;
        let decided = |goal: &&_| decides(goal, &figures);
        let goals = Goals::built_in()?;
        let rows = goals
            .all()
            .iter()
            .filter(decided)
            .map(|goal| judge(goal, &figures));
        Ok((rows.collect(), figures))
    })
    .await?;
    show(&record, &output)?;
    sound(&record)
}

fn decides(goal: &millpond_bench::goals::Goal, figures: &[Row]) -> bool {
    let same = |row: &Row| {
        row.scenario == goal.scenario && row.case == goal.case && row.figure == goal.figure
    };
    figures.iter().any(same)
}

async fn all(args: AllArgs) -> Result<()> {
    let output = args.common.output.clone();
    let common = args.common.clone();
    let record = record(args.common, move |run| {
        let context = &run.context;
        let plan = context.pick(Plan::Everything, Plan::Goals);
        let goals = Goals::built_in()?;
        let keep = |figures: &[Row], rows: &[GoalRow]| run.keep(rows, figures);
        let (figures, rows) = plan::run(context, &common, &plan, goals.all(), keep)?;
        Ok((rows, figures))
    })
    .await?;
    show(&record, &output)?;
    sound(&record)
}

async fn check(args: CheckArgs) -> Result<()> {
    let goals = Goals::built_in()?.select(&args.ids)?;
    if args.list {
        let mut out = std::io::stdout().lock();
        for goal in &goals {
            let by = goal
                .divided_by
                .as_ref()
                .map_or_else(String::new, |by| format!(" ÷ {by}"));
            let (sign, value) = (goal.comparison.sign(), goal.value);
            writeln!(
                out,
                "{:<28} {sign} {value:<5.2} {}/{} {}{by}",
                goal.id, goal.scenario, goal.case, goal.figure
            )?;
        }
        return Ok(());
    }
    let output = args.common.output.clone();
    let common = args.common.clone();
    let record = record(args.common, move |run| {
        let keep = |figures: &[Row], rows: &[GoalRow]| run.keep(rows, figures);
        let (figures, rows) = plan::run(&run.context, &common, &Plan::Goals, &goals, keep)?;
        Ok((rows, figures))
    })
    .await?;
    show(&record, &output)?;
    sound(&record)?;
    let missed: Vec<&str> = record
        .goals
        .iter()
        .filter(|goal| !goal.met)
        .map(|goal| goal.id.as_str())
        .collect();
    if missed.is_empty() {
        return Ok(());
    }
    let count = record.goals.len();
    Err(Missed::new(format!(
        "{} of {count} goals missed: {}",
        missed.len(),
        missed.join(", ")
    ))
    .into())
}

/// A run under way.
struct Run {
    context: Context,
    recorder: Recorder,
    output: OutputArgs,
}

impl Run {
    fn record(&self, goals: Vec<GoalRow>, figures: Vec<Row>) -> RunRecord {
        let (label, settings) = (&self.output.label, self.context.settings());
        let record = self.recorder.record(label, settings, figures);
        RunRecord { goals, ..record }
    }

    /// Writes what was found until now to the file of `--out`: a long run that is interrupted
    /// was not for nothing.
    fn keep(&self, goals: &[GoalRow], figures: &[Row]) -> Result<()> {
        match &self.output.out {
            Some(path) => self.record(goals.to_vec(), figures.to_vec()).save(path),
            None => Ok(()),
        }
    }
}

/// Runs `work` on a thread that may block. A signal has it end between two runs, so that
/// what it started is taken down.
async fn record(
    common: CommonArgs,
    work: impl FnOnce(&Run) -> Result<(Vec<GoalRow>, Vec<Row>)> + Send + 'static,
) -> Result<RunRecord> {
    let mut working = tokio::task::spawn_blocking(move || -> Result<RunRecord> {
        let run = Run {
            context: Context::new(&common)?,
            recorder: Recorder::start(),
            output: common.output,
        };
        let (goals, figures) = work(&run)?;
        Ok(run.record(goals, figures))
    });
    let done = tokio::select! {
        done = &mut working => done,
        () = shutdown::signal() => {
            interrupt::interrupt();
            working.await
        }
    };
    done.context("the measurement panicked")?
}

fn show(record: &RunRecord, output: &OutputArgs) -> Result<()> {
    if let Some(path) = &output.out {
        record.save(path)?;
    }
    let mut out = std::io::stdout().lock();
    if output.json {
        writeln!(out, "{}", serde_json::to_string(record)?)?;
    } else {
        write!(out, "{}", summary::tables(record))?;
    }
    Ok(())
}

/// A run with failed reads, wrong bytes or failed cases is no success, whatever its figures.
fn sound(record: &RunRecord) -> Result<()> {
    for row in &record.figures {
        let id = row.id();
        if let Some(mismatches) = row.proof.mismatches.filter(|count| *count > 0) {
            anyhow::bail!("{id}: {mismatches} differences from what was written");
        }
        let first = row.detail.first_error.as_deref().unwrap_or("unknown");
        ensure!(
            row.detail.errors == 0,
            "{id}: {} failed; the first: {first}",
            row.detail.errors
        );
        let why = row.note.as_deref().unwrap_or("unknown");
        ensure!(
            row.status != Status::Failed,
            "{id} could not be measured: {why}"
        );
    }
    Ok(())
}
