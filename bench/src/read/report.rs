//! The figures, for people and for programs.

use std::fmt;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::args::{Pattern, ReadArgs};
use super::job::Measured;
use super::layout::Layout;
use crate::record::Machine;

/// All that a measurement says.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The commit of the harness, or its version.
    pub commit: String,
    /// The machine.
    pub machine: Machine,
    /// The directory or URI.
    pub target: String,
    /// The order of reads.
    pub pattern: Pattern,
    /// Bytes of one read.
    pub block_size: u64,
    /// Threads.
    pub jobs: usize,
    /// Seed of the random order.
    pub seed: u64,
    /// Files that were there.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Warm or cold, and what that meant.
    pub cache: CacheReport,
    /// Each run.
    pub runs: Vec<RunReport>,
    /// The run of median throughput.
    pub median: RunReport,
    /// What the machine can do.
    pub limit: LimitReport,
    /// Median throughput over the limit's.
    pub ratio: f64,
    /// The comparison, if one was asked for.
    pub verified: Option<VerifyReport>,
}

/// What was in caches.
#[derive(Debug, Clone, Serialize)]
pub struct CacheReport {
    /// `warm` or `cold`.
    pub state: String,
    /// Bytes of the files in the kernel's memory before the last drop.
    pub resident_before: Option<u64>,
    /// The same after it: what could not be dropped.
    pub resident_after: Option<u64>,
    /// What was dropped before each run.
    pub dropped: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// Seconds that it took.
    pub seconds: f64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Reads that were made.
    pub reads: u64,
    /// Reads that failed.
    pub errors: u64,
    /// What the first of them said.
    pub first_error: Option<String>,
    /// Throughput.
    pub gib_per_second: f64,
    /// Reads per second.
    pub iops: f64,
    /// Latency that half of the reads did not exceed.
    pub p50_us: f64,
    /// Latency that 99 of 100 reads did not exceed.
    pub p99_us: f64,
    /// The slowest read.
    pub max_us: f64,
    /// CPU time of this process per 10⁹ bytes; a mount's own process is not in it.
    pub cpu_seconds_per_gb: f64,
}

/// The machine's limit.
#[derive(Debug, Clone, Serialize)]
pub struct LimitReport {
    /// How it was measured.
    pub what: String,
    /// The figures.
    #[serde(flatten)]
    pub run: RunReport,
}

/// The comparison.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VerifyReport {
    /// Files compared.
    pub files: u64,
    /// Bytes that were equal.
    pub bytes: u64,
    /// Files that differ.
    pub mismatches: u64,
    /// The first difference.
    pub first: Option<String>,
}

impl RunReport {
    pub(super) fn new(measured: &Measured) -> Self {
        let seconds = measured.elapsed.as_secs_f64().max(1e-9);
        let micros = |latency: Duration| latency.as_nanos() as f64 / 1e3;
        let gigabytes = measured.bytes as f64 / 1e9;
        Self {
            seconds,
            bytes: measured.bytes,
            reads: measured.reads,
            errors: measured.errors,
            first_error: measured.first_error.clone(),
            gib_per_second: measured.bytes as f64 / seconds / (1u64 << 30) as f64,
            iops: measured.reads as f64 / seconds,
            p50_us: micros(measured.latency.quantile(0.5)),
            p99_us: micros(measured.latency.quantile(0.99)),
            max_us: micros(measured.latency.max()),
            cpu_seconds_per_gb: if gigabytes > 0.0 {
                measured.cpu_seconds / gigabytes
            } else {
                0.0
            },
        }
    }
}

impl Report {
    /// `runs` is not empty.
    pub(super) fn new(
        args: &ReadArgs,
        layout: &Layout,
        cache: CacheReport,
        runs: Vec<RunReport>,
        limit: LimitReport,
        verified: Option<VerifyReport>,
    ) -> Self {
        let mut sorted = runs.clone();
        sorted.sort_by(|a, b| a.gib_per_second.total_cmp(&b.gib_per_second));
        let median = sorted.swap_remove((sorted.len() - 1) / 2);
        let commit = option_env!("MILLPOND_COMMIT")
            .unwrap_or(concat!("version ", env!("CARGO_PKG_VERSION")));
        Self {
            commit: commit.to_owned(),
            machine: Machine::this(),
            target: args.target(),
            pattern: args.pattern,
            block_size: layout.block(),
            jobs: args.jobs,
            seed: args.seed,
            files: layout.files.len() as u64,
            bytes: layout.bytes(),
            cache,
            ratio: median.gib_per_second / limit.run.gib_per_second.max(f64::MIN_POSITIVE),
            runs,
            median,
            limit,
            verified,
        }
    }

    pub(super) fn first_error(&self) -> &str {
        self.runs
            .iter()
            .find_map(|run| run.first_error.as_deref())
            .unwrap_or("unknown")
    }
}

/// A table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, cache, .. } = self;
        let pattern = match self.pattern {
            Pattern::Sequential => "sequential",
            Pattern::Random => "random",
        };
        let mib = self.bytes as f64 / (1 << 20) as f64;
        writeln!(
            f,
            "{}: {} files, {mib:.1} MiB; {pattern}, {} B reads, {} jobs, {}",
            self.target, self.files, self.block_size, self.jobs, cache.state
        )?;
        writeln!(
            f,
            "on {} CPUs ({}), Linux {}",
            machine.cpus, machine.cpu, machine.kernel
        )?;
        writeln!(f, "dropped before each run: {}", cache.dropped.join("; "))?;
        if let (Some(before), Some(after)) = (cache.resident_before, cache.resident_after) {
            let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
            writeln!(
                f,
                "in the kernel's memory before the drop {:.1} MiB, after it {:.1} MiB",
                mib(before),
                mib(after)
            )?;
        }
        writeln!(f, "{}", self.table())?;
        writeln!(f, "limit: {}", self.limit.what)?;
        writeln!(f, "median / limit = {:.3}", self.ratio)?;
        match &self.verified {
            Some(verified) => writeln!(
                f,
                "verified: {} files, {} bytes equal, {} files differ",
                verified.files, verified.bytes, verified.mismatches
            ),
            None => writeln!(f, "not verified (--verify-against DIR compares every byte)"),
        }
    }
}

impl Report {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY).set_header([
            "", "MiB", "s", "GiB/s", "IOPS", "p50 µs", "p99 µs", "max µs", "CPU s/GB", "errors",
        ]);
        let runs = self.runs.iter().enumerate();
        let runs = runs.map(|(n, run)| (format!("run {}", n + 1), run));
        let rest = [
            ("median".to_owned(), &self.median),
            ("limit".to_owned(), &self.limit.run),
        ];
        for (name, run) in runs.chain(rest) {
            table.add_row([
                name,
                format!("{:.1}", run.bytes as f64 / (1 << 20) as f64),
                format!("{:.3}", run.seconds),
                format!("{:.3}", run.gib_per_second),
                format!("{:.0}", run.iops),
                format!("{:.1}", run.p50_us),
                format!("{:.1}", run.p99_us),
                format!("{:.1}", run.max_us),
                format!("{:.3}", run.cpu_seconds_per_gb),
                run.errors.to_string(),
            ]);
        }
        table
    }
}
