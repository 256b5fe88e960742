//! Listings that clients read page by page, each page asked of the store once.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use millpond_proto::wire::query::{MAX_PAGE, Oldest, PathAttr, encode};
use millpond_proto::{Change, ErrorKind};
use millpond_ufs::{Entry, UfsError};

use super::Place;
use crate::metrics::{MetadataFrom, NodeMetrics};

/// What a listing costs beside its pages.
const OVERHEAD: u64 = 1024;

/// Entries of a page of a store after which another is likely to follow.
const FULL: usize = 1000;

/// Listings that are read at the same time; beyond them clients list for themselves.
const MOST: usize = 256;

/// A listing that nobody asked for so long is not gone on with.
const IDLE: Duration = Duration::from_secs(30);

/// The listings of a node.
pub(super) struct Listings {
    /// The latest listing of each directory, by its path in the namespace.
    latest: Cache<Arc<str>, Arc<Listing>>,
    /// Those that clients are reading.
    reading: Mutex<HashMap<u64, Arc<Listing>>>,
    /// Bytes of pages of all listings.
    held: Arc<AtomicU64>,
    capacity: u64,
}

/// One listing.
///
/// - A page never changes; pages are numbered from 0.
/// - It is given to newcomers while it has all its pages.
pub(crate) struct Listing {
    id: u64,
    path: Arc<str>,
    asked_at: Instant,
    /// How many changes were known when it began.
    seq: u64,
    source: tokio::sync::Mutex<millpond_ufs::ufs::EntryStream>,
    state: Mutex<State>,
    held: Arc<AtomicU64>,
}

struct State {
    pages: VecDeque<Bytes>,
    /// How many pages before these are gone.
    first: usize,
    weight: u64,
    end: Option<Result<(), UfsError>>,
    used: Instant,
}

/// What there is at a page's number.
pub(super) enum Piece {
    /// Its entries.
    Entries {
        /// Encoded.
        entries: Bytes,
        /// Whether it is known that no page follows.
        last: bool,
    },
    /// Nothing: the listing ended before.
    End,
}

/// Why there is no page.
#[derive(Debug)]
pub(crate) enum PageError {
    /// The listing, or the page, is not held any more.
    Gone,
    /// Too many listings, or too much of them, are held.
    Busy,
    /// The store failed.
    Ufs(UfsError),
}

impl Listings {
    pub(super) fn new(capacity: u64) -> Self {
        let weigh = |_: &Arc<str>, listing: &Arc<Listing>| {
            let weight = OVERHEAD + listing.state.lock().weight;
            u32::try_from(weight).unwrap_or(u32::MAX)
        };
        Self {
            latest: Cache::builder()
                .max_capacity(capacity)
                .weigher(weigh)
                .eviction_policy(EvictionPolicy::lru())
                .support_invalidation_closures()
                .build(),
            reading: Mutex::default(),
            held: Arc::default(),
            capacity,
        }
    }

    /// The listing called `id`, if it is still held.
    pub(super) fn by_id(&self, id: u64) -> Option<Arc<Listing>> {
        self.reading.lock().get(&id).map(Arc::clone)
    }

    /// A listing of `place` from its start: the latest if it is young enough and not
    /// `in_doubt`, else a new one.
    pub(super) fn start(
        &self,
        place: &Place,
        oldest: Oldest,
        seq: u64,
        in_doubt: impl Fn(&str, u64) -> bool,
    ) -> Result<Arc<Listing>, PageError> {
        // Under the lock, so that of many who come at once one begins.
        let mut reading = self.reading.lock();
        if let Some(listing) = self.latest.get(&*place.path)
            && oldest.allows(true, listing.asked_at.elapsed())
            && !in_doubt(&place.path, listing.seq)
            && listing.is_whole()
        {
            listing.state.lock().used = Instant::now();
            reading.insert(listing.id, Arc::clone(&listing));
            return Ok(listing);
        }
        reading.retain(|_, listing| listing.state.lock().used.elapsed() < IDLE);
        if reading.len() >= MOST {
            return Err(PageError::Busy);
        }
        let now = Instant::now();
        let listing = Arc::new(Listing {
            id: rand::random(),
            path: place.path.as_str().into(),
            asked_at: now,
            seq,
            source: tokio::sync::Mutex::new(place.ufs.list(&place.below)),
            state: Mutex::new(State {
                pages: VecDeque::new(),
                first: 0,
                weight: 0,
                end: None,
                used: now,
            }),
            held: Arc::clone(&self.held),
        });
        self.latest
            .insert(Arc::clone(&listing.path), Arc::clone(&listing));
        reading.insert(listing.id, Arc::clone(&listing));
        Ok(listing)
    }

