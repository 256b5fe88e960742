//! What the local disk tier counts.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The tier's metrics, all named `millpond_client_disk_…`. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct DiskMetrics {
    offers: Family<OfferLabel, Counter>,
    errors: Family<ErrorLabel, Counter>,
    /// Pages that did not match their checksums.
    pub(super) corrupt_pages: Counter,
    /// Bytes written.
    pub(super) written_bytes: Counter,
    /// Files removed to make room.
    pub(super) evicted_files: Counter,
    /// Files removed because a later version of them is known.
    pub(super) replaced_files: Counter,
    /// Room that all files take.
    pub(super) used_bytes: Gauge,
    /// Files held, in whole or in part.
    pub(super) files: Gauge,
}

/// What became of a range that was fetched and offered to the tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Offer {
    /// Its whole pages are there now.
    Stored,
    /// It has no whole page.
    Partial,
    /// Too much was waiting to be written.
    Busy,
    /// All room is taken by files that are in use, or by this one.
    Full,
    /// The disk failed, or is left alone for a while because it did.
    Failed,
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Failure {
    /// Opening or reading.
    Read,
    /// Writing or making room.
    Write,
    /// A write that was taken turned out to have failed.
    Sync,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfferLabel {
    outcome: Offer,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabel {
    op: Failure,
}

impl DiskMetrics {
    /// Registers all metrics below the client's prefix.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("disk");
        let offers = Family::<OfferLabel, Counter>::default();
        registry.register(
            "inserts",
            "Fetched ranges that were to go to the local disk tier",
            offers.clone(),
        );
        let errors = Family::<ErrorLabel, Counter>::default();
        registry.register("errors", "Failures of the local disk", errors.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::<u64>::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let corrupt_pages = counter(
            "corrupt_pages",
            "Pages on the local disk that did not match their checksums",
        );
        let written_bytes = counter("written_bytes", "Bytes written to the local disk tier");
        let evicted_files = counter("evicted_files", "Files removed to make room for others");
        let replaced_files = counter(
            "replaced_files",
            "Files removed because a later version is known",
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::<i64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let used_bytes = gauge("used_bytes", "Room that the local disk tier takes");
        let files = gauge("files", "Files in the local disk tier, whole or in part");
        Self {
            offers,
            errors,
            corrupt_pages,
            written_bytes,
            evicted_files,
            replaced_files,
            used_bytes,
            files,
        }
    }

    pub(super) fn count_offer(&self, outcome: Offer) {
        self.offers.get_or_create(&OfferLabel { outcome }).inc();
    }

    pub(super) fn count_failure(&self, op: Failure) {
        self.errors.get_or_create(&ErrorLabel { op }).inc();
    }

    /// Pages found damaged.
    #[cfg(test)]
    pub(crate) fn corrupt(&self) -> u64 {
        self.corrupt_pages.get()
    }

    /// Writes that failed.
    #[cfg(test)]
    pub(crate) fn failures(&self) -> u64 {
        let op = Failure::Write;
        self.errors.get_or_create(&ErrorLabel { op }).get()
    }
}

impl EncodeLabelValue for Offer {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Stored => "stored",
            Self::Partial => "partial",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Failed => "failed",
        };
        EncodeLabelValue::encode(&word, encoder)
    }
}

impl EncodeLabelValue for Failure {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
        };
        EncodeLabelValue::encode(&word, encoder)
    }
}
