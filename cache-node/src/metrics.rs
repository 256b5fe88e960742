//! The node's counters: one set, read by Prometheus and by heartbeats alike.

mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use millpond_proto::wire::frame::Tier;
use millpond_proto::{ErrorKind, NodeStats};
use millpond_store::{BreakerState, DiskHealth, Store};

pub use self::store::StoreCollector;

/// The metrics of one node.
#[derive(Debug)]
pub struct NodeMetrics {
    started: Instant,
    block_reads: Family<ReadLabels, Counter>,
    fills: Family<FillLabels, Counter>,
    fill_duration: Family<FillLabels, Histogram>,
    /// Fills running or waiting for their turn.
    pub fills_in_flight: Gauge,
    /// Block bytes sent to clients and nodes.
    pub served_bytes: Counter,
    /// Ranged reads sent to the UFS for block data.
    pub ufs_reads: Counter,
    /// Fills whose block came with the read of another one.
    pub joined_fills: Counter,
    /// Block bytes received from the UFS.
    pub ufs_bytes: Counter,
    /// Block bytes received from other nodes.
    pub peer_bytes: Counter,
    metadata_answers: Family<MetadataLabels, Counter>,
    /// Questions about paths put to a UFS: one for each path or page of a listing.
    pub metadata_requests: Counter,
    /// The epoch of the view in use.
    pub epoch: Gauge,
    /// Heartbeats that a coordinator acknowledged.
    pub heartbeats: Counter,
    /// Heartbeats that failed.
    pub heartbeat_failures: Counter,
}

