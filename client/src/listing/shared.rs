//! One listing for all who read the directory at the same time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use millpond_proto::MetadataMode;
use parking_lot::Mutex;

use super::Page;
use super::source::{Raw, Resume, Source, Target};
use crate::attr::{Attr, DirEntry};
use crate::core::Core;
use crate::error::ClientError;
use crate::metadata::{Asked, Believed, Known, remaining, weight_of};
use crate::prefetch::Names;

/// The listings under way that others may join, by path.
pub(crate) struct Listings {
    under_way: Mutex<HashMap<Arc<str>, Weak<SharedListing>>>,
    /// How many of them there are, to see without the lock that there are none.
    count: AtomicUsize,
    /// Bytes of pages that listings under way hold.
    held: AtomicU64,
}

/// A listing under way. Its pages come from the store once, when the first of its readers
/// asks for them, and are handed to all.
///
/// - Readers may join while it has all its pages, and answers for the names in them.
/// - When it grows larger than the cache keeps, it lets go of pages as soon as all readers
///   have them, and in any case of the oldest: a reader that is left behind goes on alone.
pub(super) struct SharedListing {
    listings: Arc<Listings>,
    target: Target,
    asked: Asked,
    /// Held by whoever gets the next page.
    source: tokio::sync::Mutex<Source>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pages: VecDeque<Page>,
    /// How many pages before these are gone.
    first: usize,
    end: Option<Result<(), ClientError>>,
    weight: u64,
    /// When the store was asked for the oldest page, if that was before this listing began:
    /// the directory's owner may have had it.
    asked_at: Option<Instant>,
    /// All pages are here and count: they are kept as a whole in the end.
    whole: bool,
    /// The names of its files so far.
    names: Names,
    /// What the pages say, as long as all of them are here.
    index: HashMap<Arc<str>, Arc<Attr>>,
    /// The next page of each reader.
    readers: BTreeMap<u64, usize>,
    next_reader: u64,
}

/// One who reads a listing.
pub(super) struct Reader {
    listing: Arc<SharedListing>,
    id: u64,
    page: usize,
    passed: Resume,
}

/// What a reader gets.
pub(super) enum Next {
    Page(Page),
    End,
    Failed(ClientError),
    /// The listing let go of pages that this reader has not read.
    Behind,
}

impl Listings {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            under_way: Mutex::default(),
            count: AtomicUsize::new(0),
            held: AtomicU64::new(0),
        })
    }

    /// A reader of `target` from the start: of the listing that is under way if its answers
    /// may be believed, else of a new one. A `whole` listing is kept when it is complete.
    pub(super) fn join(
        self: &Arc<Self>,
        core: &Core,
        target: Target,
        asked: Asked,
        whole: bool,
    ) -> Reader {
        if !whole || asked.trust.mode == MetadataMode::Strict {
            let listing = self.listing(Source::new(target, Resume::default()), asked, false);
            return Arc::new(listing).reader(Resume::default());
        }
        let mut under_way = self.under_way.lock();
        // Outlives the lock: the last one to let go of a listing takes it.
        let present = under_way.get(&*target.path).and_then(Weak::upgrade);
        if let Some(listing) = &present
            && listing.may_be_joined(core, &asked)
        {
            drop(under_way);
            return Arc::clone(listing).reader(Resume::default());
        }
        let path: Arc<str> = target.path.as_str().into();
        let source = Source::new(target, Resume::default());
        let listing = Arc::new(self.listing(source, asked, true));
        under_way.insert(path, Arc::downgrade(&listing));
        self.count.store(under_way.len(), Ordering::Release);
        drop(under_way);
        listing.reader(Resume::default())
    }

    /// Bytes of pages that are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn listing(self: &Arc<Self>, source: Source, asked: Asked, whole: bool) -> SharedListing {
        SharedListing {
            listings: Arc::clone(self),
            target: source.target().clone(),
            asked,
            source: tokio::sync::Mutex::new(source),
            state: Mutex::new(State {
                whole,
                ..State::default()
            }),
        }
    }

    /// What the pages of a listing under way say of `name` in the directory `dir`.
    pub(crate) fn find(
        &self,
        core: &Core,
        dir: &str,
        name: &str,
        generation: u64,
        now: Instant,
    ) -> Option<Believed> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let listing = self.under_way.lock().get(dir).and_then(Weak::upgrade)?;
        let asked = listing.asked();
        let valid = remaining(asked.at, asked.trust.presence(), now);
        let holds = asked.generation == generation && asked.seq == core.metadata.seq();
        if !holds || valid.is_zero() {
            return None;
        }
        let attr = listing.state.lock().index.get(name).map(Arc::clone)?;
        let known = Known::Present(attr);
        Some(Believed { known, valid })
    }
}

impl SharedListing {
    /// The question, as old as the oldest page.
    fn asked(&self) -> Asked {
        Asked {
            at: self.state.lock().asked_at.unwrap_or(self.asked.at),
            ..self.asked
        }
    }

    fn may_be_joined(&self, core: &Core, asked: &Asked) -> bool {
        let began = self.asked().at;
        let fresh = !remaining(began, self.asked.trust.presence(), asked.at).is_zero();
        let same = self.asked.generation == asked.generation
            && self.asked.trust == asked.trust
            && !core
                .metadata
                .is_listing_in_doubt(&self.target.path, self.asked.seq);
        let state = self.state.lock();
        fresh && same && state.whole && !matches!(state.end, Some(Err(_)))
    }

