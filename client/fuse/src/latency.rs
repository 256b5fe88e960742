//! How long requests took: counts in buckets that grow with the time, each a quarter of an
//! octave or less wide.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets: four for each power of two, from 1 us to about 16 s.
const BUCKETS: usize = 4 * 25;

/// Times of one kind of request. Counting takes one atomic addition.
#[derive(Debug)]
pub(crate) struct Latencies {
    buckets: [AtomicU64; BUCKETS],
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self {
            buckets: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(crate) fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(micros)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn counts(&self) -> LatencyCounts {
        let load = |(at, bucket): (usize, &AtomicU64)| {
            let count = bucket.load(Ordering::Relaxed);
            (count > 0).then(|| (upper_bound(at), count))
        };
        LatencyCounts(self.buckets.iter().enumerate().filter_map(load).collect())
    }
}

/// Counts of requests by the time they took: pairs of an upper bound in microseconds and how
/// many took so long and longer than the bound before. Bounds rise; none has the count 0.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyCounts(pub Vec<(u64, u64)>);

impl LatencyCounts {
    /// How many there are.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The time in microseconds that `share` (0 to 1) of all stayed below, at most a quarter
    /// too large; none if there are none.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total = self.total();
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        self.0.iter().find_map(|(bound, count)| {
            seen += count;
            (seen >= wanted).then_some(*bound)
        })
    }

    /// What was counted since `before` was taken.
    pub fn since(&self, before: &Self) -> Self {
        let of = |bound: u64| {
            before
                .0
                .iter()
                .find(|(b, _)| *b == bound)
                .map_or(0, |b| b.1)
        };
        let more = |(bound, count): &(u64, u64)| {
            let more = count.saturating_sub(of(*bound));
            (more > 0).then_some((*bound, more))
        };
        Self(self.0.iter().filter_map(more).collect())
    }

    /// Both together.
    pub fn and(&self, other: &Self) -> Self {
        let mut sum = std::collections::BTreeMap::new();
        for (bound, count) in self.0.iter().chain(&other.0) {
            *sum.entry(*bound).or_insert(0) += count;
        }
        Self(sum.into_iter().collect())
    }
}

fn bucket_of(micros: u64) -> usize {
    // Below 4 us a bucket is one microsecond.
    if micros < 4 {
        return micros as usize;
    }
    let octave = micros.ilog2() as usize;
    let quarter = (micros >> (octave - 2)) as usize & 3;
    (4 * (octave - 1) + quarter).min(BUCKETS - 1)
}

/// The least time in microseconds that is in a later bucket.
fn upper_bound(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64 + 1;
    }
    let (octave, quarter) = (bucket / 4 + 1, bucket as u64 % 4);
    (4 + quarter + 1) << (octave - 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each time is below the bound of its bucket, and not below that of the one before.
        #[test]
        fn bounds_are_tight(micros in 0u64..1 << 24) {
            let bucket = bucket_of(micros);
            prop_assert!(micros < upper_bound(bucket));
            prop_assert!(bucket == 0 || micros >= upper_bound(bucket - 1));
            prop_assert!(upper_bound(bucket) <= micros + micros / 4 + 1);
        }

        #[test]
        fn quantiles_are_those_of_the_times(times in proptest::collection::vec(0u64..1 << 24, 1..200)) {
            let latencies = Latencies::new();
            let mut sorted = times.clone();
            sorted.sort_unstable();
            for micros in &times {
                latencies.note(Duration::from_micros(*micros));
            }
            let counts = latencies.counts();
            prop_assert_eq!(counts.total(), times.len() as u64);
            for share in [0.5, 0.99, 1.0] {
                let rank = ((times.len() as f64 * share).ceil() as usize).max(1);
                let exact = sorted[rank - 1];
                let told = counts.quantile(share).unwrap();
                prop_assert!(told > exact && told <= exact + exact / 4 + 1, "{} for {}", told, exact);
            }
        }
    }

    #[test]
    fn the_longest_times_share_the_last_bucket() {
        let latencies = Latencies::new();
        latencies.note(Duration::from_secs(3600));
        latencies.note(Duration::MAX);
        assert_eq!(latencies.counts().0.len(), 1);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let latencies = Latencies::new();
        latencies.note(Duration::from_micros(10));
        let before = latencies.counts();
        latencies.note(Duration::from_micros(10));
        latencies.note(Duration::from_millis(10));
        let since = latencies.counts().since(&before);
        assert_eq!(since.total(), 2);
        assert_eq!(before.and(&since), latencies.counts());
    }
}
