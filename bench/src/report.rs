//! `millpond-bench report`: what runs found, as one page or as tables for a document.
//!
//! | module | holds |
//! |---|---|
//! | `view` | a run with its goals, and each figure with the goal that it decides |
//! | `page` | the page: one file, nothing from elsewhere |
//! | `head` | what to know first: goals met, and reasons to doubt |
//! | `goals` | every goal, the worst first |
//! | `bars` | ratios as bars, the worst first |
//! | `series` | throughput over time |
//! | `latency` | percentiles |
//! | `side` | several runs side by side |
//! | `table` | every figure with its proof |
//! | `about` | machine, settings, noise |
//! | `plot` | `Plot`: a frame with axes that fits any width |
//! | `scale` | values to places |
//! | `number` | values to words |
//! | `markdown` | the tables for a document |

mod about;
mod bars;
mod goals;
mod head;
mod latency;
mod markdown;
mod number;
mod page;
mod plot;
mod scale;
mod series;
mod side;
mod table;
mod view;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::record::RunRecord;
use view::View;

/// Draw what runs found: one page to look at, or tables for a document.
///
/// The page is a single file that fetches nothing. Runs of several products or versions are set
/// side by side, under the names that `--label` gave them when they were measured.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  millpond-bench all --out run.json
  millpond-bench report run.json -o report.html
  millpond-bench report before.json after.json -o report.html
  millpond-bench report run.json --markdown >> docs/BENCHMARKS.md")]
pub struct ReportArgs {
    /// What runs wrote with --out or --json
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Where the page goes [default: report.html; with --markdown the standard output]
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write tables in Markdown instead of a page
    #[arg(long)]
    pub markdown: bool,
}

/// Reads the runs and writes the report; to `stdout` goes the report or where it is.
///
/// # Errors
/// When a run cannot be read, or the report not be written.
pub fn run(args: &ReportArgs, stdout: &mut impl Write) -> Result<()> {
    let records = args.runs.iter().map(|path| RunRecord::load(path));
    let records = records.collect::<Result<Vec<_>>>()?;
    let text = if args.markdown {
        markdown(&records)?
    } else {
        html(&records)?
    };
    if args.markdown && args.out.is_none() {
        write!(stdout, "{text}")?;
        return Ok(());
    }
    let path = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("report.html"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(stdout, "wrote {}", path.display())?;
    Ok(())
}

/// The page.
///
/// # Errors
/// When the harness's own goals cannot be read.
pub fn html(records: &[RunRecord]) -> Result<String> {
    Ok(page::page(&View::of(records)?).into_string())
}

/// The tables, in GitHub's Markdown.
///
/// # Errors
/// When the harness's own goals cannot be read.
pub fn markdown(records: &[RunRecord]) -> Result<String> {
    Ok(markdown::tables(&View::of(records)?))
}
