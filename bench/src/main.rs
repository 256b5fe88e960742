//! `millpond-bench`: measures reads beside the limit of the machine.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use millpond_bench::read::{self, ReadArgs, Report};
use millpond_process::run;

/// Measures Millpond, and any other directory by the same code.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Read(ReadArgs),
}

fn main() -> ExitCode {
    let Command::Read(args) = Cli::parse().command;
    run::main(async move {
        let json = args.json;
        // It blocks and starts threads of its own.
        let report = tokio::task::spawn_blocking(move || read::measure(&args))
            .await
            .context("the measurement panicked")??;
        print(&report, json)?;
        read::judge(&report)
    })
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
