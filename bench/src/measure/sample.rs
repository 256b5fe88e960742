//! What one run did.

use std::time::Duration;

use super::histogram::Histogram;
use super::series::Series;

/// One run of one arm.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// From the moment the first worker began to the moment the last one ended.
    pub elapsed: Duration,
    /// CPU time of all processes that took part, in seconds.
    pub cpu_seconds: f64,
    /// Bytes that arrived where they were wanted.
    pub bytes: u64,
    /// Operations: reads, files, lookups.
    pub ops: u64,
    /// Operations that failed.
    pub errors: u64,
    /// What the first of them said.
    pub first_error: Option<String>,
    /// Time of each operation.
    pub latency: Histogram,
    /// Bytes over time, where that was recorded.
    pub series: Option<Series>,
}

impl Sample {
    /// GB/s, of 10⁹ bytes.
    pub fn gb_per_second(&self) -> f64 {
        self.bytes as f64 / 1e9 / self.seconds()
    }

    /// Operations per second.
    pub fn ops_per_second(&self) -> f64 {
        self.ops as f64 / self.seconds()
    }

    /// Seconds of CPU for 10⁹ bytes; NaN without bytes.
    pub fn cpu_seconds_per_gb(&self) -> f64 {
        self.cpu_seconds / (self.bytes as f64 / 1e9)
    }

    /// Seconds that it took, never zero.
    pub fn seconds(&self) -> f64 {
        self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The latency that `fraction` of the operations did not exceed, in µs.
    pub fn quantile_us(&self, fraction: f64) -> f64 {
        self.latency.quantile(fraction).as_nanos() as f64 / 1e3
    }

    /// Counts a failure.
    pub fn fail(&mut self, message: String) {
        self.errors += 1;
        self.first_error.get_or_insert(message);
    }

    /// Adds what another worker of the same run did; time and CPU are the run's, not the
    /// worker's, and stay.
    pub fn merge(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.ops += other.ops;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latency.merge(&other.latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_and_per_gb() {
        let sample = Sample {
            elapsed: Duration::from_millis(500),
            cpu_seconds: 1.0,
            bytes: 2_000_000_000,
            ops: 100,
            ..Sample::default()
        };
        assert_eq!(sample.gb_per_second(), 4.0);
        assert_eq!(sample.ops_per_second(), 200.0);
        assert_eq!(sample.cpu_seconds_per_gb(), 0.5);
    }

    #[test]
    fn a_merge_adds_work_and_keeps_the_first_error() {
        let mut a = Sample {
            bytes: 1,
            ops: 1,
            ..Sample::default()
        };
        let mut b = Sample {
            bytes: 2,
            ops: 2,
            ..Sample::default()
        };
        b.fail("b".to_owned());
        b.latency.record(Duration::from_micros(5));
        a.merge(b);
        assert_eq!((a.bytes, a.ops, a.errors), (3, 3, 1));
        assert_eq!(a.first_error.as_deref(), Some("b"));
        assert!(a.quantile_us(1.0) >= 5.0);
    }
}
