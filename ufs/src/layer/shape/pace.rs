//! Bandwidths and request rates. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// A line of a certain bandwidth: what is sent through it queues up.
#[derive(Debug)]
pub(super) struct Pacer {
    bytes_per_second: u64,
    free_at: Option<Instant>,
}

/// A line that was idle for longer has lost what it could have sent in that time. One that was
/// idle for less is served late by a timer or a busy machine, or has a socket's buffer behind
/// it, and catches up.
const SLACK: Duration = Duration::from_millis(10);

impl Pacer {
    /// `bytes_per_second` is above 0.
    pub(super) const fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            free_at: None,
        }
    }

    /// When the last of `bytes` is through that are sent at `now`, after all that was sent
    /// before.
    pub(super) fn send(&mut self, now: Instant, bytes: u64) -> Instant {
        let earliest = match self.free_at {
            Some(free_at) => now.checked_sub(SLACK).map_or(free_at, |at| at.max(free_at)),
            None => now,
        };
        let end = earliest + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.free_at = Some(end);
        end
    }
}

/// So many requests per second, up to a tenth of that at once (the leaky bucket as a meter,
/// ITU-T I.371).
#[derive(Debug)]
pub(super) struct Meter {
    /// Between two requests at the full rate.
    gap: Duration,
    /// How far requests may run ahead of that.
    burst: Duration,
    next: Option<Instant>,
}

impl Meter {
    /// `rate` is above 0.
    pub(super) fn new(rate: u32) -> Self {
        let gap = Duration::from_secs(1) / rate;
        Self {
            gap,
            burst: Duration::from_millis(100).saturating_sub(gap),
            next: None,
        }
    }

    /// Whether a request at `now` is within the rate. One that is not does not count.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let next = self.next.map_or(now, |next| next.max(now));
        let within = next - now <= self.burst;
        if within {
            self.next = Some(next + self.gap);
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(duration: Duration) -> f64 {
        duration.as_secs_f64()
    }

    #[test]
    fn streams_that_share_a_line_get_half_of_it_each() {
        let start = Instant::now();
        let mut line = Pacer::new(1_000_000);
        let mut streams = [(start, 0u64); 2];
        // Each sends its next piece as soon as its last one is through.
        for _ in 0..200 {
            let next = usize::from(streams[1].0 < streams[0].0);
            let (at, sent) = &mut streams[next];
            *at = line.send(*at, 10_000);
            *sent += 10_000;
        }
        let end = streams[0].0.max(streams[1].0);
        assert!((seconds(end - start) - 2.0).abs() < 1e-3);
        assert_eq!(streams[0].1, streams[1].1);
    }

    #[test]
    fn what_idled_longer_than_the_slack_does_not_catch_up() {
        let start = Instant::now();
        let mut line = Pacer::new(1_000_000);
        line.send(start, 1000);
        let later = start + Duration::from_secs(5);
        let end = line.send(later, 100_000);
        assert_eq!(end, later - SLACK + Duration::from_millis(100));
    }

    proptest! {
        /// However pieces come, no more is through than bandwidth times time, but for the
        /// slack; and who always sends on time or within the slack has all of it.
        #[test]
        fn a_line_carries_its_bandwidth(
            rate in 1_000u64..1_000_000_000,
            pieces in prop::collection::vec((1u64..200_000, 0u64..20_000), 1..200),
        ) {
            let start = Instant::now();
            let mut line = Pacer::new(rate);
            let (mut now, mut sent, mut on_time) = (start, 0, true);
            for (bytes, late_us) in pieces {
                let end = line.send(now, bytes);
                sent += bytes;
                let needed = sent as f64 / rate as f64;
                let took = seconds(end - start);
                prop_assert!(took + seconds(SLACK) >= needed - 1e-5);
                if on_time {
                    prop_assert!((took - needed).abs() < 1e-5, "{took} {needed}");
                }
                now = end.max(now) + Duration::from_micros(late_us);
                on_time &= now - end <= SLACK;
            }
        }

        /// In any stretch of time, no more requests than the rate gives, and the burst.
        #[test]
        fn a_meter_admits_its_rate(
            rate in 1u32..10_000,
            gaps in prop::collection::vec(0u64..3_000, 1..400),
        ) {
            let start = Instant::now();
            let mut meter = Meter::new(rate);
            let (mut now, mut admitted) = (start, 0u32);
            for gap_us in gaps {
                now += Duration::from_micros(gap_us);
                admitted += u32::from(meter.admit(now));
                let most = f64::from(rate) * (seconds(now - start) + 0.1) + 1.0;
                prop_assert!(f64::from(admitted) <= most, "{admitted} of {most}");
            }
            // Who waits is let in again.
            prop_assert!(meter.admit(now + Duration::from_secs(2)));
        }
    }

    #[test]
    fn at_the_rate_nothing_is_refused() {
        let start = Instant::now();
        for rate in [1, 7, 5_500] {
            let mut meter = Meter::new(rate);
            let gap = Duration::from_secs(1) / rate;
            assert!((0..1000).all(|n| meter.admit(start + gap * n)));
            let mut meter = Meter::new(rate);
            let burst = (0..rate).take_while(|_| meter.admit(start)).count() as u32;
            assert!(
                burst >= 1 && burst <= (rate / 10).max(1) + 1,
                "{burst} at {rate}"
            );
        }
    }
}
