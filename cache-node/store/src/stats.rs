//! What a store counts.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_disk::BreakerState;

use crate::admission::{Admission, Refusal};

/// A snapshot of a store. Counters start at 0 when it is opened.
///
/// Nothing that is inserted is lost silently. While nothing is being written:
///
/// - the inserts into the disk tier are `disk_writes` + `disk_present` + `disk_overtaken` +
///   all of `disk_refused`;
/// - `disk_found` + `disk_writes` is `disk_blocks` + `disk_evictions` + `disk_dropped` +
///   `disk_removed` + `disk_lost`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes in the memory tier.
    pub memory_used: u64,
    /// Limit of the memory tier in bytes.
    pub memory_capacity: u64,
    /// Bytes of the memory tier under [`Policy::Hold`](crate::Policy::Hold).
    pub memory_held: u64,
    /// Blocks in the memory tier.
    pub memory_blocks: u64,
    /// Blocks not kept in memory because they are larger than the tier.
    pub memory_refused: u64,
    /// Bytes of block files, those being written included.
    pub disk_used: u64,
    /// Limit of the disk tier in bytes.
    pub disk_capacity: u64,
    /// Bytes of the disk tier under [`Policy::Hold`](crate::Policy::Hold).
    pub disk_held: u64,
    /// Blocks in the disk tier.
    pub disk_blocks: u64,
    /// Bytes accepted and not yet on disk.
    pub writing_bytes: u64,
    /// Reads answered from memory.
    pub memory_hits: u64,
    /// Reads answered from disk.
    pub disk_hits: u64,
    /// Reads that found nothing.
    pub misses: u64,
    /// Blocks on disk dropped because a page did not match its checksum or bytes were
    /// missing.
    pub corrupt: u64,
    /// Blocks that were on disk when the store was opened.
    pub disk_found: u64,
    /// Blocks written to disk.
    pub disk_writes: u64,
    /// Blocks not written because they were on disk, or on their way there.
    pub disk_present: u64,
    /// Blocks that had to make room for others before they were written.
    pub disk_overtaken: u64,
    /// Blocks removed from disk to make room.
    pub disk_evictions: u64,
    /// Blocks dropped from disk because they were damaged or could not be read.
    pub disk_dropped: u64,
    /// Blocks removed from disk on request.
    pub disk_removed: u64,
    /// Blocks lost with their directory.
    pub disk_lost: u64,
    /// Blocks not written to disk, by reason.
    pub disk_refused: Refused,
    /// Failed operations on the disk.
    pub disk_errors: u64,
    /// Operations that the disk did not do in time.
    pub disk_overdue: u64,
    /// What the scrub has done.
    pub scrub: ScrubStats,
}

/// What a scrub has done since the store was opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ScrubStats {
    /// Bytes of blocks that were verified.
    pub bytes: u64,
    /// Blocks that were found damaged, and dropped.
    pub bad_blocks: u64,
    /// Passes over the whole tier that were completed.
    pub passes: u64,
    /// How much of this pass is done, in thousandths; 0 between passes.
    pub permille: u64,
}

/// What is thought of one directory of the disk tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskHealth {
    /// The directory.
    pub dir: PathBuf,
    /// Whether blocks are read from it.
    pub reads: BreakerState,
    /// Whether blocks are written to it.
    pub writes: BreakerState,
}

/// Refused inserts, by reason.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub struct Refused([u64; Refusal::ALL.len()]);

impl Refused {
    /// Those refused for this reason.
    pub const fn of(&self, why: Refusal) -> u64 {
        self.0[why as usize]
    }

    /// All.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = Refusal::ALL.into_iter().filter(|why| self.of(*why) > 0);
        f.debug_map()
            .entries(reasons.map(|why| (why, self.of(why))))
            .finish()
    }
}

/// The counters behind the disk part of [`StoreStats`].
#[derive(Debug, Default)]
pub(crate) struct DiskCounters {
    pub(crate) corrupt: Count,
    pub(crate) found: Count,
    pub(crate) writes: Count,
    pub(crate) present: Count,
    pub(crate) overtaken: Count,
    pub(crate) evictions: Count,
    pub(crate) dropped: Count,
    pub(crate) removed: Count,
    pub(crate) lost: Count,
    pub(crate) errors: Count,
    pub(crate) overdue: Count,
    pub(crate) scrubbed_bytes: Count,
    pub(crate) scrub_bad: Count,
    pub(crate) scrub_passes: Count,
    /// Thousandths of this pass.
    pub(crate) scrub_permille: AtomicU64,
    refused: [Count; Refusal::ALL.len()],
}

impl DiskCounters {
    /// Counts what became of an insert; each is counted once.
    pub(crate) fn inserted(&self, admission: Admission) -> Admission {
        match admission {
            Admission::Accepted => self.writes.inc(),
            Admission::Present => self.present.inc(),
            Admission::Evicted => self.overtaken.inc(),
            Admission::Refused(why) => self.refused[why as usize].inc(),
        }
        admission
    }

    /// Adds the disk part of a snapshot.
    pub(crate) fn report(&self, stats: &mut StoreStats) {
        stats.corrupt += self.corrupt.value();
        stats.disk_found += self.found.value();
        stats.disk_writes += self.writes.value();
        stats.disk_present += self.present.value();
        stats.disk_overtaken += self.overtaken.value();
        stats.disk_evictions += self.evictions.value();
        stats.disk_dropped += self.dropped.value();
        stats.disk_removed += self.removed.value();
        stats.disk_lost += self.lost.value();
        stats.disk_errors += self.errors.value();
        stats.disk_overdue += self.overdue.value();
        for (sum, refused) in stats.disk_refused.0.iter_mut().zip(&self.refused) {
            *sum += refused.value();
        }
        stats.scrub.bytes += self.scrubbed_bytes.value();
        stats.scrub.bad_blocks += self.scrub_bad.value();
        stats.scrub.passes += self.scrub_passes.value();
        stats.scrub.permille += self.scrub_permille.load(Ordering::Relaxed);
    }
}

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_counted_under_its_own_reason() {
        let counters = DiskCounters::default();
        for (n, why) in Refusal::ALL.into_iter().enumerate() {
            for _ in 0..=n {
                counters.inserted(Admission::Refused(why));
            }
        }
        let mut stats = StoreStats::default();
        counters.report(&mut stats);
        for (n, why) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(stats.disk_refused.of(why), n as u64 + 1, "{why:?}");
        }
        assert_eq!(stats.disk_refused.total(), 28);
    }
}
