//! How fast a source answers, and how much to ask of it at a time. Pure: time is an argument.
//!
//! In the manner of BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue
//! 14(5), 2016): what has to be under way is the highest rate at which the source delivered
//! lately, times how long one request takes when the source is not busy. Asking for a multiple
//! of that lets the rate grow for as long as more requests bring more, and no longer.

use std::time::{Duration, Instant};

use crate::detour::Delivery;

/// The measure of one source, of all readers together.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Times to the first byte, in microseconds: the latest, in a ring.
    recent: Vec<u32>,
    answers: usize,
    /// Of those times, the one that half do not take.
    first_byte: Option<Duration>,
    /// And the one that few take.
    late: Duration,
    /// A little less than that: who is waited for may be asked again.
    overdue: Duration,
    /// The best of the latest rates of single requests, in bytes per second.
    stream: Best,
    /// The best of the latest rates of all requests together.
    rate: Best,
    round: Option<Round>,
    /// What its latest answers cost.
    pub(crate) delivery: Delivery,
}

/// What came since when.
#[derive(Debug, Clone, Copy)]
struct Round {
    since: Instant,
    bytes: u64,
}

/// The highest of the latest values.
#[derive(Debug, Default)]
struct Best {
    values: [f64; Self::LATEST],
    count: usize,
}

/// Bytes to have under way before anything was measured.
const UNKNOWN: u64 = 64 << 20;

/// Bytes to have under way at least: a source that answers at once needs no more.
const LEAST: u64 = 8 << 20;

/// How many times the bandwidth-delay product is asked for.
const GAIN: f64 = 2.0;

/// How long one sample of the rate takes at least.
const ROUND: Duration = Duration::from_millis(20);

/// Samples before the product is believed.
const ENOUGH: usize = 4;

/// Times to the first byte that the recent past consists of.
const RECENT: usize = 64;

/// Less than this says nothing about the rate of a request.
const MEASURABLE: u64 = 256 << 10;

const MIB: u64 = 1 << 20;

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self {
            recent: Vec::new(),
            answers: 0,
            first_byte: None,
            late: Duration::ZERO,
            overdue: Duration::ZERO,
            stream: Best::new(),
            rate: Best::new(),
            round: None,
            delivery: Delivery::new(),
        }
    }

    /// A request had its first byte after `first_byte`.
    pub(crate) fn answered(&mut self, first_byte: Duration) {
        let micros = u32::try_from(first_byte.as_micros()).unwrap_or(u32::MAX);
        match self.recent.get_mut(self.answers % RECENT) {
            Some(oldest) => *oldest = micros,
            None => self.recent.push(micros),
        }
        self.answers = self.answers.wrapping_add(1);
        let mut sorted = self.recent.clone();
        sorted.sort_unstable();
        let p50 = sorted[sorted.len() / 2];
        let quantile =
            |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
        self.first_byte = Some(Duration::from_micros(u64::from(p50)));
        // Where all are alike, a little more than the usual time is no reason to ask again.
        let unlike = |micros: u32| Duration::from_micros(u64::from(micros.max(2 * p50)));
        self.late = unlike(quantile(95));
        self.overdue = unlike(quantile(90));
    }

    /// `bytes` of a request came within `took` of its first byte.
    pub(crate) fn ended(&mut self, bytes: u64, took: Duration) {
        if bytes >= MEASURABLE && !took.is_zero() {
            self.stream.add(bytes as f64 / took.as_secs_f64());
        }
    }

    /// `bytes` came, of whatever request.
    pub(crate) fn came(&mut self, bytes: u64, now: Instant) {
        let long = self.delay().max(ROUND);
        let round = self.round.get_or_insert(Round {
            since: now,
            bytes: 0,
        });
        let took = now.saturating_duration_since(round.since);
        // After a pause a new round begins: that little came is no fault of the source.
        if took > 4 * long {
            *round = Round { since: now, bytes };
        } else if took >= long {
            self.rate
                .add((round.bytes + bytes) as f64 / took.as_secs_f64());
            *round = Round {
                since: now,
                bytes: 0,
            };
        } else {
            round.bytes += bytes;
        }
    }

    /// Bytes to have under way or fetched ahead, at most `most`.
    pub(crate) fn window(&self, most: u64) -> u64 {
        if self.rate.count < ENOUGH {
            return UNKNOWN.min(most);
        }
        let product = self.rate.best() * self.reach().as_secs_f64() * GAIN;
        (product as u64).clamp(LEAST, most.max(LEAST)).min(most)
    }

    /// How much one request should ask for when `window` bytes are to be under way: half of
    /// what would come in the time that the first byte takes. More brings less for the same
    /// memory, less costs more requests. A window is at least 16 of them.
    pub(crate) fn grain(&self, window: u64) -> u64 {
        let worth = match (self.first_byte, self.stream.count) {
            (Some(first_byte), 1..) => self.stream.best() * first_byte.as_secs_f64() / 2.0,
            _ => 2.0 * MIB as f64,
        };
        let most = (window / 16).clamp(MIB, 8 * MIB);
        ((worth as u64).div_ceil(MIB) * MIB).clamp(MIB, most / MIB * MIB)
    }

    /// When a request that somebody waits for, and that still has no byte, is later than nine
    /// in ten of the latest; none while too few are known.
    pub(crate) fn overdue(&self) -> Option<Duration> {
        (self.answers >= RECENT / 4).then_some(self.overdue)
    }

    /// How far in time a stream has to be ahead. Its reader takes the answers in order and
    /// waits for the latest of a window's worth, so the time that few take counts, and not
    /// only the usual one.
    fn reach(&self) -> Duration {
        self.first_byte.unwrap_or_default() + self.late
    }

    /// How long a request takes of a source that is not busy. Its transfer is counted as no
    /// longer than the wait for its first byte: it takes longer where many share the way, and
    /// then more of them would not help.
    fn delay(&self) -> Duration {
        self.first_byte.unwrap_or_default() * 2
    }
}

