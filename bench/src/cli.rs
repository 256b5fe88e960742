//! The command line: what there is to measure, and the way there.

use std::io::Write;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use millpond_bench::read::{self, ReadArgs, Report};
use millpond_bench::record::{Recorder, Row, RunRecord};
use millpond_bench::scenario::{CommonArgs, Context, OutputArgs};
use millpond_bench::{
    accelerators, checkpoint, epochs, faults, herd, limits, memory, peer, ring, small_files,
};

/// Measures Millpond, and any other directory by the same code, beside the limits of this
/// machine.
#[derive(Debug, Parser)]
#[command(name = "millpond-bench", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The help of each is that of its arguments.
#[derive(Debug, Subcommand)]
enum Command {
    Read(ReadArgs),
    Limits(limits::LimitsArgs),
    Peer(peer::PeerArgs),
    SmallFiles(small_files::SmallFilesArgs),
    Herd(herd::HerdArgs),
    Epochs(epochs::EpochsArgs),
    Accelerators(accelerators::AcceleratorsArgs),
    Checkpoint(checkpoint::CheckpointArgs),
    Faults(faults::FaultsArgs),
    Ring(ring::RingArgs),
    Memory(memory::MemoryArgs),
}

/// Runs the command.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Read(args) => read(args).await,
        Command::Limits(args) => {
            measure(args.common.clone(), move |context| {
                limits::run(context, &args)
            })
            .await
        }
        Command::Peer(args) => {
            measure(args.common.clone(), move |context| {
                peer::run(context, &args)
            })
            .await
        }
        Command::SmallFiles(args) => {
            measure(args.common.clone(), move |context| {
                small_files::run(context, &args)
            })
            .await
        }
        Command::Herd(args) => {
            measure(args.common.clone(), move |context| {
                herd::run(context, &args)
            })
            .await
        }
        Command::Epochs(args) => {
            measure(args.common.clone(), move |context| {
                epochs::run(context, &args)
            })
            .await
        }
        Command::Accelerators(args) => {
            measure(args.common.clone(), move |context| {
                accelerators::run(context, &args)
            })
            .await
        }
        Command::Checkpoint(args) => {
            measure(args.common.clone(), move |context| {
                checkpoint::run(context, &args)
            })
            .await
        }
        Command::Faults(args) => {
            measure(args.common.clone(), move |context| {
                faults::run(context, &args)
            })
            .await
        }
        Command::Ring(args) => {
            measure(args.common.clone(), move |context| {
                ring::run(context, &args)
            })
            .await
        }
        Command::Memory(args) => {
            measure(args.common.clone(), move |context| {
                memory::run(context, &args)
            })
            .await
        }
    }
}

/// Runs one scenario on a thread that may block, and shows what it found.
async fn measure(
    common: CommonArgs,
    scenario: impl FnOnce(&Context) -> Result<Vec<Row>> + Send + 'static,
) -> Result<()> {
    let output = common.output.clone();
    let label = output.label.clone();
    let record = tokio::task::spawn_blocking(move || -> Result<RunRecord> {
        let context = Context::new(&common)?;
        let recorder = Recorder::start();
        let rows = scenario(&context)?;
        Ok(recorder.finish(&label, context.settings(), rows))
    })
    .await
    .context("the measurement panicked")??;
    show(&record, &output)
}

fn show(record: &RunRecord, output: &OutputArgs) -> Result<()> {
    let json = serde_json::to_string(record)?;
    if let Some(path) = &output.out {
        std::fs::write(path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    if output.json {
        writeln!(out, "{json}")?;
    }
    Ok(())
}

async fn read(args: ReadArgs) -> Result<()> {
    let json = args.json;
    // It blocks and starts threads of its own.
    let report = tokio::task::spawn_blocking(move || read::measure(&args))
        .await
        .context("the measurement panicked")??;
    print(&report, json)?;
    read::judge(&report)
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}
