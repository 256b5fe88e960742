//! What is counted about the under-store.

use millpond_proto::ErrorKind;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::error::{Op, UfsError};

/// The counters of all under-stores of one process, built once and shared.
///
/// | name | labels | meaning |
/// |---|---|---|
/// | `millpond_ufs_requests_total` | `op`, `outcome` | calls; of a listing, pages; of a read, whole streams |
/// | `millpond_ufs_read_bytes_total` | | bytes that reads handed out |
/// | `millpond_ufs_request_duration_seconds` | `op` | from call to last byte, waiting for a slot included |
/// | `millpond_ufs_hidden_names_total` | | names in listings that cannot be shown as files |
#[derive(Debug)]
pub struct UfsMetrics {
    requests: Family<RequestLabels, Counter>,
    read_bytes: Counter,
    durations: Family<OpLabel, Histogram, fn() -> Histogram>,
    hidden_names: Counter,
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
            durations: Family::new_with_constructor(new_histogram),
            hidden_names: Counter::default(),
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
            "millpond_ufs_request_duration_seconds",
            "Duration of calls to the under-store, to the last byte",
            metrics.durations.clone(),
        );
        registry.register(
            "millpond_ufs_hidden_names",
            "Names in listings of the under-store that cannot be shown as files",
            metrics.hidden_names.clone(),
        );
        metrics
    }

    /// Bytes that reads handed out so far, over all mounts of the process.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
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
