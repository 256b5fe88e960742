//! How many requests a store serves best at once: found out as it goes. Pure: time and chance
//! are arguments.
//!
//! - **It grows while throughput grows.** With somebody waiting for a slot, the limit is raised
//!   and the throughput of the time after is compared with that of the time before. If it rose
//!   by a fair part of what the limit did, the limit rises again; if not, twice in a row, it
//!   goes back and rests. At first it doubles, later it rises by a quarter.
//! - **It backs off when the store says so.** A refusal (429, 503, a timeout) lowers the limit
//!   by a factor, once for all requests that were sent before it was lowered: they tell of the
//!   same moment. Then it rests, the longer the more often this happens, for a time that chance
//!   spreads, so that the many who met the same store do not come back at once.
//! - **Without demand it stays.** A window in which nobody waited says nothing of the limit.
//!
//! Additive increase and multiplicative decrease is Chiu and Jain's (Computer Networks and ISDN
//! Systems 17, 1989); that a rise must pay off in throughput, rather than latency stay low,
//! follows from a store's latency being mostly its own.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

/// The limit of one mount.
#[derive(Debug)]
pub(super) struct Controller {
    most: u32,
    limit: u32,
    state: State,
    window: Window,
    /// How long requests take, smoothed.
    request: Duration,
    last_cut: Option<Instant>,
    /// Since the last rise that paid off.
    cuts_in_a_row: u32,
    chance: SmallRng,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Finding out what the limit brings, to raise it by this factor.
    Measuring { factor: f64 },
    /// Finding out whether the limit brings more than `from`, which brought `rate`.
    Trying {
        from: u32,
        rate: f64,
        factor: f64,
        misses: u32,
    },
    /// Leaving it as it is.
    Resting { until: Instant },
}

/// A stretch of time over which throughput is measured.
#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    work: u64,
    /// Somebody waited for a slot.
    was_full: bool,
    /// What comes now was still sent under the limit before.
    settling: bool,
}

/// Where a limit begins, if it may be that high.
const FIRST: u32 = 32;

/// Below this no refusal takes it: one read, one question.
const LEAST: u32 = 2;

const DOUBLE: f64 = 2.0;
const QUARTER: f64 = 1.25;

/// A rise pays off if throughput rises by this part of what the limit rose by.
const PAYS: f64 = 0.2;

/// So many windows must show no gain: one may have been an unlucky one.
const MISSES: u32 = 2;

/// What a refusal leaves of the limit.
const CUT: f64 = 0.7;

/// The rest after a rise that brought nothing.
const REST: Duration = Duration::from_secs(3);

/// The rest after the first refusal; it doubles with each that follows.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

const SHORTEST_WINDOW: Duration = Duration::from_millis(50);
const LONGEST_WINDOW: Duration = Duration::from_secs(2);

impl Controller {
    /// Up to `most`, which is at least 1, from `now` on.
    pub(super) fn new(most: u32, seed: u64, now: Instant) -> Self {
        let most = most.max(1);
        Self {
            most,
            limit: FIRST.min(most),
            state: State::Measuring { factor: DOUBLE },
            window: Window::begin(now, 0),
            request: SHORTEST_WINDOW,
            last_cut: None,
            cuts_in_a_row: 0,
            chance: SmallRng::seed_from_u64(seed),
        }
    }

    /// How many requests may be under way; at least 1, at most what it was made with.
    pub(super) const fn limit(&self) -> u32 {
        self.limit
    }

    /// Somebody has to wait for a slot.
    pub(super) const fn someone_waits(&mut self) {
        self.window.was_full = true;
    }

    /// A request was served, this long after it was sent.
    pub(super) fn served(&mut self, took: Duration) {
        self.request = (self.request * 7 + took.min(LONGEST_WINDOW)) / 8;
    }

