//! How long to wait before the next try.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that double from a tenth of a second to five seconds, each spread by half, so that
/// many nodes do not return in step.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause before the next try; `spread` is a random number within `0.0..1.0`.
    pub(super) fn pause(&mut self, spread: f64) -> Duration {
        let pause = self.next.mul_f64(0.5 + spread);
        self.next = (self.next * 2).min(LONGEST);
        pause
    }

    /// It worked: the next failure starts with the shortest pause again.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_again_after_success() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..10).map(|_| backoff.pause(0.5)).collect();
        assert!(pauses.is_sorted());
        assert_eq!(pauses.first(), Some(&FIRST));
        assert_eq!(pauses.last(), Some(&LONGEST));
        backoff.reset();
        assert_eq!(backoff.pause(0.0), FIRST / 2);
    }
}
