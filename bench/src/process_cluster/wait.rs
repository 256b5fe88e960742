//! Waiting for conditions, never for time to pass.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Looks at a condition until it holds.
///
/// # Errors
/// When it does not hold `within` that time.
pub fn wait_until(within: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    wait_for(within, || holds().then_some(()))
}

/// Looks for a value until there is one.
///
/// # Errors
/// When there is none `within` that time.
pub fn wait_for<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = look() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {within:?} in vain");
        }
        pause();
    }
}

pub(super) fn pause() {
    let until = Instant::now() + POLL;
    // Parking may end early, for no reason.
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if left.is_zero() {
            break;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_condition_or_the_time() {
        let mut looks = 0;
        let found = wait_for(Duration::from_secs(10), || {
            looks += 1;
            (looks == 3).then_some("x")
        });
        assert_eq!(found.unwrap(), "x");
        assert!(wait_until(Duration::from_millis(1), || false).is_err());
    }
}
