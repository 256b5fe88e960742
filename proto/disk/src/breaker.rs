//! When a sick disk is gone round. Pure: time is an argument.

use std::fmt;
use std::time::{Duration, Instant};

/// How long a disk that failed its probes is left alone before the next: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A disk that fails again so soon after it recovered has not: it stays away for longer.
const RELAPSE: Duration = Duration::from_secs(120);

/// What is thought of one use of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BreakerState {
    /// It works: requests go to it.
    Normal,
    /// It failed a request: requests go round it until a probe has shown what it is.
    Probing,
    /// It failed a probe: requests go round it, and further probes come at growing intervals.
    Out,
}

impl BreakerState {
    /// All states, the best first.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Probing, Self::Out];

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Probing => "probing",
            Self::Out => "out",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// With an error.
    Error,
    /// It did not end in the time that it had.
    Overdue,
}

/// Decides whether requests go to a disk. One for reads and one for writes: a full disk can
/// be read.
///
/// - Requests are admitted in `Normal` alone.
/// - So many errors in a row, or one request that is overdue, end `Normal`.
/// - Only a probe that goes well brings it back.
/// - Between probes there is a pause that grows with each that fails, and with each relapse, up
///   to a minute: a disk that is well is back within that.
#[derive(Debug)]
pub struct Breaker {
    tolerance: u32,
    state: BreakerState,
    /// Errors in a row.
    strikes: u32,
    /// Probes that failed and relapses, since it was last well for long.
    level: u32,
    probe_at: Option<Instant>,
    recovered_at: Option<Instant>,
}

impl Breaker {
    /// One that bears fewer than `tolerance` errors in a row; at least 1.
    pub const fn new(tolerance: u32) -> Self {
        Self {
            tolerance,
            state: BreakerState::Normal,
            strikes: 0,
            level: 0,
            probe_at: None,
            recovered_at: None,
        }
    }

    /// What is thought of the disk.
    pub const fn state(&self) -> BreakerState {
        self.state
    }

    /// When the next probe is due; none while there is no need for one.
    pub const fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// A request went well.
    pub fn succeeded(&mut self) {
        if self.state == BreakerState::Normal {
            self.strikes = 0;
        }
    }

    /// A request failed; true if that ended `Normal`.
    pub fn failed(&mut self, trouble: Trouble, now: Instant) -> bool {
        if self.state != BreakerState::Normal {
            // One that began before.
            return false;
        }
        self.strikes = self.strikes.saturating_add(1);
        if trouble == Trouble::Error && self.strikes < self.tolerance {
            return false;
        }
        let relapse = |at: Instant| now.saturating_duration_since(at) < RELAPSE;
        let pause = if self.recovered_at.is_some_and(relapse) {
            self.level = self.level.saturating_add(1);
            self.pause()
        } else {
            self.level = 0;
            Duration::ZERO
        };
        self.state = BreakerState::Probing;
        self.probe_at = Some(now + pause);
        true
    }

    /// A probe ended; true if that changed the state.
    pub fn probed(&mut self, well: bool, now: Instant) -> bool {
        let before = self.state;
        if before == BreakerState::Normal {
            return false;
        }
        if well {
            self.state = BreakerState::Normal;
            self.strikes = 0;
            self.probe_at = None;
            self.recovered_at = Some(now);
        } else {
            self.state = BreakerState::Out;
            self.level = self.level.saturating_add(1);
            self.probe_at = Some(now + self.pause());
        }
        self.state != before
    }

