//! The directories of the disk tier, one for each device, as one.

use std::cmp::Reverse;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use millpond_disk::DiskError;
use millpond_proto::BlockId;

use crate::admission::{Admission, Refusal};
use crate::block::{Block, Hit};
use crate::disk::{Access, DiskConfig, DiskTier, SharedFile};
use crate::stats::{DiskHealth, StoreStats};

/// Directories that blocks are spread over by their capacity. What is meant for a sick one
/// goes to the next.
#[derive(Debug)]
pub(crate) struct Disks {
    tiers: Vec<DiskTier>,
}

impl Disks {
    /// Opens all of them.
    pub(crate) async fn open(configs: Vec<DiskConfig>) -> Result<Self, DiskError> {
        let mut tiers = Vec::with_capacity(configs.len());
        for config in configs.into_iter().filter(|config| config.capacity > 0) {
            let dir = config.dir.clone();
            let opened = tokio::task::spawn_blocking(move || DiskTier::open(config)).await;
            tiers.push(opened.unwrap_or_else(|panic| {
                Err(DiskError::Io {
                    doing: "open",
                    path: dir,
                    source: std::io::Error::other(panic),
                })
            })?);
        }
        Ok(Self { tiers })
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &DiskTier> {
        self.tiers.iter()
    }

    /// Whether a well disk holds the block. Never waits.
    pub(crate) fn contains(&self, id: &BlockId) -> bool {
        self.tiers.iter().any(|tier| tier.contains(id))
    }

    pub(crate) async fn read(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        for tier in &self.tiers {
            if let Some(hit) = tier.read(id, offset, len).await {
                return Some(hit);
            }
        }
        None
    }

    /// The file of a block.
    pub(crate) async fn share(&self, id: &BlockId) -> Option<SharedFile> {
        for tier in &self.tiers {
            if let Some(shared) = tier.share(id).await {
                return Some(shared);
            }
        }
        None
    }

    /// Whether any disk takes blocks now.
    pub(crate) fn admits_writes(&self) -> bool {
        self.tiers.iter().any(|tier| tier.admits(Access::Write))
    }

    /// Writes a block to the first of its directories that takes it.
    pub(crate) async fn write(&self, id: BlockId, block: Block) -> Admission {
        let mut outcome = Admission::Refused(Refusal::Out);
        for tier in self.order(&id) {
            outcome = tier.write(id, block.clone()).await;
            let sick = matches!(
                outcome,
                Admission::Refused(Refusal::Out | Refusal::Failed | Refusal::Full)
            );
            if !sick {
                break;
            }
        }
        outcome
    }

    /// Counts an insert that did not get as far as a disk.
    pub(crate) fn refuse(&self, id: &BlockId, why: Refusal) -> Admission {
        let first = self.order(id).into_iter().next();
        first.map_or(Admission::Refused(why), |tier| tier.refuse(why))
    }

    /// Counts an insert of what is there already.
    pub(crate) fn present(&self, id: &BlockId) -> Admission {
        if let Some(first) = self.order(id).first() {
            first.counters().present.inc();
        }
        Admission::Present
    }

    /// Drops a block wherever it is.
    pub(crate) fn remove(&self, id: &BlockId) {
        for tier in &self.tiers {
            tier.remove(id);
        }
    }

    pub(crate) fn health(&self) -> Vec<DiskHealth> {
        self.tiers.iter().map(DiskTier::health).collect()
    }

    /// The disk part of a snapshot: all directories together.
    pub(crate) fn report(&self, stats: &mut StoreStats) {
        for tier in &self.tiers {
            tier.report(stats);
        }
        if let Some(passing) = u64::try_from(self.tiers.len()).ok().filter(|n| *n > 1) {
            stats.scrub.permille /= passing;
        }
    }

    /// The directories in the order in which a block is offered to them: weighted rendezvous
    /// hashing, so that each gets its share and one that is added takes from all.
    fn order(&self, id: &BlockId) -> Vec<&DiskTier> {
        let mut order: Vec<&DiskTier> = self.tiers.iter().collect();
        if order.len() > 1 {
            order.sort_by_cached_key(|tier| {
                let mut hasher = DefaultHasher::new();
                (tier.dir(), id).hash(&mut hasher);
                Reverse(score(hasher.finish(), tier.capacity()))
            });
        }
        order
    }
}

/// The rank of a directory for a block; the largest comes first. As an integer: the bits of a
/// positive float are ordered as it is.
fn score(hash: u64, capacity: u64) -> u64 {
    // Above 0 and below 1.
    let unit = ((hash >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    (capacity as f64 / -unit.ln()).to_bits()
}

#[cfg(test)]
mod tests {
    use millpond_proto::FileId;

    use super::*;

    fn disks(root: &std::path::Path, capacities: &[u64]) -> Disks {
        let open = |(n, capacity): (usize, &u64)| {
            let config = DiskConfig::new(root.join(n.to_string()), *capacity, None);
            DiskTier::open(config).unwrap()
        };
        let tiers = capacities.iter().enumerate().map(open).collect();
        Disks { tiers }
    }

    #[test]
    fn each_directory_is_first_for_its_share_of_the_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let disks = disks(dir.path(), &[1 << 20, 1 << 20, 2 << 20]);
        let mut first = [0; 3];
        for index in 0..4000 {
            let order = disks.order(&BlockId::new(FileId([7; 16]), index));
            assert_eq!(order.len(), 3);
            let name = order[0].dir().file_name().unwrap().to_str().unwrap();
            first[name.parse::<usize>().unwrap()] += 1;
        }
        // The paths differ from run to run: the expected 1000, 1000, 2000 within ten deviations.
        assert!((700..1300).contains(&first[0]), "{first:?}");
        assert!((700..1300).contains(&first[1]), "{first:?}");
        assert!((1650..2350).contains(&first[2]), "{first:?}");
    }
}
