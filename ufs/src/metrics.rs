//! What is counted about the under-store.

use millpond_proto::ErrorKind;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::error::{Op, UfsError};

/// The counters of all under-stores of one process, built once and shared.
///
/// | name | labels | meaning |
/// |---|---|---|
/// | `millpond_ufs_requests_total` | `op`, `outcome` | calls; of a listing, pages; of a read, whole streams |
/// | `millpond_ufs_read_bytes_total` | | bytes that reads handed out |
/// | `millpond_ufs_written_bytes_total` | | bytes that writes sent to the end |
/// | `millpond_ufs_request_duration_seconds` | `op` | from call to last byte, waiting for a slot included |
/// | `millpond_ufs_hidden_names_total` | | names in listings that cannot be shown as files |
/// | `millpond_ufs_in_flight_requests` | | requests that are at a store |
/// | `millpond_ufs_in_flight_limit` | | how many may be, over all mounts: it follows what the stores can do |
/// | `millpond_ufs_waiting_requests` | | requests that wait for a slot or for the mount's budget |
/// | `millpond_ufs_refused_attempts_total` | | attempts that a store refused (429, 503) or left unanswered, those that were repeated included |
/// | `millpond_ufs_backoffs_total` | | how often a limit was lowered for that |
#[derive(Debug)]
pub struct UfsMetrics {
    requests: Family<RequestLabels, Counter>,
    read_bytes: Counter,
    written_bytes: Counter,
    durations: Family<OpLabel, Histogram, fn() -> Histogram>,
    hidden_names: Counter,
    in_flight: Gauge,
    limit: Gauge,
    waiting: Gauge,
    refused_attempts: Counter,
    backoffs: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    op: Op,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpLabel {
    op: Op,
}

/// How a call ended: a closed set, so that it can be a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Ok,
    /// The caller dropped the call or the stream before its end.
    Cancelled,
    Failed(ErrorKind),
}

