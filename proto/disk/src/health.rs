//! When a failing disk is left alone. Pure: time is an argument.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Whether writes are worth trying: after a failure they pause, longer with each further
/// one, and then go on with whatever comes first.
#[derive(Debug, Default)]
pub struct Health {
    failures: u32,
    paused_until: Option<Instant>,
}

impl Health {
    /// Whether a write may be tried at `now`.
    pub fn admits(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| now >= until)
    }

    /// A write went well; true if that is news.
    pub fn succeeded(&mut self) -> bool {
        let news = self.failures > 0;
        *self = Self::default();
        news
    }

    /// A write failed; true if that is news.
    pub fn failed(&mut self, now: Instant) -> bool {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.paused_until = Some(now + pause.min(LONGEST_PAUSE));
        self.failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_pause_writes_for_longer_and_longer() {
        let t0 = Instant::now();
        let mut health = Health::default();
        assert!(health.admits(t0));
        assert!(!health.succeeded(), "not news");
        assert!(health.failed(t0));
        assert!(!health.admits(t0));
        assert!(health.admits(t0 + FIRST_PAUSE));
        assert!(!health.failed(t0), "not news");
        assert!(!health.admits(t0 + FIRST_PAUSE));
        assert!(health.admits(t0 + 2 * FIRST_PAUSE));
        assert!(health.succeeded());
        assert!(health.admits(t0));
    }
}
