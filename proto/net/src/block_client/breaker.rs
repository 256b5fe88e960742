//! When a failed peer is left alone. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Closed (the peer is used), open (it is left alone), or half open (one try is under way).
#[derive(Debug, Clone)]
pub(super) struct Breaker {
    state: State,
    failures: u32,
    backoff: Duration,
    longest: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// The peer is left alone for this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) failures: u32,
    pub(super) retry_in: Duration,
}

impl Breaker {
    /// A closed breaker that opens for `backoff` after the first failure in a row, twice as
    /// long after each further one, at most for `longest`.
    pub(super) const fn new(backoff: Duration, longest: Duration) -> Self {
        Self {
            state: State::Closed,
            failures: 0,
            backoff,
            longest,
        }
    }

    /// Whether a try may begin at `now`. The first one after the backoff is let through
    /// alone; its end must be reported.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Rejected> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen;
                Ok(())
            }
            State::Open { until } => Err(self.rejected(until - now)),
            State::HalfOpen => Err(self.rejected(Duration::ZERO)),
        }
    }

    /// Whether a try would be rejected at `now`; changes nothing.
    pub(super) fn is_open(&self, now: Instant) -> Option<Rejected> {
        match self.state {
            State::Closed => None,
            State::Open { until } if now >= until => None,
            State::Open { until } => Some(self.rejected(until - now)),
            State::HalfOpen => Some(self.rejected(Duration::ZERO)),
        }
    }

    /// Failures since the last success.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// The peer answered.
    pub(super) const fn succeed(&mut self) {
        self.state = State::Closed;
        self.failures = 0;
    }

    /// The peer failed. `jitter` is within `0.0..1.0` and spreads the retries of many
    /// clients over a quarter of the backoff.
    pub(super) fn fail(&mut self, now: Instant, jitter: f64) {
        let doubled = self.backoff.saturating_mul(1 << self.failures.min(16));
        let backoff = doubled.min(self.longest).mul_f64(0.75 + jitter / 4.0);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Open {
            until: now + backoff,
        };
    }

    const fn rejected(&self, retry_in: Duration) -> Rejected {
        Rejected {
            failures: self.failures,
            retry_in,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn one_failure_opens_and_one_probe_is_let_through() {
        let t0 = Instant::now();
        let mut breaker = Breaker::new(100 * MS, 1000 * MS);
        assert!(breaker.admit(t0).is_ok());
        breaker.fail(t0, 1.0);
        assert_eq!(
            breaker.admit(t0 + 40 * MS),
            Err(Rejected {
                failures: 1,
                retry_in: 60 * MS
            })
        );
        assert!(breaker.is_open(t0 + 100 * MS).is_none());
        assert!(breaker.admit(t0 + 100 * MS).is_ok());
        assert!(breaker.admit(t0 + 100 * MS).is_err(), "only one probe");
        breaker.succeed();
        assert!(breaker.admit(t0 + 101 * MS).is_ok());
        assert!(breaker.admit(t0 + 101 * MS).is_ok());
    }

    #[test]
    fn the_backoff_doubles_up_to_its_limit() {
        let t0 = Instant::now();
        let mut breaker = Breaker::new(100 * MS, 1000 * MS);
        let mut waits = Vec::new();
        for _ in 0..30 {
            breaker.fail(t0, 1.0);
            waits.push(breaker.is_open(t0).unwrap().retry_in);
        }
        assert_eq!(waits[..4], [100 * MS, 200 * MS, 400 * MS, 800 * MS]);
        assert!(waits[4..].iter().all(|w| *w == 1000 * MS));
        breaker.fail(t0, 0.0);
        assert_eq!(breaker.is_open(t0).unwrap().retry_in, 750 * MS);
    }
}