impl UfsMetrics {
    /// Creates the metrics and registers them under `millpond_ufs_`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            read_bytes: Counter::default(),
            written_bytes: Counter::default(),
            durations: Family::new_with_constructor(new_histogram),
            hidden_names: Counter::default(),
            in_flight: Gauge::default(),
            limit: Gauge::default(),
            waiting: Gauge::default(),
            refused_attempts: Counter::default(),
            backoffs: Counter::default(),
        };
        registry.register(
            "millpond_ufs_requests",
            "Calls to the under-store by operation and outcome",
            metrics.requests.clone(),
        );
        registry.register(
            "millpond_ufs_read_bytes",
            "Bytes that reads from the under-store handed out",
            metrics.read_bytes.clone(),
        );
        registry.register(
            "millpond_ufs_written_bytes",
            "Bytes that writes to the under-store sent",
            metrics.written_bytes.clone(),
        );
        registry.register(
            "millpond_ufs_request_duration_seconds",
            "Duration of calls to the under-store, to the last byte",
            metrics.durations.clone(),
        );
        registry.register(
            "millpond_ufs_hidden_names",
            "Names in listings of the under-store that cannot be shown as files",
            metrics.hidden_names.clone(),
        );
        for (name, help, gauge) in [
            (
                "millpond_ufs_in_flight_requests",
                "Requests that are at a store",
                &metrics.in_flight,
            ),
            (
                "millpond_ufs_in_flight_limit",
                "How many requests may be at a store, over all mounts",
                &metrics.limit,
            ),
            (
                "millpond_ufs_waiting_requests",
                "Requests that wait for a slot or for the budget of their mount",
                &metrics.waiting,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "millpond_ufs_refused_attempts",
            "Attempts that a store refused or left unanswered, repeated ones included",
            metrics.refused_attempts.clone(),
        );
        registry.register(
            "millpond_ufs_backoffs",
            "How often the limit of requests at a store was lowered because it refused some",
            metrics.backoffs.clone(),
        );
        metrics
    }

    /// Bytes that reads handed out so far, over all mounts of the process.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    /// Bytes that writes sent so far, over all mounts of the process.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.get()
    }

    /// Calls of `op` that ended well so far, over all mounts of the process.
    pub fn succeeded(&self, op: Op) -> u64 {
        let labels = RequestLabels {
            op,
            outcome: Outcome::Ok,
        };
        self.requests.get_or_create(&labels).get()
    }

    /// Calls of `op` that ended in an error of `kind` so far.
    pub fn failed(&self, op: Op, kind: ErrorKind) -> u64 {
        let labels = RequestLabels {
            op,
            outcome: Outcome::Failed(kind),
        };
        self.requests.get_or_create(&labels).get()
    }

    /// Attempts that a store refused or left unanswered so far, over all mounts.
    pub fn refused_attempts(&self) -> u64 {
        self.refused_attempts.get()
    }

    /// How often a limit was lowered so far because a store refused requests.
    pub fn backoffs(&self) -> u64 {
        self.backoffs.get()
    }

    /// How many requests may be at a store now, over all mounts of the process.
    pub fn in_flight_limit(&self) -> u64 {
        self.limit.get().unsigned_abs()
    }

    /// How many are.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.get().unsigned_abs()
    }

    /// Requests that wait for a slot or for the budget of their mount.
    pub fn waiting(&self) -> u64 {
        self.waiting.get().unsigned_abs()
    }

    pub(crate) fn in_flight_changed(&self, by: i64) {
        self.in_flight.inc_by(by);
    }

    pub(crate) fn limit_changed(&self, by: i64) {
        self.limit.inc_by(by);
    }

    pub(crate) fn waiting_changed(&self, by: i64) {
        self.waiting.inc_by(by);
    }

    pub(crate) fn attempt_refused(&self) {
        self.refused_attempts.inc();
    }

    pub(crate) fn backed_off(&self) {
        self.backoffs.inc();
    }

    pub(crate) fn observe(&self, op: Op, outcome: Outcome, seconds: f64) {
        self.requests
            .get_or_create(&RequestLabels { op, outcome })
            .inc();
        self.durations
            .get_or_create(&OpLabel { op })
            .observe(seconds);
    }

    pub(crate) fn add_read_bytes(&self, bytes: u64) {
        self.read_bytes.inc_by(bytes);
    }

    pub(crate) fn add_written_bytes(&self, bytes: u64) {
        self.written_bytes.inc_by(bytes);
    }

    pub(crate) fn add_hidden_names(&self, names: u64) {
        self.hidden_names.inc_by(names);
    }
}

impl<T> From<&Result<T, UfsError>> for Outcome {
    fn from(result: &Result<T, UfsError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(error) => Self::Failed(error.kind()),
        }
    }
}

impl EncodeLabelValue for Op {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Open => "open",
            Self::Stat => "stat",
            Self::List => "list",
            Self::Read => "read",
            Self::ReadLink => "read_link",
            Self::Put => "put",
            Self::Upload => "upload",
            Self::Copy => "copy",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::CreateDir => "create_dir",
            Self::RemoveDir => "remove_dir",
            Self::Link => "link",
            Self::GetAttributes => "get_attributes",
            Self::SetAttributes => "set_attributes",
        }
        .encode(encoder)
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Failed(kind) => match kind {
                ErrorKind::NotFound => "not_found",
                ErrorKind::Invalid => "invalid",
                ErrorKind::Unsupported => "unsupported",
                ErrorKind::Denied => "denied",
                ErrorKind::Stale => "stale",
                ErrorKind::Busy => "busy",
                ErrorKind::Unavailable => "unavailable",
                ErrorKind::Timeout => "timeout",
                ErrorKind::Corrupt => "corrupt",
                ErrorKind::Internal => "internal",
            },
        }
        .encode(encoder)
    }
}

/// 1 ms to 65 s.
fn new_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_convention() {
        let mut registry = Registry::default();
        let metrics = UfsMetrics::new(&mut registry);
        metrics.observe(Op::Read, Outcome::Failed(ErrorKind::Stale), 0.5);
        metrics.add_read_bytes(7);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .expect("encoding into a string cannot fail");
        for line in [
            "millpond_ufs_requests_total{op=\"read\",outcome=\"stale\"} 1",
            "millpond_ufs_read_bytes_total 7",
            "millpond_ufs_request_duration_seconds_count{op=\"read\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
