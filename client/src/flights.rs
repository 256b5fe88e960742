//! Single-flight: whoever asks for the same thing while it is on its way gets the same answer.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::Shared;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::tasks::Tasks;

/// An answer on its way; none if the task that was to give it was stopped.
pub(crate) type Flight<V> = Shared<futures::future::Map<oneshot::Receiver<V>, Landed<V>>>;

type Landed<V> = fn(Result<V, oneshot::error::RecvError>) -> Option<V>;

/// What is on its way, by key.
pub(crate) struct Flights<K, V: Clone> {
    under_way: Mutex<HashMap<K, Flight<V>>>,
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            under_way: Mutex::new(HashMap::new()),
        })
    }

    /// Joins the flight of `key`, or starts `make()` as one. The work is a task of its own:
    /// it goes on when all who wait for it go away.
    ///
    /// `make`'s future must look for a finished answer first: a flight may have landed
    /// between the caller's look and this call.
    pub(crate) fn join<F>(
        self: &Arc<Self>,
        key: K,
        tasks: &Tasks,
        make: impl FnOnce() -> F,
    ) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(flight) = under_way.get(&key) {
            return flight.clone();
        }
        let (done, landed) = oneshot::channel();
        let flight = landed.map(Result::ok as Landed<V>).shared();
        under_way.insert(key.clone(), flight.clone());
        drop(under_way);
        let entry = Entry {
            flights: Arc::clone(self),
            key,
        };
        let work = make();
        tasks.start(async move {
            let answer = work.await;
            // Whoever comes from now on finds the answer where the work put it.
            drop(entry);
            let _ = done.send(answer);
        });
        flight
    }

    /// Whether `key` is on its way.
    #[cfg(test)]
    fn has(&self, key: &K) -> bool {
        self.under_way.lock().contains_key(key)
    }
}

impl<K, V: Clone> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights")
            .field("under_way", &self.under_way.lock().len())
            .finish()
    }
}

/// Removes the flight when its task ends, in whatever way.
struct Entry<K: Hash + Eq, V: Clone> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K: Hash + Eq, V: Clone> Drop for Entry<K, V> {
    fn drop(&mut self) {
        self.flights.under_way.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn all_who_ask_at_once_share_one_piece_of_work() {
        let tasks = Tasks::new();
        let flights = Flights::<u32, u32>::new();
        let runs = Arc::new(AtomicU32::new(0));
        let (go, gate) = tokio::sync::watch::channel(false);
        let join = || {
            let (runs, mut gate) = (Arc::clone(&runs), gate.clone());
            flights.join(1, &tasks, move || async move {
                let _ = gate.wait_for(|open| *open).await;
                runs.fetch_add(1, Ordering::SeqCst) + 41
            })
        };
        let waiting: Vec<_> = (0..10).map(|_| join()).collect();
        drop(join());
        go.send(true).unwrap();
        for flight in waiting {
            assert_eq!(flight.await, Some(41));
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(!flights.has(&1));
        assert_eq!(join().await, Some(42));
    }

    #[tokio::test]
    async fn a_stopped_client_answers_nobody_and_keeps_nothing() {
        let tasks = Tasks::new();
        let flights = Flights::<u32, u32>::new();
        let flight = flights.join(1, &tasks, std::future::pending);
        tasks.stop(Duration::from_secs(5)).await;
        assert_eq!(flight.await, None);
        assert!(!flights.has(&1));
        assert_eq!(flights.join(2, &tasks, || async { 5 }).await, None);
        assert!(!flights.has(&2));
    }
}
