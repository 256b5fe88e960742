//! `millpond-bench compare`: what a later run did better or worse than an earlier one.
//!
//! | module | holds |
//! |---|---|
//! | `rule` | when a difference is more than noise |
//! | `differ` | [`Comparison`]: all figures of two runs, and what makes them hard to compare |
//! | `show` | the table |

mod differ;
mod rule;
mod show;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use millpond_process::UsageError;

use crate::record::RunRecord;
use crate::verdict::Missed;

pub use differ::{Comparison, Difference};
pub use rule::{Basis, Verdict, difference};

/// Compare a later run with an earlier one, figure by figure.
///
/// Ratios to the limit are compared where both runs have them, else the figures themselves: a
/// ratio holds on a machine that is slower today. A figure is better or worse when its median
/// changed by more than the larger of --tolerance and the noise of both runs together, where
/// the noise of a run is half the distance between its least and its most value over its
/// median; otherwise it is the same. A figure that failed in the later run only, or has errors
/// or wrong bytes there only, is worse.
///
/// The exit code is 3 when a figure is worse.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  millpond-bench compare before.json after.json
  millpond-bench compare before.json after.json --tolerance 10 --json")]
pub struct CompareArgs {
    /// The earlier run, as --out or --json wrote it
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// The later run
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// Changes of less than this many percent are not told from noise
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub tolerance: f64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Compares and prints.
///
/// # Errors
/// [`Missed`] when a figure is worse, [`UsageError`] for a tolerance that is none; when a run
/// cannot be read.
pub fn run(args: &CompareArgs, stdout: &mut impl Write) -> Result<()> {
    if !(0.0..100.0).contains(&args.tolerance) {
        let tolerance = args.tolerance;
        return Err(UsageError::new(format!("--tolerance {tolerance} is not 0 to 100")).into());
    }
    let (old, new) = (RunRecord::load(&args.old)?, RunRecord::load(&args.new)?);
    let comparison = Comparison::of(&old, &new, args.tolerance / 100.0);
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&comparison)?)?;
    } else {
        write!(stdout, "{}", show::table(&comparison))?;
    }
    let worse: Vec<&str> = comparison.worse().map(|row| row.id.as_str()).collect();
    match worse[..] {
        [] => Ok(()),
        [one] => Err(Missed::new(format!("{one} is worse than before")).into()),
        [one, ..] => {
            let count = worse.len();
            let message = format!("{count} figures are worse than before, {one} the most");
            Err(Missed::new(message).into())
        }
    }
}
