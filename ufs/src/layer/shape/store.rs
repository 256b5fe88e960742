//! What all who open a store in a shape share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::draw::{self, Fate};
use super::figures::Shape;
use super::pace::{Meter, Pacer};

/// A store in a shape, as one for the whole process.
#[derive(Debug)]
pub(super) struct Store {
    shape: Shape,
    requests: AtomicU64,
    line: Option<Mutex<Pacer>>,
    meter: Option<Mutex<Meter>>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// Its number, from 0.
    pub(super) number: u64,
    /// How it ends.
    pub(super) fate: Fate,
    /// When its first byte, or the error, comes.
    pub(super) answer_at: Instant,
}

type Key = (String, Shape);

/// Stores that somebody has open. Those that nobody has are removed when another is opened.
static STORES: LazyLock<Mutex<HashMap<Key, Weak<Store>>>> = LazyLock::new(Mutex::default);

impl Store {
    /// The one at `uri` in `shape`.
    pub(super) fn shared(uri: &str, shape: Shape) -> Arc<Self> {
        let mut stores = STORES.lock();
        let key = (uri.to_owned(), shape);
        if let Some(store) = stores.get(&key).and_then(Weak::upgrade) {
            return store;
        }
        stores.retain(|_, store| store.strong_count() > 0);
        let store = Arc::new(Self::new(shape));
        stores.insert(key, Arc::downgrade(&store));
        store
    }

    fn new(shape: Shape) -> Self {
        let line = shape.total_bandwidth.map(Pacer::new);
        let meter = shape.request_rate.map(Meter::new);
        Self {
            shape,
            requests: AtomicU64::new(0),
            line: line.map(Mutex::new),
            meter: meter.map(Mutex::new),
        }
    }

    pub(super) const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The next request, which comes at `now`.
    pub(super) fn request(&self, now: Instant) -> Request {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let within = self
            .meter
            .as_ref()
            .is_none_or(|meter| meter.lock().admit(now));
        let fate = match within {
            false => Fate::TooMany,
            true if draw::fails(&self.shape, number) => Fate::Failed,
            true => Fate::Served,
        };
        Request {
            number,
            fate,
            answer_at: now + draw::latency(&self.shape, number),
        }
    }

    /// When the last of `bytes` is through that a stream sends at `now`; `stream` is the line
    /// of its own, if it has one.
    pub(super) fn transmit(&self, now: Instant, bytes: u64, stream: Option<&mut Pacer>) -> Instant {
        let own = stream.map(|line| line.send(now, bytes));
        let all = self.line.as_ref().map(|line| line.lock().send(now, bytes));
        own.max(all).unwrap_or(now)
    }

    /// The most bytes that a stream sends at once: small, so that streams share evenly, and
    /// not so large that a narrow line is silent for long.
    pub(super) fn piece(&self) -> usize {
        let narrowest = self
            .shape
            .stream_bandwidth
            .into_iter()
            .chain(self.shape.total_bandwidth)
            .min();
        let share = narrowest.map_or(MAX_PIECE, |bytes| bytes / 64);
        share.clamp(MIN_PIECE, MAX_PIECE) as usize
    }
}

const MIN_PIECE: u64 = 1 << 10;
const MAX_PIECE: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(total: u64) -> Shape {
        Shape {
            total_bandwidth: Some(total),
            ..Shape::NONE
        }
    }

    #[test]
    fn a_store_is_shared_as_long_as_somebody_has_it_open() {
        let first = Store::shared("u:shared", shape(1000));
        let second = Store::shared("u:shared", shape(1000));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(
            &first,
            &Store::shared("u:shared", shape(2000))
        ));
        assert!(!Arc::ptr_eq(&first, &Store::shared("u:other", shape(1000))));
        first.request(Instant::now());
        assert_eq!(second.request(Instant::now()).number, 1);
        drop((first, second));
        let anew = Store::shared("u:shared", shape(1000));
        assert_eq!(anew.request(Instant::now()).number, 0);
    }

    #[test]
    fn closed_stores_are_forgotten() {
        for n in 0..100 {
            drop(Store::shared(&format!("u:closed/{n}"), shape(1000)));
        }
        let _open = Store::shared("u:closed/last", shape(1000));
        let stores = STORES.lock();
        let left = stores
            .keys()
            .filter(|(uri, _)| uri.starts_with("u:closed/"));
        assert_eq!(left.count(), 1);
    }

    #[test]
    fn the_slower_line_decides() {
        let now = Instant::now();
        let store = Store::new(shape(1_000));
        let mut stream = Pacer::new(2_000);
        let at = |seconds| now + std::time::Duration::from_secs(seconds);
        assert_eq!(store.transmit(now, 4_000, Some(&mut stream)), at(4));
        let mut stream = Pacer::new(100);
        assert_eq!(store.transmit(now, 1_000, Some(&mut stream)), at(10));
        assert_eq!(store.transmit(now, 1_000, None), at(6));
    }

    #[test]
    fn pieces_suit_the_line() {
        assert_eq!(Store::new(Shape::NONE).piece(), 128 << 10);
        assert_eq!(Store::new(shape(640_000)).piece(), 10_000);
        assert_eq!(Store::new(shape(1)).piece(), 1 << 10);
    }
}
