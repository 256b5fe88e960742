//! What the server was asked and what it sent.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::Op;

/// Totals since the start or the last reset. Requests that fail the signature check never
/// reach a handler and are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// All requests, of whatever kind and outcome.
    pub requests: u64,
    /// GetObject requests.
    pub gets: u64,
    /// HeadObject and HeadBucket requests.
    pub heads: u64,
    /// Listing requests, one per page.
    pub lists: u64,
    /// Requests that write: put, delete, copy, multipart.
    pub writes: u64,
    /// Body bytes of GetObject that were handed to the connection.
    pub get_bytes: u64,
    /// Requests that were failed, cut or answered wrongly on purpose.
    pub errors_injected: u64,
}

/// One GetObject that a handler answered with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The bytes that were asked for.
    pub range: Range<u64>,
}

/// How many fetches are remembered; later ones are only counted.
const MAX_FETCHES: usize = 1 << 16;

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    requests: AtomicU64,
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    writes: AtomicU64,
    get_bytes: AtomicU64,
    errors_injected: AtomicU64,
    fetches: Mutex<Vec<Fetch>>,
}

impl Recorder {
    pub(crate) fn request(&self, op: Op) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let counter = match op {
            Op::Get => &self.gets,
            Op::Head => &self.heads,
            Op::List => &self.lists,
            Op::Write => &self.writes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.get_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn injected(&self) {
        self.errors_injected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fetch(&self, fetch: Fetch) {
        let mut fetches = self.fetches.lock();
        if fetches.len() < MAX_FETCHES {
            fetches.push(fetch);
        }
    }

    pub(crate) fn totals(&self) -> Counters {
        Counters {
            requests: self.requests.load(Ordering::Relaxed),
            gets: self.gets.load(Ordering::Relaxed),
            heads: self.heads.load(Ordering::Relaxed),
            lists: self.lists.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            get_bytes: self.get_bytes.load(Ordering::Relaxed),
            errors_injected: self.errors_injected.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn fetches(&self) -> Vec<Fetch> {
        self.fetches.lock().clone()
    }

    pub(crate) fn reset(&self) {
        for counter in [
            &self.requests,
            &self.gets,
            &self.heads,
            &self.lists,
            &self.writes,
            &self.get_bytes,
            &self.errors_injected,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.fetches.lock().clear();
    }
}