    /// What there is at number `page` of `listing`, and where it came from.
    ///
    /// # Cancel safety
    /// Safe: the page that was waited for comes with the next call.
    pub(super) async fn piece(
        &self,
        listing: &Arc<Listing>,
        page: usize,
        metrics: &NodeMetrics,
    ) -> Result<(Piece, MetadataFrom), PageError> {
        if let Some(piece) = listing.at_hand(page) {
            return Ok((piece?, MetadataFrom::Memory));
        }
        let mut source = listing.source.lock().await;
        loop {
            // Another caller may have got it meanwhile.
            if let Some(piece) = listing.at_hand(page) {
                return Ok((piece?, MetadataFrom::Ufs));
            }
            metrics.metadata_requests.inc();
            let next = source.next().await;
            let short = matches!(&next, Some(Ok(entries)) if entries.len() < FULL);
            self.take(listing, next)?;
            // What the store has said by now: the caller need not ask whether a page follows.
            if short && let Some(next) = source.next().now_or_never() {
                self.take(listing, next)?;
            }
        }
    }

    fn take(
        &self,
        listing: &Arc<Listing>,
        next: Option<Result<Vec<Entry>, UfsError>>,
    ) -> Result<(), PageError> {
        match next {
            Some(Ok(entries)) => return self.add(listing, entries),
            Some(Err(error)) => {
                listing.state.lock().end = Some(Err(error));
                self.drop_latest(listing);
            }
            None => {
                listing.state.lock().end = Some(Ok(()));
                if listing.is_whole() {
                    // Again, with what it weighs now.
                    self.keep_latest(listing);
                }
            }
        }
        Ok(())
    }

    fn add(&self, listing: &Arc<Listing>, entries: Vec<Entry>) -> Result<(), PageError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let page: Vec<(String, PathAttr)> = entries
                .by_ref()
                .take(MAX_PAGE)
                .map(|entry| (entry.name, entry.metadata.into()))
                .collect();
            let page = Bytes::from(encode(&page).map_err(|_| PageError::Gone)?);
            let weight = page.len() as u64;
            let held = self.held.fetch_add(weight, Ordering::Relaxed) + weight;
            let mut state = listing.state.lock();
            state.weight += weight;
            state.pages.push_back(page);
            if state.weight <= self.capacity / 4 && held <= 2 * self.capacity {
                continue;
            }
            // Too large to keep: whoever is behind lists for themselves.
            while state.pages.len() > WINDOW
                && let Some(page) = state.pages.pop_front()
            {
                state.first += 1;
                state.weight -= page.len() as u64;
                self.held.fetch_sub(page.len() as u64, Ordering::Relaxed);
            }
            drop(state);
            self.drop_latest(listing);
        }
        Ok(())
    }

    fn keep_latest(&self, listing: &Arc<Listing>) {
        let is_latest = self
            .latest
            .get(&listing.path)
            .is_some_and(|latest| Arc::ptr_eq(&latest, listing));
        if is_latest {
            self.latest
                .insert(Arc::clone(&listing.path), Arc::clone(listing));
        }
    }

    fn drop_latest(&self, listing: &Arc<Listing>) {
        let is_latest = |latest: Arc<Listing>| Arc::ptr_eq(&latest, listing);
        if self.latest.get(&listing.path).is_some_and(is_latest) {
            self.latest.invalidate(&listing.path);
        }
    }

    /// No newcomer gets a listing that `change` concerns.
    pub(super) fn forget(&self, change: &Change) {
        self.latest.invalidate(&*change.path);
        if let Some(parent) = millpond_proto::change::parent(&change.path) {
            self.latest.invalidate(parent);
        }
        if !change.recursive {
            return;
        }
        let change = change.clone();
        let result = self
            .latest
            .invalidate_entries_if(move |path, _| change.concerns_listing(path));
        if result.is_err() {
            // Cannot be: the cache was built for it.
            self.latest.invalidate_all();
        }
    }
}

