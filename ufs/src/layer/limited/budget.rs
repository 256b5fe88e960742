//! What a mount may cost its store: bytes and requests per second.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::bucket::Bucket;

/// The options `ufs_bandwidth` and `ufs_requests` of a mount; none is without a limit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Bytes per second of all reads and writes together, above 0.
    pub(crate) bytes: Option<u64>,
    /// Requests per second, above 0.
    pub(crate) requests: Option<u32>,
}

/// The budgets of one mount in this process.
#[derive(Debug)]
pub(super) struct Budgets {
    pub(super) bytes: Option<Arc<Budget>>,
    pub(super) requests: Option<Arc<Budget>>,
}

impl Budgets {
    pub(super) fn new(rates: Rates, now: Instant) -> Self {
        let bytes = rates.bytes.map(|rate| Budget::new(rate as f64, now));
        let requests = rates.requests.map(|rate| Budget::new(f64::from(rate), now));
        Self { bytes, requests }
    }
}

/// A bucket with a queue in front: whoever comes first is served first.
#[derive(Debug)]
pub(super) struct Budget {
    bucket: Mutex<Bucket>,
    /// Held by the first of those who wait.
    door: Arc<Semaphore>,
    /// Something came back.
    returned: Notify,
}

/// The right to take from a budget, whose debts are paid. Nobody else has it meanwhile.
#[derive(Debug)]
pub(super) struct Turn {
    budget: Arc<Budget>,
    _door: OwnedSemaphorePermit,
}

impl Budget {
    fn new(rate: f64, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            bucket: Mutex::new(Bucket::new(rate, 1.0, now)),
            door: Arc::new(Semaphore::new(1)),
            returned: Notify::new(),
        })
    }

    /// Waits in the queue, and then until one unit can be had without a debt.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing.
    pub(super) async fn turn(self: &Arc<Self>) -> Turn {
        let door = Arc::clone(&self.door).acquire_owned().await;
        let door = door.expect("the door is never taken away");
        loop {
            let due = self.bucket.lock().ready(Instant::now(), 1.0);
            let Some(due) = due else {
                break;
            };
            let _ = timeout_at(due, self.returned.notified()).await;
        }
        Turn {
            budget: Arc::clone(self),
            _door: door,
        }
    }
}

impl Turn {
    /// Takes `amount`; what is not used of it comes back when the result is dropped.
    pub(super) fn take(self, amount: u64) -> Taken {
        let budget = Arc::clone(&self.budget);
        budget.bucket.lock().take(Instant::now(), amount as f64);
        Taken {
            budget,
            unused: amount,
        }
    }
}

/// What was taken from a budget.
#[derive(Debug)]
pub(super) struct Taken {
    budget: Arc<Budget>,
    unused: u64,
}

impl Taken {
    /// `amount` of it was used; how much was not covered.
    pub(super) const fn used(&mut self, amount: u64) -> u64 {
        let covered = if amount < self.unused {
            amount
        } else {
            self.unused
        };
        self.unused -= covered;
        amount - covered
    }

    pub(super) fn budget(&self) -> Arc<Budget> {
        Arc::clone(&self.budget)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.unused > 0 {
            self.budget.bucket.lock().give_back(self.unused as f64);
            self.budget.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn takers_come_one_after_the_other_at_the_rate() {
        let start = Instant::now();
        let budget = Budget::new(1000.0, start);
        // The first is given at once; its debt is paid before the next, and so on.
        for n in 0..4 {
            let mut taken = budget.turn().await.take(200);
            assert_eq!(taken.used(200), 0);
            assert!(start.elapsed() + BURST >= Duration::from_millis(200) * n);
        }
    }

    #[tokio::test]
    async fn what_is_not_used_comes_back_and_who_leaves_the_queue_takes_nothing() {
        // At this rate a debt is paid in years, if it is not given back.
        let budget = Budget::new(0.001, Instant::now());
        let mut taken = budget.turn().await.take(60_000);
        assert_eq!(taken.used(0), 0);
        {
            let mut gone = std::pin::pin!(budget.turn());
            assert!(futures::poll!(gone.as_mut()).is_pending());
        }
        let mut waits = std::pin::pin!(budget.turn());
        assert!(futures::poll!(waits.as_mut()).is_pending());
        drop(taken);
        drop(waits.await);
    }

    /// What a bucket gives at once, and timers round.
    const BURST: Duration = Duration::from_millis(101);
}
