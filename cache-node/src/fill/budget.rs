//! How much is filled at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A bound on bytes (or anything counted): taken before memory is, given back after.
///
/// Waiters are served in the order of their coming, so a large request is not starved by
/// small ones.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    permits: Arc<Semaphore>,
    total: usize,
}

impl ByteBudget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let total = total.min(Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(total)),
            total,
        }
    }

    /// Waits for `bytes`, at most for `patience`; none if they did not become free in time.
    /// A request for more than the whole budget is treated as one for the whole of it.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing.
    pub async fn take(&self, bytes: u32, patience: Duration) -> Option<OwnedSemaphorePermit> {
        let bytes = bytes.min(u32::try_from(self.total).unwrap_or(u32::MAX));
        let permit = Arc::clone(&self.permits).acquire_many_owned(bytes);
        timeout(patience, permit).await.ok()?.ok()
    }

    /// Bytes taken at this moment.
    pub fn used(&self) -> u64 {
        (self.total - self.permits.available_permits()) as u64
    }

    /// The whole budget in bytes.
    pub fn total(&self) -> u64 {
        self.total as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn never_gives_out_more_than_it_has() {
        let budget = ByteBudget::new(10);
        let first = budget.take(7, Duration::ZERO).await.unwrap();
        assert!(budget.take(4, Duration::from_millis(5)).await.is_none());
        assert_eq!(budget.used(), 7);
        drop(first);
        assert!(budget.take(10, Duration::ZERO).await.is_some());
    }

    #[tokio::test]
    async fn a_request_above_the_whole_budget_takes_all_of_it() {
        let budget = ByteBudget::new(10);
        let _all = budget.take(11, Duration::ZERO).await.unwrap();
        assert_eq!(budget.used(), 10);
    }
}
