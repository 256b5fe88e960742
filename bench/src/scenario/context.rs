//! What a scenario is given to work with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::flags::CommonArgs;
use super::wanted::Wanted;

/// What a scenario is given to work with. Scenarios run on a thread that may block; what is
/// asynchronous runs on [`runtime`](Self::runtime).
#[derive(Debug)]
pub struct Context {
    /// Smaller data and shorter runs.
    pub quick: bool,
    /// Seed of all that is random.
    pub seed: u64,
    /// Runs of each case, at least 1.
    pub runs: usize,
    /// Length of a run that has no natural end.
    pub duration: Duration,
    /// Which cases to measure.
    pub wanted: Wanted,
    /// Start clusters as processes of their own, where in-process ones would do.
    pub processes: bool,
    /// For what is asynchronous.
    pub runtime: Handle,
    progress: ProgressBar,
    dir: TempDir,
}

impl Context {
    /// As the flags say. Must be called within a runtime.
    ///
    /// # Errors
    /// When no working directory can be made.
    pub fn new(args: &CommonArgs) -> Result<Self> {
        args.validate()?;
        let (runs, millis) = if args.quick { (3, 400) } else { (5, 2000) };
        let parent = args.work_dir.clone().unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new()
            .prefix("millpond-bench-")
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?;
        Ok(Self {
            quick: args.quick,
            seed: args.seed,
            runs: args.runs.unwrap_or(runs),
            duration: args
                .duration
                .unwrap_or_else(|| Duration::from_millis(millis)),
            wanted: Wanted::of(args.cases.iter().cloned()),
            processes: args.processes,
            runtime: Handle::current(),
            progress: spinner(),
            dir,
        })
    }

    /// The same for other cases.
    ///
    /// # Errors
    /// When no working directory can be made.
    pub fn with_wanted(&self, wanted: Wanted) -> Result<Self> {
        let parent = self.dir.path();
        let dir = tempfile::Builder::new()
            .tempdir_in(parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?;
        Ok(Self {
            wanted,
            runtime: self.runtime.clone(),
            progress: self.progress.clone(),
            dir,
            ..*self
        })
    }

    /// A directory that is removed at the end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new directory in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the directory {}", path.display()))?;
        Ok(path)
    }

    /// `full`, or `quick` with `--quick`.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Tells the user what is being done. On a terminal only.
    pub fn step(&self, what: impl Into<String>) {
        let what = what.into();
        tracing::debug!(what, "step");
        self.progress.set_message(what);
        self.progress.tick();
    }

    /// The line that [`step`](Self::step) writes, so that bars of scenarios go around it.
    pub const fn progress(&self) -> &ProgressBar {
        &self.progress
    }

    /// The settings that were in force, for the record.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let duration = humantime::format_duration(self.duration).to_string();
        [
            ("quick", self.quick.to_string()),
            ("seed", self.seed.to_string()),
            ("runs", self.runs.to_string()),
            ("duration", duration),
            ("processes", self.processes.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed}] {msg}") {
        bar.set_style(style);
    }
    bar
}
