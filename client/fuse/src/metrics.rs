//! What a mount counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::control::OperationStats;
use crate::latency::Latencies;
use crate::passthrough::Passthrough;

/// Requests, bytes and times of the FUSE adapter. Built once per process, shared by its
/// mounts.
#[derive(Debug)]
pub struct FuseMetrics {
    /// One per (op, outcome), so that counting takes no lock.
    requests: [[Counter; OUTCOMES]; OPS],
    durations: [Histogram; OPS],
    latencies: [Latencies; OPS],
    stalls: Counter,
    read_bytes: Counter,
    written_bytes: Counter,
    pub(crate) inodes: Gauge,
    pub(crate) open_files: Gauge,
    pub(crate) passthrough_opens: Counter,
    /// One per state: 1 for the one that holds.
    passthrough: [Gauge; 4],
}

/// The kinds of requests that are counted one by one; the rest is `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Lookup,
    Getattr,
    Open,
    Read,
    Release,
    Opendir,
    Readdir,
    Readdirplus,
    Readlink,
    Xattr,
    Statfs,
    Forget,
    Write,
    Other,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// Answered on the thread that read it, without waiting.
    Hit,
    /// Answered by a task.
    Miss,
    /// There is nothing of that name.
    NotFound,
    /// Refused because the mount is read-only.
    ReadOnly,
    /// Failed.
    Error,
}

const OPS: usize = 14;
const OUTCOMES: usize = 5;

const ALL_OPS: [Op; OPS] = [
    Op::Lookup,
    Op::Getattr,
    Op::Open,
    Op::Read,
    Op::Release,
    Op::Opendir,
    Op::Readdir,
    Op::Readdirplus,
    Op::Readlink,
    Op::Xattr,
    Op::Statfs,
    Op::Forget,
    Op::Write,
    Op::Other,
];

const ALL_OUTCOMES: [Outcome; OUTCOMES] = [
    Outcome::Hit,
    Outcome::Miss,
    Outcome::NotFound,
    Outcome::ReadOnly,
    Outcome::Error,
];

/// A reader that waits for so long is held up.
const STALL: Duration = Duration::from_millis(100);

impl Op {
    const fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Getattr => "getattr",
            Self::Open => "open",
            Self::Read => "read",
            Self::Release => "release",
            Self::Opendir => "opendir",
            Self::Readdir => "readdir",
            Self::Readdirplus => "readdirplus",
            Self::Readlink => "readlink",
            Self::Xattr => "xattr",
            Self::Statfs => "statfs",
            Self::Forget => "forget",
            Self::Write => "write",
            Self::Other => "other",
        }
    }
}

impl EncodeLabelValue for Op {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.name(), encoder)
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::NotFound => "not_found",
            Self::ReadOnly => "read_only",
            Self::Error => "error",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    op: Op,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpLabels {
    op: Op,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassthroughLabels {
    state: Passthrough,
}

impl EncodeLabelValue for Passthrough {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.word(), encoder)
    }
}

