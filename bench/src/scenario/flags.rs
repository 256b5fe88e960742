//! The flags of every scenario.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use millpond_process::UsageError;

/// How long and how often to measure, and on which cluster.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Seed of all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Runs of each case, in turn with runs of its limit; the median is the figure
    /// [default: 5, with --quick 3]
    #[arg(long, value_name = "N")]
    pub runs: Option<usize>,
    /// Length of one run where a run has no natural end [default: 2s, with --quick 400ms]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Smaller data and shorter runs: ratios to look at, not to publish
    #[arg(long)]
    pub quick: bool,
    /// Measure only this case, or all cases that begin so; may be repeated
    #[arg(long = "case", value_name = "CASE")]
    pub cases: Vec<String>,
    /// Start clusters as processes of their own, where in-process ones would do
    #[arg(long)]
    pub processes: bool,
    /// Directory for data sets, caches and mounts, on a real disk [default: the system's
    /// directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub output: OutputArgs,
}

/// Where figures go.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Also write that JSON object to a file, for `report` and `compare`
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// What the run is called in reports and comparisons
    #[arg(long, value_name = "NAME", default_value = "millpond")]
    pub label: String,
}

impl CommonArgs {
    /// Checks what the parser cannot.
    ///
    /// # Errors
    /// [`UsageError`] that names the flag.
    pub fn validate(&self) -> Result<(), UsageError> {
        if self.runs == Some(0) {
            return Err(UsageError::new("--runs 0 measures nothing"));
        }
        if self.duration.is_some_and(|duration| duration.is_zero()) {
            return Err(UsageError::new("--duration 0s measures nothing"));
        }
        if let Some(dir) = &self.work_dir
            && !dir.is_dir()
        {
            let dir = dir.display();
            return Err(UsageError::new(format!(
                "--work-dir {dir} is not a directory"
            )));
        }
        Ok(())
    }
}