    /// The pause at this level, which is at least 1.
    fn pause(&self) -> Duration {
        let doubled = self.level.saturating_sub(1).min(16);
        FIRST_PAUSE.saturating_mul(1 << doubled).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_in_a_row_end_normal_and_a_success_between_them_forgives() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3);
        for _ in 0..10 {
            assert!(!breaker.failed(Trouble::Error, now));
            assert!(!breaker.failed(Trouble::Error, now));
            breaker.succeeded();
        }
        assert!(!breaker.failed(Trouble::Error, now));
        assert!(!breaker.failed(Trouble::Error, now));
        assert!(breaker.failed(Trouble::Error, now));
        assert_eq!(breaker.state(), BreakerState::Probing);
        assert_eq!(
            breaker.probe_at(),
            Some(now),
            "the first probe comes at once"
        );
    }

    #[test]
    fn one_overdue_request_is_enough() {
        let now = Instant::now();
        let mut breaker = Breaker::new(100);
        assert!(breaker.failed(Trouble::Overdue, now));
        assert!(!breaker.failed(Trouble::Overdue, now), "no news");
        breaker.succeeded();
        assert_eq!(
            breaker.state(),
            BreakerState::Probing,
            "one that began before"
        );
    }

    #[test]
    fn probes_that_fail_come_at_growing_intervals_and_one_that_succeeds_ends_it() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(1);
        breaker.failed(Trouble::Error, now);
        let mut pauses = Vec::new();
        for probe in 0..10 {
            assert_eq!(breaker.probed(false, now), probe == 0);
            assert_eq!(breaker.state(), BreakerState::Out);
            let next = breaker.probe_at().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert!(breaker.probed(true, now));
        assert_eq!(
            (breaker.state(), breaker.probe_at()),
            (BreakerState::Normal, None)
        );
    }

    #[test]
    fn a_relapse_stays_away_for_longer_and_is_forgotten_after_a_while() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(1);
        for pause in [0, 1, 2, 4] {
            breaker.failed(Trouble::Overdue, now);
            assert_eq!(breaker.probe_at(), Some(now + Duration::from_secs(pause)));
            now += Duration::from_secs(pause);
            breaker.probed(true, now);
        }
        now += RELAPSE;
        breaker.failed(Trouble::Overdue, now);
        assert_eq!(breaker.probe_at(), Some(now));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Succeeded,
        Failed(bool),
        Probed(bool),
        Waited(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            Just(Event::Succeeded),
            any::<bool>().prop_map(Event::Failed),
            any::<bool>().prop_map(Event::Probed),
            (0u64..200_000).prop_map(Event::Waited),
        ];
        proptest::collection::vec(event, 0..200)
    }

    proptest! {
        #[test]
        fn whatever_happens_only_probes_bring_a_disk_back_and_within_a_minute(
            events in events(),
            tolerance in 1u32..5,
        ) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(tolerance);
            let mut in_a_row = 0;
            for event in events {
                let before = breaker.state();
                match event {
                    Event::Succeeded => {
                        breaker.succeeded();
                        in_a_row = 0;
                        prop_assert_eq!(breaker.state(), before);
                    }
                    Event::Failed(overdue) => {
                        in_a_row += 1;
                        let trouble = if overdue { Trouble::Overdue } else { Trouble::Error };
                        let ended = breaker.failed(trouble, now);
                        let due = overdue || in_a_row >= tolerance;
                        prop_assert_eq!(ended, before == BreakerState::Normal && due);
                        let after = if ended { BreakerState::Probing } else { before };
                        prop_assert_eq!(breaker.state(), after);
                    }
                    Event::Probed(well) => {
                        let changed = breaker.probed(well, now);
                        prop_assert_eq!(changed, breaker.state() != before);
                        match (before, well) {
                            (BreakerState::Normal, _) | (_, true) => {
                                prop_assert_eq!(breaker.state(), BreakerState::Normal);
                            }
                            (_, false) => prop_assert_eq!(breaker.state(), BreakerState::Out),
                        }
                        if before != BreakerState::Normal {
                            in_a_row = 0;
                        }
                    }
                    Event::Waited(ms) => now += Duration::from_millis(ms),
                }
                if breaker.state() != BreakerState::Normal {
                    in_a_row = 0;
                }
                let normal = breaker.state() == BreakerState::Normal;
                prop_assert_eq!(breaker.probe_at().is_none(), normal);
                if let Some(at) = breaker.probe_at() {
                    prop_assert!(at <= now + LONGEST_PAUSE);
                }
            }
        }
    }
}
