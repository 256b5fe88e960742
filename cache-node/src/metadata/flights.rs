//! Single-flight without tasks: a flight goes on as long as somebody waits for it.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

/// Flights that nobody waits for any more are looked for beyond so many.
const SWEEP_AT: usize = 1024;

type Flight<V> = Shared<BoxFuture<'static, V>>;

/// What is on its way, by key.
pub(super) struct Flights<K, V: Clone> {
    under_way: Mutex<HashMap<K, WeakShared<BoxFuture<'static, V>>>>,
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            under_way: Mutex::default(),
        })
    }

    /// Joins the flight of `key`, or starts `make()` as one.
    pub(super) fn join<F>(self: &Arc<Self>, key: K, make: impl FnOnce() -> F) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(flight) = under_way.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        if under_way.len() >= SWEEP_AT {
            under_way.retain(|_, flight| flight.upgrade().is_some());
        }
        let (flights, landed, work) = (Arc::clone(self), key.clone(), make());
        let flight = async move {
            let answer = work.await;
            flights.under_way.lock().remove(&landed);
            answer
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            under_way.insert(key, weak);
        }
        flight
    }
}

impl<K, V: Clone> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights")
            .field("under_way", &self.under_way.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn all_who_ask_at_once_share_one_piece_of_work() {
        let flights = Flights::<u32, u32>::new();
        let runs = Arc::new(AtomicU32::new(0));
        let join = || {
            let runs = Arc::clone(&runs);
            flights.join(1, move || async move {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::SeqCst) + 41
            })
        };
        // Who goes away does not stop it for the others.
        drop(join());
        let first = join();
        let others: Vec<_> = (0..10).map(|_| join()).collect();
        drop(first);
        assert_eq!(futures::future::join_all(others).await, [41; 10]);
        assert_eq!(join().await, 42, "what has landed is not joined");
        assert!(flights.under_way.lock().is_empty());
    }
}