impl Best {
    const LATEST: usize = 32;

    const fn new() -> Self {
        Self {
            values: [0.0; Self::LATEST],
            count: 0,
        }
    }

    const fn add(&mut self, value: f64) {
        self.values[self.count % Self::LATEST] = value;
        self.count = self.count.wrapping_add(1);
    }

    /// At least 1, so that it can be divided by.
    fn best(&self) -> f64 {
        self.values.iter().copied().fold(1.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A source with a first byte after `latency`, `stream` bytes per second per request and
    /// `total` in all, read with windows as told for a while. Returns the last window and the
    /// rate that it brought.
    fn run(latency: Duration, stream: f64, total: f64, most: u64) -> (u64, f64) {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        let mut last = (0, 0.0);
        for _ in 0..200 {
            let window = pace.window(most);
            let grain = pace.grain(window);
            let requests = (window / grain).max(1);
            let alone = grain as f64 / stream;
            let together = requests as f64 * grain as f64 / total;
            let transfer = alone.max(together);
            for _ in 0..requests {
                pace.answered(latency);
                pace.ended(grain, Duration::from_secs_f64(transfer));
            }
            let took = latency.as_secs_f64() + transfer;
            // What is under way comes evenly: as one request ends the next begins.
            for _ in 0..requests {
                now += Duration::from_secs_f64(took / requests as f64);
                pace.came(grain, now);
            }
            last = (window, window as f64 / took);
        }
        last
    }

    #[test]
    fn the_window_of_a_fast_and_near_source_is_small() {
        let (window, rate) = run(Duration::from_micros(300), 2e9, 2e9, 256 << 20);
        assert!(window <= 16 << 20, "{window}");
        assert!(rate > 1.8e9, "{rate}");
    }

    #[test]
    fn the_window_of_a_far_source_grows_to_what_it_can_deliver() {
        let (window, rate) = run(Duration::from_millis(100), 40e6, 625e6, 1 << 30);
        assert!(rate > 0.7 * 625e6, "{rate} with {window}");
        assert!(window < 600 << 20, "{window}");
    }

    #[test]
    fn a_request_asks_for_what_is_worth_its_latency() {
        let mut pace = Pace::new();
        assert_eq!(pace.grain(64 << 20), 2 << 20);
        for _ in 0..20 {
            pace.answered(Duration::from_millis(40));
            pace.ended(8 << 20, Duration::from_millis(80));
        }
        assert_eq!(pace.grain(64 << 20), 2 << 20);
        for _ in 0..100 {
            pace.answered(Duration::from_millis(200));
        }
        assert_eq!(pace.grain(64 << 20), 4 << 20);
        assert_eq!(pace.grain(1 << 30), 8 << 20);
    }

    #[test]
    fn overdue_is_what_few_are() {
        let mut pace = Pace::new();
        assert_eq!(pace.overdue(), None);
        for ms in 0..100 {
            let slow = if ms % 5 == 0 { 200 } else { 30 };
            pace.answered(Duration::from_millis(slow));
        }
        assert_eq!(pace.overdue(), Some(Duration::from_millis(200)));
        for _ in 0..100 {
            pace.answered(Duration::from_millis(30));
        }
        assert_eq!(pace.overdue(), Some(Duration::from_millis(60)));
    }

    proptest! {
        /// Whatever is measured: between the bounds, and never nothing.
        #[test]
        fn windows_are_within_bounds(
            events in proptest::collection::vec((0u64..10_000_000, 0u64..5_000_000, 0u64..100_000), 0..100),
            most in 1u64 << 20..1 << 30,
        ) {
            let mut pace = Pace::new();
            let mut now = Instant::now();
            for (bytes, micros, pause) in events {
                pace.answered(Duration::from_micros(micros));
                pace.ended(bytes, Duration::from_micros(micros / 2));
                now += Duration::from_micros(pause);
                pace.came(bytes, now);
                let window = pace.window(most);
                prop_assert!(window <= most);
                prop_assert!(window >= most.min(8 << 20));
                let grain = pace.grain(window);
                prop_assert!((1..=8).contains(&(grain >> 20)) && grain.is_multiple_of(1 << 20));
            }
        }
    }
}