    fn reader(self: Arc<Self>, passed: Resume) -> Reader {
        let mut state = self.state.lock();
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, 0);
        drop(state);
        Reader {
            listing: self,
            id,
            page: 0,
            passed,
        }
    }

    /// Gets the next page from the store.
    ///
    /// # Cancel safety
    /// Safe, as [`Source::next`] is.
    async fn advance(&self, core: &Arc<Core>, source: &mut Source) {
        let next = source.next(core).await;
        let mut entries = None;
        {
            let mut state = self.state.lock();
            match next {
                Ok(Some(raw)) => self.add(core, &mut state, raw),
                Ok(None) => {
                    state.end = Some(Ok(()));
                    let names = std::mem::take(&mut state.names);
                    core.prefetch.learn(&self.target.path, names);
                    entries = state.whole.then(|| {
                        let pages = state.pages.iter();
                        pages
                            .flat_map(|page| page.entries.iter().cloned())
                            .collect()
                    });
                }
                Err(error) => state.end = Some(Err(error)),
            }
        }
        if let Some(entries) = entries {
            let path = &self.target.path;
            core.metadata.put_directory(path, entries, self.asked());
        }
    }

    fn add(&self, core: &Core, state: &mut State, raw: Raw) {
        let files = raw.entries.iter().filter(|entry| entry.attr.is_file());
        files.for_each(|entry| state.names.push(&entry.name));
        let weight: u64 = raw.entries.iter().map(weight_of).sum();
        let held = self.listings.held.fetch_add(weight, Ordering::Relaxed) + weight;
        state.weight += weight;
        let oldest = state.asked_at.unwrap_or(self.asked.at).min(raw.asked_at);
        state.asked_at = Some(oldest);
        let largest = core.metadata.largest_directory();
        if state.whole && (state.weight > largest || held > 2 * largest) {
            state.whole = false;
            state.index = HashMap::new();
        }
        if state.whole {
            let named = |entry: &DirEntry| (Arc::clone(&entry.name), Arc::clone(&entry.attr));
            state.index.extend(raw.entries.iter().map(named));
        } else {
            self.enter(core, &raw);
        }
        state.pages.push_back(Page {
            entries: raw.entries.into(),
            asked_at: raw.asked_at,
            trust: self.asked.trust,
        });
        self.let_go(state, largest);
    }

    /// Enters a page one by one: nothing is kept as a whole.
    fn enter(&self, core: &Core, raw: &Raw) {
        let asked = Asked {
            at: raw.asked_at,
            ..self.asked
        };
        for entry in &raw.entries {
            let path = crate::namespace::join(&self.target.path, &entry.name);
            let known = Known::Present(Arc::clone(&entry.attr));
            core.metadata.put(&path, known, asked);
        }
    }

    /// Lets go of pages that nobody needs any more, and of the oldest if there are too many.
    fn let_go(&self, state: &mut State, largest: u64) {
        if state.whole {
            return;
        }
        let needed = state.readers.values().min().copied().unwrap_or(usize::MAX);
        while state.pages.len() > 1 && (state.first < needed || state.weight > largest) {
            let Some(page) = state.pages.pop_front() else {
                return;
            };
            let weight: u64 = page.entries.iter().map(weight_of).sum();
            self.listings.held.fetch_sub(weight, Ordering::Relaxed);
            state.weight -= weight;
            state.first += 1;
        }
    }
}

impl Drop for SharedListing {
    fn drop(&mut self) {
        let weight = self.state.get_mut().weight;
        self.listings.held.fetch_sub(weight, Ordering::Relaxed);
        let mut under_way = self.listings.under_way.lock();
        // Another listing of the directory may have taken the place.
        if let Some(listing) = under_way.get(&*self.target.path)
            && listing.strong_count() == 0
        {
            under_way.remove(&*self.target.path);
        }
        self.listings
            .count
            .store(under_way.len(), Ordering::Release);
    }
}

impl Reader {
    /// The next page.
    ///
    /// # Cancel safety
    /// Safe: the same page comes with the next call.
    pub(super) async fn next(&mut self, core: &Arc<Core>) -> Next {
        loop {
            if let Some(next) = self.at_hand(core) {
                return next;
            }
            let listing = Arc::clone(&self.listing);
            let mut source = listing.source.lock().await;
            // Another reader may have got it meanwhile.
            if let Some(next) = self.at_hand(core) {
                return next;
            }
            listing.advance(core, &mut source).await;
        }
    }

    fn at_hand(&mut self, core: &Core) -> Option<Next> {
        let mut state = self.listing.state.lock();
        let Some(at) = self.page.checked_sub(state.first) else {
            return Some(Next::Behind);
        };
        if let Some(page) = state.pages.get(at) {
            let page = page.clone();
            self.page += 1;
            state.readers.insert(self.id, self.page);
            self.listing
                .let_go(&mut state, core.metadata.largest_directory());
            drop(state);
            self.passed.pass(&page.entries);
            return Some(Next::Page(page));
        }
        match state.end.clone()? {
            Ok(()) => Some(Next::End),
            Err(error) => Some(Next::Failed(error)),
        }
    }

    /// A reader of a listing of its own that goes on where this one is.
    pub(super) fn alone(self, core: &Core) -> Self {
        let listings = &self.listing.listings;
        let source = Source::new(self.listing.target.clone(), self.passed.clone());
        let asked = Asked {
            at: Instant::now(),
            seq: core.metadata.seq(),
            ..self.listing.asked
        };
        Arc::new(listings.listing(source, asked, false)).reader(self.passed.clone())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.listing.state.lock().readers.remove(&self.id);
    }
}

impl fmt::Debug for Listings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listings")
            .field("under_way", &self.count.load(Ordering::Relaxed))
            .field("held", &self.held.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
