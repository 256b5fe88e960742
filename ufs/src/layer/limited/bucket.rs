//! So much per second: a token bucket that may be overdrawn. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// So many units per second, and a little more at once after a while without any.
///
/// What is taken may be more than there is; then nothing is given until the debt is paid. So
/// in any stretch of time no more is taken than rate times time, the burst, and what one
/// taker took.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: f64,
    burst: f64,
    /// Below zero it is a debt.
    level: f64,
    at: Instant,
}

/// What may be had at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_millis(100);

impl Bucket {
    /// `rate` units per second, above 0; at least `least` of them at once.
    pub(super) fn new(rate: f64, least: f64, now: Instant) -> Self {
        let burst = (rate * BURST.as_secs_f64()).max(least);
        Self {
            rate,
            burst,
            level: burst,
            at: now,
        }
    }

    /// When there is `need` (or as much of it as there ever is) and no debt: none if now.
    pub(super) fn ready(&mut self, now: Instant, need: f64) -> Option<Instant> {
        self.pour(now);
        let missing = need.min(self.burst) - self.level;
        // A rounding error is no reason to sleep.
        (missing > 1e-6).then(|| now + Duration::from_secs_f64(missing / self.rate))
    }

    /// Takes `amount`, whether or not there is as much.
    pub(super) fn take(&mut self, now: Instant, amount: f64) {
        self.pour(now);
        self.level -= amount;
    }

    /// Gives back what was taken and not used.
    pub(super) fn give_back(&mut self, amount: f64) {
        self.level = (self.level + amount).min(self.burst);
    }

    fn pour(&mut self, now: Instant) {
        let past = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.level = (self.level + past.as_secs_f64() * self.rate).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_debt_is_paid_before_anything_is_given() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100.0, 1.0, start);
        assert_eq!(bucket.ready(start, 1.0), None);
        bucket.take(start, 210.0);
        // A burst of 10 was there; 200 are owed, and 1 is needed.
        let due = bucket.ready(start, 1.0).expect("a debt");
        assert!((due - start).abs_diff(Duration::from_millis(2010)) < Duration::from_millis(1));
        assert_eq!(bucket.ready(due, 1.0), None);
        bucket.give_back(1e9);
        assert_eq!(bucket.ready(due, 10.0), None);
        bucket.take(due, 10.0);
        assert!(bucket.ready(due, 1.0).is_some(), "not more than the burst");
    }

    #[test]
    fn a_need_above_the_burst_waits_for_a_full_bucket_only() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10.0, 1.0, start);
        assert_eq!(bucket.ready(start, 50.0), None);
    }

    proptest! {
        /// Who waits until it is ready takes no more in any stretch of time than rate times
        /// time, the burst and the last taking; and who waits gets there.
        #[test]
        fn no_more_is_taken_than_the_rate_gives(
            rate in 1.0f64..1e9,
            takings in prop::collection::vec((0.0f64..3.0, 0u64..500), 1..100),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(rate, 1.0, start);
            let burst = bucket.burst;
            let mut now = start;
            let mut taken: Vec<(Instant, f64)> = Vec::new();
            for (seconds, idle_ms) in takings {
                now += Duration::from_millis(idle_ms);
                if let Some(due) = bucket.ready(now, 1.0) {
                    prop_assert!(due > now && due - now < Duration::from_secs(5));
                    now = due + Duration::from_nanos(1);
                }
                let amount = seconds * rate;
                bucket.take(now, amount);
                taken.push((now, amount));
                let mut sum = 0.0;
                for (at, amount) in taken.iter().rev() {
                    let before_last = sum;
                    sum += amount;
                    let time = (now - *at).as_secs_f64();
                    let most = rate * time + burst + taken[taken.len() - 1].1;
                    prop_assert!(sum <= most * 1.0001 + 1.0, "{sum} of {most}, {before_last}");
                }
            }
        }
    }
}
