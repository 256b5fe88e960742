//! What the client counts.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::disk::DiskMetrics;
use crate::sources::{Origin, SourceBytes};

/// The client's metrics, all named `millpond_client_…`.
#[derive(Debug)]
pub(crate) struct ClientMetrics {
    read_bytes: ByOrigin<Counter>,
    fetch_duration: ByOrigin<Histogram>,
    fallbacks: Family<FallbackLabel, Counter>,
    /// Second transfers of a piece beside a slow first one.
    pub(crate) hedges: Counter,
    /// Rounds of all sources that failed and were tried again.
    pub(crate) retries: Counter,
    /// Bytes of file data that this client itself read from a UFS.
    pub(crate) ufs_read_bytes: Counter,
    /// Bytes of file data received from cache nodes.
    pub(crate) peer_read_bytes: Counter,
    /// Bytes fetched before they were asked for.
    pub(crate) readahead_bytes: Counter,
    /// Of these, bytes whose readers went away before they came.
    pub(crate) recalled_bytes: Counter,
    /// Bytes of pieces in memory.
    pub(crate) cached_bytes: Gauge,
    /// Nodes that are gone round because the UFS is faster.
    pub(crate) nodes_gone_round: Gauge,
    metadata: Family<MetadataLabel, Counter>,
    /// The local disk tier's own.
    pub(crate) disk: DiskMetrics,
    /// Questions for attributes or a page of a listing that a store failed and that were put
    /// again.
    pub(crate) metadata_retries: Counter,
}

/// One metric per place that data comes from, without a map look-up.
#[derive(Debug)]
struct ByOrigin<M> {
    memory: M,
    disk: M,
    peer: M,
    ufs: M,
}

impl<M: Clone> ByOrigin<M> {
    fn of(make: impl Fn(&SourceLabel) -> M) -> Self {
        let at = |source| make(&SourceLabel { source });
        Self {
            memory: at(Source::Memory),
            disk: at(Source::Disk),
            peer: at(Source::Peer),
            ufs: at(Source::Ufs),
        }
    }

