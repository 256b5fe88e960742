//! Latencies, kept to within 1.6 %.

use std::time::Duration;

/// Sub-buckets of each power of two.
const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
const BUCKETS: usize = ((64 - SUB_BITS + 1) as usize) << SUB_BITS;

/// A log-linear histogram of nanoseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Without values.
    pub fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS].into(),
            total: 0,
            max: 0,
        }
    }

    /// Adds a value.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Adds all values of another.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The latency that `fraction` of the reads did not exceed; zero without reads.
    pub fn quantile(&self, fraction: f64) -> Duration {
        let rank = (self.total as f64 * fraction).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return Duration::from_nanos(upper(bucket).min(self.max));
            }
        }
        Duration::from_nanos(self.max)
    }

    /// The largest value; zero without values.
    pub const fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }
}

const fn bucket(nanos: u64) -> usize {
    if nanos < SUB {
        return nanos as usize;
    }
    let shift = 63 - nanos.leading_zeros() - SUB_BITS;
    (((shift + 1) as usize) << SUB_BITS) + ((nanos >> shift) - SUB) as usize
}

/// The largest value of a bucket.
const fn upper(bucket: usize) -> u64 {
    if (bucket as u64) < SUB {
        return bucket as u64;
    }
    let shift = (bucket >> SUB_BITS) as u32 - 1;
    let base = SUB + (bucket as u64 & (SUB - 1));
    (base << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_close_to_it() {
        for value in (0..64)
            .map(|n| 1u64 << n)
            .flat_map(|n| [n - 1, n, n + n / 3])
        {
            let bucket = bucket(value);
            assert!(upper(bucket) >= value);
            assert!(bucket == 0 || upper(bucket - 1) < value);
            assert!((upper(bucket) - value) as f64 <= value as f64 / 64.0);
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let (mut low, mut high) = (Histogram::new(), Histogram::new());
        for n in 1..=500u64 {
            low.record(Duration::from_micros(n));
            high.record(Duration::from_micros(500 + n));
        }
        low.merge(&high);
        let micros = |fraction| low.quantile(fraction).as_nanos() as f64 / 1000.0;
        assert!((micros(0.5) / 500.0 - 1.0).abs() < 0.02, "{}", micros(0.5));
        assert!(
            (micros(0.99) / 990.0 - 1.0).abs() < 0.02,
            "{}",
            micros(0.99)
        );
        assert_eq!(low.max(), Duration::from_micros(1000));
        assert_eq!(Histogram::new().quantile(0.5), Duration::ZERO);
    }
}