impl FuseMetrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<OpLabels, Histogram>::new_with_constructor(|| {
            // 1 us to about 16 s.
            Histogram::new(exponential_buckets(1e-6, 4.0, 13))
        });
        let read_bytes = Counter::default();
        let written_bytes = Counter::default();
        let stalls = Counter::default();
        let inodes = Gauge::default();
        let open_files = Gauge::default();
        let passthrough_opens = Counter::default();
        let passthrough = Family::<PassthroughLabels, Gauge>::default();
        registry.register(
            "millpond_fuse_requests",
            "Requests from the kernel by operation and outcome",
            requests.clone(),
        );
        registry.register(
            "millpond_fuse_request_duration_seconds",
            "Time from a request to its reply",
            durations.clone(),
        );
        registry.register(
            "millpond_fuse_read_bytes",
            "Bytes of file data given to the kernel",
            read_bytes.clone(),
        );
        registry.register(
            "millpond_fuse_written_bytes",
            "Bytes of file data taken from the kernel",
            written_bytes.clone(),
        );
        registry.register(
            "millpond_fuse_stalls",
            "Reads that took 100 ms or more",
            stalls.clone(),
        );
        registry.register(
            "millpond_fuse_inodes",
            "Inodes that the kernel knows",
            inodes.clone(),
        );
        registry.register(
            "millpond_fuse_open_files",
            "Files that are open",
            open_files.clone(),
        );
        registry.register(
            "millpond_fuse_passthrough_opens",
            "Opens of files that the kernel then reads itself",
            passthrough_opens.clone(),
        );
        registry.register(
            "millpond_fuse_passthrough",
            "1 for whether the kernel reads files of the local disk tier itself, or why not",
            passthrough.clone(),
        );
        let counter = |op, outcome| {
            requests
                .get_or_create(&RequestLabels { op, outcome })
                .clone()
        };
        Self {
            requests: ALL_OPS.map(|op| ALL_OUTCOMES.map(|outcome| counter(op, outcome))),
            durations: ALL_OPS.map(|op| durations.get_or_create(&OpLabels { op }).clone()),
            latencies: ALL_OPS.map(|_| Latencies::new()),
            stalls,
            read_bytes,
            written_bytes,
            inodes,
            open_files,
            passthrough_opens,
            passthrough: Passthrough::ALL.map(|state| {
                passthrough
                    .get_or_create(&PassthroughLabels { state })
                    .clone()
            }),
        }
    }

    /// Bytes of file data given to the kernel so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    /// Requests so far, of all kinds.
    pub fn requests(&self) -> u64 {
        self.requests.iter().flatten().map(Counter::get).sum()
    }

    /// Reads that took [`STALL`] or more, so far.
    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.get()
    }

    /// Requests so far, by kind; kinds that there was none of are left out.
    pub(crate) fn operations(&self) -> BTreeMap<String, OperationStats> {
        let stats = ALL_OPS.map(|op| {
            let latency_us = self.latencies[op as usize].counts();
            let stats = OperationStats {
                requests: self.requests_of(op),
                errors: self.requests[op as usize][Outcome::Error as usize].get(),
                p50_us: latency_us.quantile(0.5),
                p99_us: latency_us.quantile(0.99),
                latency_us,
            };
            (op.name().to_owned(), stats)
        });
        let some = stats.into_iter().filter(|(_, stats)| stats.requests > 0);
        some.collect()
    }

    /// Shows how it stands with passing files through.
    pub(crate) fn show_passthrough(&self, holds: Passthrough) {
        for (gauge, state) in self.passthrough.iter().zip(Passthrough::ALL) {
            gauge.set(i64::from(state == holds));
        }
    }

    pub(crate) fn requests_of(&self, op: Op) -> u64 {
        self.requests[op as usize].iter().map(Counter::get).sum()
    }

    pub(crate) fn add_read_bytes(&self, bytes: usize) {
        self.read_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn add_written_bytes(&self, bytes: usize) {
        self.written_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn start(self: &Arc<Self>, op: Op) -> OpTimer {
        OpTimer {
            metrics: Arc::clone(self),
            op,
            started: Instant::now(),
        }
    }
}

/// One request under way.
#[derive(Debug)]
pub(crate) struct OpTimer {
    metrics: Arc<FuseMetrics>,
    op: Op,
    started: Instant,
}

impl OpTimer {
    pub(crate) fn finish(self, outcome: Outcome) {
        let op = self.op as usize;
        let took = self.started.elapsed();
        self.metrics.requests[op][outcome as usize].inc();
        self.metrics.durations[op].observe(took.as_secs_f64());
        self.metrics.latencies[op].note(took);
        if self.op == Op::Read && took >= STALL {
            self.metrics.stalls.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn tables_are_in_the_order_of_the_enums() {
        for (at, op) in ALL_OPS.into_iter().enumerate() {
            assert_eq!(op as usize, at);
        }
        for (at, outcome) in ALL_OUTCOMES.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
    }

    #[test]
    fn requests_bytes_and_times_are_exported() {
        let mut registry = Registry::default();
        let metrics = Arc::new(FuseMetrics::new(&mut registry));
        metrics.start(Op::Read).finish(Outcome::Hit);
        metrics.add_read_bytes(42);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(
            text.contains(r#"millpond_fuse_requests_total{op="read",outcome="hit"} 1"#),
            "{text}"
        );
        assert!(text.contains("millpond_fuse_read_bytes_total 42"), "{text}");
        assert!(
            text.contains(r#"millpond_fuse_request_duration_seconds_count{op="read"} 1"#),
            "{text}"
        );
    }
}
