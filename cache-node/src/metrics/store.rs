//! What the store holds and has counted, read when Prometheus asks.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Unit;

use millpond_proto::wire::frame::Tier;
use millpond_store::stats::ScrubStats;
use millpond_store::{Access, BreakerState, DiskHealth, Refusal, Store, StoreStats};

use super::TierLabel;

/// Reads a store.
#[derive(Debug)]
pub struct StoreCollector(pub Store);

impl Collector for StoreCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let stats = self.0.stats();
        tiers(&mut encoder, &stats)?;
        losses(&mut encoder, &stats)?;
        disks(&mut encoder, &self.0.disks())?;
        scrub(&mut encoder, &stats.scrub)
    }
}

/// How full the tiers are.
fn tiers(encoder: &mut DescriptorEncoder<'_>, stats: &StoreStats) -> Result<(), Error> {
    let mut per_tier = |name: &str, help: &str, unit: Option<&Unit>, memory, disk| {
        let family = Family::<TierOnly, Gauge>::default();
        for (tier, value) in [(Tier::Memory, memory), (Tier::Disk, disk)] {
            let labels = TierOnly {
                tier: TierLabel(tier),
            };
            family.get_or_create(&labels).set(signed(value));
        }
        let metric = encoder.encode_descriptor(name, help, unit, family.metric_type())?;
        family.encode(metric)
    };
    let bytes = Some(&Unit::Bytes);
    per_tier(
        "millpond_node_cached",
        "Bytes of blocks held",
        bytes,
        stats.memory_used,
        stats.disk_used,
    )?;
    per_tier(
        "millpond_node_tier_capacity",
        "Bytes of blocks that may be held",
        bytes,
        stats.memory_capacity,
        stats.disk_capacity,
    )?;
    per_tier(
        "millpond_node_held",
        "Bytes of blocks held on to because their data set does not fit",
        bytes,
        stats.memory_held,
        stats.disk_held,
    )?;
    per_tier(
        "millpond_node_cached_blocks",
        "Blocks held",
        None,
        stats.memory_blocks,
        stats.disk_blocks,
    )
}

/// What became of blocks that are not held.
fn losses(encoder: &mut DescriptorEncoder<'_>, stats: &StoreStats) -> Result<(), Error> {
    let corrupt = ConstGauge::new(signed(stats.corrupt));
    let metric = encoder.encode_descriptor(
        "millpond_node_corrupt_blocks",
        "Copies dropped since start because a checksum did not match",
        None,
        corrupt.metric_type(),
    )?;
    corrupt.encode(metric)?;

    let refused = Family::<Refused, Counter>::default();
    for why in Refusal::ALL {
        let on_disk = Refused::by(Tier::Disk, why);
        refused
            .get_or_create(&on_disk)
            .inc_by(stats.disk_refused.of(why));
    }
    let too_large = Refused::by(Tier::Memory, Refusal::TooLarge);
    refused
        .get_or_create(&too_large)
        .inc_by(stats.memory_refused);
    let metric = encoder.encode_descriptor(
        "millpond_node_refused_blocks",
        "Blocks that a tier did not take, by reason",
        None,
        refused.metric_type(),
    )?;
    refused.encode(metric)?;

    count(
        encoder,
        "millpond_node_disk_evicted_blocks",
        "Blocks removed from disk to make room",
        stats.disk_evictions + stats.disk_overtaken,
    )?;
    count(
        encoder,
        "millpond_node_disk_dropped_blocks",
        "Blocks dropped from disk because they were damaged or could not be read",
        stats.disk_dropped,
    )?;
    count(
        encoder,
        "millpond_node_disk_lost_blocks",
        "Blocks lost with their directory",
        stats.disk_lost,
    )?;
    count(
        encoder,
        "millpond_node_disk_errors",
        "Operations that a disk failed",
        stats.disk_errors,
    )?;
    count(
        encoder,
        "millpond_node_disk_overdue",
        "Times that an operation of a disk was not done in time",
        stats.disk_overdue,
    )
}

