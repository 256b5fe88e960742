//! The flags of `millpond-bench read`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use millpond_process::{Size, UsageError};
use serde::Serialize;

/// The most threads that read.
const MAX_JOBS: usize = 1024;
/// The largest single read.
const MAX_BLOCK: u64 = 1 << 30;

/// Read a directory or a UFS and say how fast, beside the limit of this machine.
#[derive(Debug, Clone, Args)]
pub struct ReadArgs {
    /// Directory to read: any mount, ours or another's
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "uri",
        conflicts_with = "uri"
    )]
    pub dir: Option<PathBuf>,
    /// UFS to read through the client library, without a mount
    #[arg(long, value_name = "URI")]
    pub uri: Option<String>,
    /// Option of the UFS; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", requires = "uri", value_parser = key_value)]
    pub options: Vec<(String, String)>,
    /// Memory of the client library for --uri
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub memory: Size,
    /// In which order
    #[arg(long, value_enum, default_value = "sequential")]
    pub pattern: Pattern,
    /// Bytes of one read
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    pub block_size: Size,
    /// Threads that read at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub jobs: usize,
    /// Drop caches before each run
    #[arg(long, conflicts_with = "warm")]
    pub cold: bool,
    /// Read everything once before the runs [the default]
    #[arg(long)]
    pub warm: bool,
    /// With --cold: also drop the whole machine's page cache (root only)
    #[arg(long, requires = "cold")]
    pub drop_caches: bool,
    /// Length of a run, which repeats or cuts short the pass over the data [default: one pass]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Runs; the median is the figure
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub runs: usize,
    /// Seed of the random order
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Compare every byte with the files of this directory, after the runs
    #[arg(long, value_name = "DIR")]
    pub verify_against: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The order of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Each job reads one stretch of the data from its start to its end.
    Sequential,
    /// Each block once, in a random order over all files.
    Random,
}

impl ReadArgs {
    /// Checks what the parser cannot.
    ///
    /// # Errors
    /// [`UsageError`] that names the flag.
    pub(super) fn validate(&self) -> Result<(), UsageError> {
        let wrong = |message: String| Err(UsageError::new(message));
        if !(1..=MAX_BLOCK).contains(&self.block_size.bytes()) {
            return wrong(format!(
                "--block-size {} is not in 1B..=1GiB",
                self.block_size
            ));
        }
        if !(1..=MAX_JOBS).contains(&self.jobs) {
            return wrong(format!("--jobs {} is not in 1..={MAX_JOBS}", self.jobs));
        }
        if self.runs == 0 {
            return wrong("--runs 0 measures nothing".to_owned());
        }
        if self.duration.is_some_and(|duration| duration.is_zero()) {
            return wrong("--duration 0s measures nothing".to_owned());
        }
        if self.drop_caches && !nix::unistd::geteuid().is_root() {
            return wrong(
                "--drop-caches needs root; without it --cold drops the pages of the \
                          files that are read"
                    .to_owned(),
            );
        }
        // The parser waives what an option needs when that conflicts with another.
        if self.dir.is_some() && !self.options.is_empty() {
            return wrong("--option is for the UFS of --uri; --dir takes none".to_owned());
        }
        for dir in [&self.dir, &self.verify_against].into_iter().flatten() {
            if !dir.is_dir() {
                return wrong(format!("{} is not a directory", dir.display()));
            }
        }
        Ok(())
    }

    /// What is read, for people.
    pub(super) fn target(&self) -> String {
        match (&self.dir, &self.uri) {
            (Some(dir), _) => dir.display().to_string(),
            (None, uri) => uri.clone().unwrap_or_default(),
        }
    }

    pub(super) fn ufs_options(&self) -> BTreeMap<String, String> {
        self.options.iter().cloned().collect()
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is not KEY=VALUE"))
}