impl NodeMetrics {
    /// Registers the node's metrics under `millpond_node_`.
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self {
            started: Instant::now(),
            block_reads: Family::default(),
            fills: Family::default(),
            fill_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 16))
            }),
            fills_in_flight: Gauge::default(),
            served_bytes: Counter::default(),
            ufs_reads: Counter::default(),
            joined_fills: Counter::default(),
            ufs_bytes: Counter::default(),
            peer_bytes: Counter::default(),
            metadata_answers: Family::default(),
            metadata_requests: Counter::default(),
            epoch: Gauge::default(),
            heartbeats: Counter::default(),
            heartbeat_failures: Counter::default(),
        };
        let node = registry.sub_registry_with_prefix("millpond_node");
        node.register(
            "block_reads",
            "Block requests by where the bytes were and how they went",
            metrics.block_reads.clone(),
        );
        node.register(
            "fills",
            "Fills by source and outcome",
            metrics.fills.clone(),
        );
        node.register_with_unit(
            "fill_duration",
            "Time from the start of a fill to its end",
            Unit::Seconds,
            metrics.fill_duration.clone(),
        );
        node.register(
            "fills_in_flight",
            "Fills running or waiting for their turn",
            metrics.fills_in_flight.clone(),
        );
        node.register_with_unit(
            "served",
            "Block bytes sent to clients and nodes",
            Unit::Bytes,
            metrics.served_bytes.clone(),
        );
        node.register(
            "ufs_reads",
            "Ranged reads sent to the UFS for block data",
            metrics.ufs_reads.clone(),
        );
        node.register(
            "joined_fills",
            "Fills whose block came with the ranged read of another one",
            metrics.joined_fills.clone(),
        );
        node.register_with_unit(
            "ufs_read",
            "Block bytes received from the UFS",
            Unit::Bytes,
            metrics.ufs_bytes.clone(),
        );
        node.register_with_unit(
            "peer_read",
            "Block bytes received from other nodes",
            Unit::Bytes,
            metrics.peer_bytes.clone(),
        );
        node.register(
            "metadata_answers",
            "Questions about paths answered, by what was asked and who knew",
            metrics.metadata_answers.clone(),
        );
        node.register(
            "metadata_requests",
            "Questions about paths put to the UFS",
            metrics.metadata_requests.clone(),
        );
        node.register("epoch", "Epoch of the view in use", metrics.epoch.clone());
        node.register(
            "heartbeats",
            "Heartbeats that a coordinator acknowledged",
            metrics.heartbeats.clone(),
        );
        node.register(
            "heartbeat_failures",
            "Heartbeats that no coordinator acknowledged",
            metrics.heartbeat_failures.clone(),
        );
        Arc::new(metrics)
    }

    /// A question what is at a path was answered.
    pub fn stat_answered(&self, from: MetadataFrom) {
        self.count_metadata(MetadataOp::Stat, from);
    }

    /// A question for a page of a directory was answered.
    pub fn list_answered(&self, from: MetadataFrom) {
        self.count_metadata(MetadataOp::List, from);
    }

    fn count_metadata(&self, op: MetadataOp, from: MetadataFrom) {
        let labels = MetadataLabels { op, from };
        self.metadata_answers.get_or_create(&labels).inc();
    }

    /// A block request was answered from `tier`.
    pub fn read_served(&self, tier: Tier) {
        self.count_read(tier, Outcome::Ok);
    }

    /// A block request was answered with an error.
    pub fn read_failed(&self, kind: ErrorKind) {
        self.count_read(Tier::None, Outcome::Error(kind));
    }

    fn count_read(&self, tier: Tier, outcome: Outcome) {
        let labels = ReadLabels {
            tier: TierLabel(tier),
            outcome,
        };
        self.block_reads.get_or_create(&labels).inc();
    }

    /// A fill from `source` ended, with an error of kind `failure` or well.
    pub fn fill_ended(&self, source: Tier, failure: Option<ErrorKind>, elapsed: Duration) {
        let labels = FillLabels {
            source: TierLabel(source),
            outcome: failure.map_or(Outcome::Ok, Outcome::Error),
        };
        self.fills.get_or_create(&labels).inc();
        let histogram = self.fill_duration.get_or_create(&labels);
        histogram.observe(elapsed.as_secs_f64());
    }

    /// Block requests answered from `tier`.
    pub fn reads_from(&self, tier: Tier) -> u64 {
        let labels = ReadLabels {
            tier: TierLabel(tier),
            outcome: Outcome::Ok,
        };
        self.block_reads.get_or_create(&labels).get()
    }

    /// Block requests answered with an error of any kind.
    pub fn reads_failed(&self) -> u64 {
        let of_kind = |kind| {
            let labels = ReadLabels {
                tier: TierLabel(Tier::None),
                outcome: Outcome::Error(kind),
            };
            self.block_reads.get_or_create(&labels).get()
        };
        ErrorKind::ALL.into_iter().map(of_kind).sum()
    }

    /// What heartbeats and `Stats` requests carry.
    pub fn node_stats(&self, store: &Store) -> NodeStats {
        let stored = store.stats();
        let disks = store.disks();
        let gone_round = |state: fn(&DiskHealth) -> BreakerState| {
            let gone_round = |disk: &&DiskHealth| state(disk) != BreakerState::Normal;
            disks.iter().filter(gone_round).count() as u64
        };
        NodeStats {
            memory_used: stored.memory_used,
            memory_capacity: stored.memory_capacity,
            disk_used: stored.disk_used,
            disk_capacity: stored.disk_capacity,
            memory_blocks: stored.memory_blocks,
            disk_blocks: stored.disk_blocks,
            memory_hits: self.reads_from(Tier::Memory),
            disk_hits: self.reads_from(Tier::Disk),
            misses: self.reads_from(Tier::Ufs) + self.reads_from(Tier::Peer) + self.reads_failed(),
            served_bytes: self.served_bytes.get(),
            ufs_reads: self.ufs_reads.get(),
            ufs_bytes: self.ufs_bytes.get(),
            peer_bytes: self.peer_bytes.get(),
            corrupt: stored.corrupt,
            errors: self.reads_failed(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            disks_not_read: gone_round(|disk| disk.reads),
            disks_not_written: gone_round(|disk| disk.writes),
            disk_errors: stored.disk_errors + stored.disk_overdue,
            disk_refused: stored.disk_refused.total(),
            scrub_bytes: stored.scrub.bytes,
            scrub_bad_blocks: stored.scrub.bad_blocks,
            scrub_passes: stored.scrub.passes,
            scrub_permille: stored.scrub.permille,
        }
    }
}

/// Who knew the answer to a question about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetadataFrom {
    /// This node.
    Memory,
    /// The UFS, asked for this question or for one that it joined.
    Ufs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum MetadataOp {
    Stat,
    List,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MetadataLabels {
    op: MetadataOp,
    from: MetadataFrom,
}

impl EncodeLabelValue for MetadataFrom {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Memory => "memory",
            Self::Ufs => "ufs",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

impl EncodeLabelValue for MetadataOp {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Stat => "stat",
            Self::List => "list",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadLabels {
    tier: TierLabel,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FillLabels {
    source: TierLabel,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TierLabel(Tier);

impl EncodeLabelValue for TierLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self.0 {
            Tier::None => "none",
            Tier::Memory => "memory",
            Tier::Disk => "disk",
            Tier::Peer => "peer",
            Tier::Ufs => "ufs",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Outcome {
    Ok,
    Error(ErrorKind),
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Ok => "ok",
            Self::Error(kind) => match kind {
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
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}