    /// Time passed: `work` is all that the store has done so far, in any unit.
    pub(super) fn tick(&mut self, now: Instant, work: u64) {
        let past = now.saturating_duration_since(self.window.began);
        let span = (self.request * 2).clamp(SHORTEST_WINDOW, LONGEST_WINDOW);
        if past < span {
            return;
        }
        let ended = std::mem::replace(&mut self.window, Window::begin(now, work));
        if ended.settling {
            return;
        }
        let rate = work.saturating_sub(ended.work) as f64 / past.as_secs_f64();
        match self.state {
            State::Resting { until } if now < until => {}
            // Nobody wanted more than there was, so what a rise brings cannot be told.
            State::Trying { from, factor, .. } if !ended.was_full => {
                self.limit = from;
                self.state = State::Measuring { factor };
            }
            _ if !ended.was_full => {}
            State::Resting { .. } => self.raise(now, rate, QUARTER),
            State::Measuring { factor } => self.raise(now, rate, factor),
            State::Trying {
                from,
                rate: before,
                factor,
                misses,
            } => {
                let rise = f64::from(self.limit) / f64::from(from) - 1.0;
                if rate >= before * (1.0 + PAYS * rise) && rate > 0.0 {
                    self.cuts_in_a_row = 0;
                    self.raise(now, rate, factor);
                } else if misses + 1 < MISSES {
                    self.state = State::Trying {
                        from,
                        rate: before,
                        factor,
                        misses: misses + 1,
                    };
                } else {
                    self.limit = from;
                    self.rest(now, REST);
                }
            }
        }
    }

    /// The store refused a request that was sent at `sent`, or did not answer it in time.
    /// Whether that lowered the limit.
    pub(super) fn refused(&mut self, now: Instant, sent: Instant, work: u64) -> bool {
        if self.last_cut.is_some_and(|cut| sent <= cut) {
            return false;
        }
        self.last_cut = Some(now);
        let cut = (f64::from(self.limit) * CUT) as u32;
        self.limit = cut.max(LEAST).min(self.limit);
        let pause = PAUSE * (1 << self.cuts_in_a_row.min(10));
        self.cuts_in_a_row += 1;
        self.rest(now, pause.min(LONGEST_PAUSE));
        self.window = Window::begin(now, work);
        true
    }

    fn raise(&mut self, now: Instant, rate: f64, factor: f64) {
        let from = self.limit;
        let raised = (f64::from(from) * factor).ceil() as u32;
        self.limit = raised.max(from + 1).min(self.most);
        if self.limit == from {
            self.rest(now, REST);
            return;
        }
        self.window.settling = true;
        self.state = State::Trying {
            from,
            rate,
            factor,
            misses: 0,
        };
    }

    fn rest(&mut self, now: Instant, about: Duration) {
        let until = now + about.mul_f64(self.chance.random_range(0.5..1.5));
        self.state = State::Resting { until };
    }
}