/// Pages of a listing too large to keep that stay for those who are not far behind.
const WINDOW: usize = 4;

impl Listing {
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    pub(super) const fn asked_at(&self) -> Instant {
        self.asked_at
    }

    /// Whether it has all pages from the first on, and has not failed.
    fn is_whole(&self) -> bool {
        let state = self.state.lock();
        state.first == 0 && !matches!(state.end, Some(Err(_)))
    }

    fn at_hand(&self, page: usize) -> Option<Result<Piece, PageError>> {
        let mut state = self.state.lock();
        state.used = Instant::now();
        let Some(at) = page.checked_sub(state.first) else {
            return Some(Err(PageError::Gone));
        };
        if let Some(page) = state.pages.get(at) {
            let last = at + 1 == state.pages.len() && matches!(state.end, Some(Ok(())));
            let entries = page.clone();
            return Some(Ok(Piece::Entries { entries, last }));
        }
        // Nobody may skip pages: they would make the node read on and on.
        if at > state.pages.len() {
            return Some(Err(PageError::Gone));
        }
        match state.end.clone()? {
            Ok(()) => Some(Ok(Piece::End)),
            Err(error) => Some(Err(PageError::Ufs(error))),
        }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let weight = self.state.get_mut().weight;
        self.held.fetch_sub(weight, Ordering::Relaxed);
    }
}

impl PageError {
    /// What the caller should do.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Gone => ErrorKind::Stale,
            Self::Busy => ErrorKind::Busy,
            Self::Ufs(error) => error.kind(),
        }
    }
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("this page is not held any more"),
            Self::Busy => f.write_str("too many directories are being listed"),
            Self::Ufs(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("id", &self.id)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Listings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listings")
            .field("reading", &self.reading.lock().len())
            .field("held", &self.held.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millpond_ufs::UfsContext;
    use prometheus_client::registry::Registry;

    use super::*;

    /// Whether each piece of a directory of `files` files says that it is the last.
    async fn pieces(files: usize) -> Vec<bool> {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..files {
            std::fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        let uri = format!("file://{}", dir.path().display());
        let options = BTreeMap::new();
        let opened = millpond_ufs::open(&uri, &options, UfsContext::detached());
        let place = Place {
            path: "/d".to_owned(),
            below: String::new(),
            ufs: opened.await.unwrap(),
        };
        let oldest = Oldest {
            presence_ms: 0,
            absence_ms: 0,
        };
        let metrics = NodeMetrics::new(&mut Registry::default());
        let listings = Listings::new(1 << 20);
        let listing = listings.start(&place, oldest, 0, |_, _| false).unwrap();
        let mut said = Vec::new();
        loop {
            let piece = listings.piece(&listing, said.len(), &metrics).await;
            match piece.unwrap().0 {
                Piece::Entries { last, .. } => said.push(last),
                Piece::End => return said,
            }
        }
    }

    #[tokio::test]
    async fn a_page_that_is_not_full_says_that_it_is_the_last() {
        assert_eq!(pieces(0).await, [false; 0]);
        assert_eq!(pieces(3).await, [true]);
        assert_eq!(pieces(FULL + 3).await, [false, true]);
    }
}