    const fn at(&self, origin: Origin) -> &M {
        match origin {
            Origin::Memory => &self.memory,
            Origin::Disk => &self.disk,
            Origin::Peer => &self.peer,
            Origin::Ufs => &self.ufs,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Memory,
    Disk,
    Peer,
    Ufs,
}

/// Why a read went on to the next source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fallback {
    /// The cluster has no node in service.
    NoNodes,
    /// The node is passed over because it did not answer lately.
    BreakerOpen,
    /// The node could not be reached.
    Unreachable,
    /// The node was too late.
    Timeout,
    /// The node stopped answering in the middle.
    Hung,
    /// The node lives but takes too long.
    Slow,
    /// The node is gone round because the UFS is faster lately.
    Slower,
    /// The UFS is measured in place of a node that may be slower.
    Sampled,
    /// The node has too much to do.
    Busy,
    /// The data did not match its checksums.
    Corrupt,
    /// The node says that the object changed, is gone, or that it may not read it.
    Refused,
    /// The node failed.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FallbackLabel {
    reason: Fallback,
}

/// How a metadata question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// From the cache.
    Hit,
    /// By the UFS.
    Miss,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MetadataLabel {
    answer: Answer,
}

impl ClientMetrics {
    /// Registers all metrics.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("millpond_client");
        let read_bytes = Family::<SourceLabel, Counter>::default();
        registry.register(
            "read_bytes",
            "Bytes handed to readers, by where they came from",
            read_bytes.clone(),
        );
        let fetch_duration = Family::<SourceLabel, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
        });
        registry.register(
            "fetch_duration_seconds",
            "Time to get one piece from a source",
            fetch_duration.clone(),
        );
        let fallbacks = Family::<FallbackLabel, Counter>::default();
        registry.register(
            "fallbacks",
            "Reads that went on to the next source",
            fallbacks.clone(),
        );
        let metadata = Family::<MetadataLabel, Counter>::default();
        registry.register(
            "metadata_lookups",
            "Questions for attributes, by who answered",
            metadata.clone(),
        );
        let disk = DiskMetrics::new(registry);
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::<u64>::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let hedges = counter("hedges", "Second transfers beside a slow first one");
        let retries = counter(
            "retries",
            "Rounds of all sources that failed and were repeated",
        );
        let ufs_read_bytes = counter("ufs_read_bytes", "File data read from a UFS directly");
        let peer_read_bytes = counter("peer_read_bytes", "File data received from cache nodes");
        let readahead_bytes = counter(
            "readahead_bytes",
            "Bytes fetched before they were asked for",
        );
        let recalled_bytes = counter(
            "readahead_recalled_bytes",
            "Bytes not fetched ahead after all, as their readers went away",
        );
        let metadata_retries = counter(
            "metadata_retries",
            "Questions for attributes or listings that failed and were repeated",
        );
        let cached_bytes = Gauge::<i64>::default();
        registry.register(
            "cached_bytes",
            "Bytes of file data in the local memory tier",
            cached_bytes.clone(),
        );
        let nodes_gone_round = Gauge::<i64>::default();
        registry.register(
            "nodes_gone_round",
            "Cache nodes that are gone round because the UFS is faster lately",
            nodes_gone_round.clone(),
        );
        Self {
            read_bytes: ByOrigin::of(|label| read_bytes.get_or_create(label).clone()),
            fetch_duration: ByOrigin::of(|label| fetch_duration.get_or_create(label).clone()),
            fallbacks,
            hedges,
            retries,
            ufs_read_bytes,
            peer_read_bytes,
            readahead_bytes,
            recalled_bytes,
            cached_bytes,
            nodes_gone_round,
            metadata,
            disk,
            metadata_retries,
        }
    }

    /// Counts bytes handed to a reader.
    pub(crate) fn count_read(&self, bytes: SourceBytes) {
        let counts = [
            (Origin::Memory, bytes.memory),
            (Origin::Disk, bytes.disk),
            (Origin::Peer, bytes.peer),
            (Origin::Ufs, bytes.ufs),
        ];
        for (origin, bytes) in counts {
            if bytes > 0 {
                self.read_bytes.at(origin).inc_by(bytes);
            }
        }
    }

    /// Bytes handed to readers so far.
    pub(crate) fn sources(&self) -> SourceBytes {
        SourceBytes {
            memory: self.read_bytes.memory.get(),
            disk: self.read_bytes.disk.get(),
            peer: self.read_bytes.peer.get(),
            ufs: self.read_bytes.ufs.get(),
        }
    }

    pub(crate) fn observe_fetch(&self, origin: Origin, took: Duration) {
        self.fetch_duration.at(origin).observe(took.as_secs_f64());
    }

    pub(crate) fn count_fallback(&self, reason: Fallback) {
        self.fallbacks
            .get_or_create(&FallbackLabel { reason })
            .inc();
    }

    pub(crate) fn count_metadata(&self, answer: Answer) {
        self.metadata.get_or_create(&MetadataLabel { answer }).inc();
    }
}

impl Source {
    const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Peer => "peer",
            Self::Ufs => "ufs",
        }
    }
}

impl Fallback {
    const fn word(self) -> &'static str {
        match self {
            Self::NoNodes => "no_nodes",
            Self::BreakerOpen => "breaker_open",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Hung => "hung",
            Self::Slow => "slow",
            Self::Slower => "slower",
            Self::Sampled => "sampled",
            Self::Busy => "busy",
            Self::Corrupt => "corrupt",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Answer {
    const fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
        }
    }
}

/// Label values are words in lower case, whatever the variants are called.
macro_rules! encode_as_word {
    ($($label:ty),*) => {$(
        impl EncodeLabelValue for $label {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                EncodeLabelValue::encode(&self.word(), encoder)
            }
        }
    )*};
}

encode_as_word!(Source, Fallback, Answer);