impl Window {
    const fn begin(now: Instant, work: u64) -> Self {
        Self {
            began: now,
            work,
            was_full: false,
            settling: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// A store that serves `capacity` requests at once and lets the rest wait inside it.
    struct Sim {
        controller: Controller,
        now: Instant,
        work: f64,
        capacity: u32,
    }

    impl Sim {
        fn new(most: u32, capacity: u32) -> Self {
            let now = Instant::now();
            Self {
                controller: Controller::new(most, 7, now),
                now,
                work: 0.0,
                capacity,
            }
        }

        /// Lets time pass; `full` is whether more is asked for than the limit lets through.
        fn run(&mut self, time: Duration, full: bool) {
            let end = self.now + time;
            while self.now < end {
                self.now += STEP;
                self.work += f64::from(self.controller.limit().min(self.capacity)) * 1000.0;
                if full {
                    self.controller.someone_waits();
                }
                self.controller.tick(self.now, self.work as u64);
            }
        }

        fn refuse(&mut self, sent: Instant) -> bool {
            self.controller.refused(self.now, sent, self.work as u64)
        }
    }

    #[test]
    fn it_doubles_up_to_the_most_while_that_pays() {
        let mut sim = Sim::new(1000, 5000);
        assert_eq!(sim.controller.limit(), 32);
        sim.run(Duration::from_secs(2), true);
        assert_eq!(sim.controller.limit(), 1000);
    }

    #[test]
    fn without_demand_it_stays() {
        let mut sim = Sim::new(1000, 5000);
        sim.run(Duration::from_secs(20), false);
        assert_eq!(sim.controller.limit(), 32);
    }

    #[test]
    fn a_rise_that_brings_nothing_is_taken_back() {
        let mut sim = Sim::new(1000, 10);
        let mut most = 0;
        for _ in 0..6000 {
            sim.run(STEP, true);
            most = most.max(sim.controller.limit());
        }
        assert!(most <= 64, "{most}");
        sim.run(Duration::from_secs(1), false);
        assert_eq!(sim.controller.limit(), 32);
    }

    #[test]
    fn what_was_sent_before_a_cut_does_not_cut_again() {
        let mut sim = Sim::new(128, 5000);
        sim.run(Duration::from_secs(3), true);
        let sent = sim.now;
        sim.run(STEP, true);
        assert!(sim.refuse(sent));
        assert_eq!(sim.controller.limit(), 89);
        assert!(!sim.refuse(sent));
        assert!(!sim.refuse(sim.now));
        assert_eq!(sim.controller.limit(), 89);
        sim.run(STEP, true);
        assert!(sim.refuse(sim.now));
        assert_eq!(sim.controller.limit(), 62);
    }

    #[test]
    fn it_comes_back_after_a_pause_that_grows_with_each_refusal() {
        let mut sim = Sim::new(128, 5000);
        sim.run(Duration::from_secs(3), true);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            sim.run(STEP, true);
            assert!(sim.refuse(sim.now));
            let low = sim.controller.limit();
            let began = sim.now;
            while sim.controller.limit() == low {
                sim.run(STEP, true);
            }
            pauses.push(sim.now - began);
        }
        assert!(
            pauses[0] >= PAUSE / 2 && pauses[0] < PAUSE * 2,
            "{pauses:?}"
        );
        assert!(pauses[3] >= PAUSE * 4, "{pauses:?}");
        sim.run(Duration::from_secs(60), true);
        assert_eq!(sim.controller.limit(), 128);
    }

    #[test]
    fn pauses_differ_between_those_who_met_the_same_refusal() {
        let now = Instant::now();
        let pauses = (0..16).map(|seed| {
            let mut controller = Controller::new(128, seed, now);
            controller.refused(now, now, 0);
            match controller.state {
                State::Resting { until } => until - now,
                other => panic!("not resting: {other:?}"),
            }
        });
        let distinct: std::collections::BTreeSet<_> = pauses.collect();
        assert!(distinct.len() > 8, "{distinct:?}");
    }

    proptest! {
        /// A store that serves so many at once and no more is used to the full, and not by
        /// many times more requests than that.
        #[test]
        fn it_settles_near_what_the_store_can_do(capacity in 1u32..600, most in 1u32..1000) {
            let mut sim = Sim::new(most, capacity);
            sim.run(Duration::from_secs(60), true);
            let limit = sim.controller.limit();
            let needed = capacity.min(most);
            prop_assert!(f64::from(limit) >= f64::from(needed) * 0.8, "{limit} for {needed}");
            let bound = (4 * capacity).max(2 * FIRST).min(most);
            prop_assert!(limit <= bound, "{limit} over {bound}");
        }

        /// Whatever happens, the limit stays within its bounds, a refusal never raises it, and
        /// rates of nothing or of anything are borne.
        #[test]
        fn the_limit_stays_within_its_bounds(
            most in 1u32..70_000,
            seed in any::<u64>(),
            events in prop::collection::vec((0u8..4, 0u64..100_000), 1..400),
        ) {
            let start = Instant::now();
            let mut controller = Controller::new(most, seed, start);
            let (mut now, mut work) = (start, 0u64);
            for (what, amount) in events {
                let before = controller.limit();
                match what {
                    0 => {
                        now += Duration::from_micros(amount * 10);
                        controller.tick(now, work);
                    }
                    1 => work += amount,
                    2 => {
                        let sent = now - Duration::from_micros(amount).min(now - start);
                        controller.refused(now, sent, work);
                        prop_assert!(controller.limit() <= before);
                    }
                    _ => {
                        controller.someone_waits();
                        controller.served(Duration::from_micros(amount * 100));
                    }
                }
                prop_assert!((1..=most).contains(&controller.limit()));
                prop_assert!(controller.limit() >= LEAST.min(before));
            }
        }
    }
}