/// What is thought of each directory.
fn disks(encoder: &mut DescriptorEncoder<'_>, disks: &[DiskHealth]) -> Result<(), Error> {
    let states = Family::<DiskLabels, Gauge>::default();
    for disk in disks {
        for access in Access::ALL {
            let now = match access {
                Access::Read => disk.reads,
                Access::Write => disk.writes,
            };
            for state in BreakerState::ALL {
                let labels = DiskLabels {
                    dir: disk.dir.display().to_string(),
                    access: access.name(),
                    state: state.name(),
                };
                let holds = i64::from(state == now);
                states.get_or_create(&labels).set(holds);
            }
        }
    }
    let metric = encoder.encode_descriptor(
        "millpond_node_disk_state",
        "1 for the state that the disk below a directory is in: normal, probing or out",
        None,
        states.metric_type(),
    )?;
    states.encode(metric)
}

fn scrub(encoder: &mut DescriptorEncoder<'_>, scrub: &ScrubStats) -> Result<(), Error> {
    let scrubbed = ConstCounter::new(scrub.bytes);
    let metric = encoder.encode_descriptor(
        "millpond_node_scrubbed",
        "Bytes of blocks on disk that the scrub verified",
        Some(&Unit::Bytes),
        scrubbed.metric_type(),
    )?;
    scrubbed.encode(metric)?;
    count(
        encoder,
        "millpond_node_scrub_bad_blocks",
        "Blocks that the scrub found damaged, and dropped",
        scrub.bad_blocks,
    )?;
    count(
        encoder,
        "millpond_node_scrub_passes",
        "Passes of the scrub over all blocks that were completed",
        scrub.passes,
    )?;
    let progress = ConstGauge::new(scrub.permille as f64 / 1000.0);
    let metric = encoder.encode_descriptor(
        "millpond_node_scrub_progress",
        "How much of this pass of the scrub is done; 0 between passes",
        Some(&Unit::Ratios),
        progress.metric_type(),
    )?;
    progress.encode(metric)
}

fn count(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), Error> {
    let counter = ConstCounter::new(value);
    let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
    counter.encode(metric)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierOnly {
    tier: TierLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    tier: TierLabel,
    reason: &'static str,
}

impl Refused {
    const fn by(tier: Tier, why: Refusal) -> Self {
        Self {
            tier: TierLabel(tier),
            reason: why.name(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DiskLabels {
    dir: String,
    access: &'static str,
    state: &'static str,
}

#[cfg(test)]
mod tests {
    use millpond_store::{Block, StoreConfig};
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[tokio::test]
    async fn the_state_of_each_directory_and_each_refusal_can_be_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks");
        let config = StoreConfig::new(0, Some((path.clone(), 1 << 20)), None);
        let store = Store::open(config).await.unwrap();
        let id = millpond_proto::BlockId::new(millpond_proto::FileId([1; 16]), 0);
        let large = Block::new(vec![1; 2 << 20].into());
        store.insert(id, large).await.on_disk().await;
        let mut registry = Registry::default();
        registry.register_collector(Box::new(StoreCollector(store)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let state = |state, value| {
            format!(
                "millpond_node_disk_state{{dir=\"{}\",access=\"write\",state=\"{state}\"}} {value}\n",
                path.display()
            )
        };
        for line in [
            state("normal", 1),
            state("probing", 0),
            state("out", 0),
            "millpond_node_refused_blocks_total{tier=\"disk\",reason=\"too_large\"} 1\n".to_owned(),
            "millpond_node_refused_blocks_total{tier=\"disk\",reason=\"out\"} 0\n".to_owned(),
            "millpond_node_disk_errors_total 0\n".to_owned(),
            "millpond_node_disk_overdue_total 0\n".to_owned(),
            "millpond_node_scrub_progress_ratios 0.0\n".to_owned(),
        ] {
            assert!(text.contains(&line), "no {line} in\n{text}");
        }
    }
}
