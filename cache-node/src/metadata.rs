//! What stores say of paths, asked once for all clients: attributes, listings, and the news of
//! what changed.
//!
//! A node keeps no rule of its own on how long an answer holds: each question names the oldest
//! answer that will do, by the mode of its mount, and each answer says how old it is.

mod flights;
mod listings;
mod news;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use millpond_proto::wire::query::{News, Oldest, PathAttr, Seen, StatAnswer, encode_page};
use millpond_proto::{Change, ErrorKind, FileVersion};
use millpond_ufs::{Ufs, UfsError};

use crate::metrics::{MetadataFrom, NodeMetrics};

use self::flights::Flights;
pub(crate) use self::listings::PageError;
use self::listings::{Listings, Piece};
use self::news::NewsRoom;

/// What an entry costs beside its texts.
const ENTRY_OVERHEAD: usize = 256;

/// A directory that is asked for: where it is in the namespace and in its store.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The path in the namespace, by which changes are told.
    pub(crate) path: String,
    /// The path below the mount.
    pub(crate) below: String,
    /// The mount's store.
    pub(crate) ufs: Arc<dyn Ufs>,
}

/// The metadata that this node holds for all.
///
/// - An answer is given only if it is as young as its question asks.
/// - However many ask for the same thing at once, the store is asked once.
/// - What was asked before a change of its path is never given after it.
/// - Errors are never kept.
pub struct NodeMetadata {
    attrs: Cache<Arc<str>, Held>,
    stats: Arc<Flights<(String, u64), Result<Held, UfsError>>>,
    listings: Listings,
    news: NewsRoom,
    metrics: Arc<NodeMetrics>,
}

#[derive(Debug, Clone)]
struct Held {
    asked_at: Instant,
    found: Option<Arc<PathAttr>>,
}

impl NodeMetadata {
    /// Holds at most about `capacity` bytes.
    pub fn new(capacity: u64, metrics: Arc<NodeMetrics>) -> Arc<Self> {
        let weigh = |path: &Arc<str>, held: &Held| {
            let version = held.found.as_ref().map_or(0, |attr| match &attr.version {
                Some(FileVersion::Id(text) | FileVersion::ETag(text)) => text.len(),
                Some(FileVersion::Local { .. } | FileVersion::Modified(_)) | None => 0,
            });
            u32::try_from(path.len() + version + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        Arc::new(Self {
            attrs: Cache::builder()
                .max_capacity(capacity / 2)
                .weigher(weigh)
                .eviction_policy(EvictionPolicy::lru())
                .support_invalidation_closures()
                .build(),
            stats: Flights::new(),
            listings: Listings::new(capacity / 2),
            news: NewsRoom::new(),
            metrics,
        })
    }

    /// What is at `place`.
    pub(crate) async fn stat(
        self: &Arc<Self>,
        place: Place,
        oldest: Oldest,
    ) -> Result<StatAnswer, UfsError> {
        if let Some(held) = self.held(&place.path, oldest) {
            self.metrics.stat_answered(MetadataFrom::Memory);
            return Ok(held.answer());
        }
        let seq = self.news.seq();
        let key = (place.path.clone(), seq);
        let flight = self.stats.join(key, || {
            let metadata = Arc::clone(self);
            async move {
                // One that landed between the look above and this flight.
                if let Some(held) = metadata.held(&place.path, oldest) {
                    return Ok(held);
                }
                metadata.ask(&place, seq).await
            }
        });
        let held = flight.await?;
        self.metrics.stat_answered(MetadataFrom::Ufs);
        Ok(held.answer())
    }

    fn held(&self, path: &str, oldest: Oldest) -> Option<Held> {
        let held = self.attrs.get(path)?;
        let young = oldest.allows(held.found.is_some(), held.asked_at.elapsed());
        young.then_some(held)
    }

    async fn ask(&self, place: &Place, seq: u64) -> Result<Held, UfsError> {
        let asked_at = Instant::now();
        self.metrics.metadata_requests.inc();
        let found = match place.ufs.stat(&place.below).await {
            Ok(metadata) => Some(Arc::new(metadata.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let held = Held { asked_at, found };
        let concerned = |change: &Change| change.concerns(&place.path);
        if !self.news.changed_since(seq, concerned) {
            self.attrs.insert(place.path.as_str().into(), held.clone());
            // A change that came between the look and the insertion found nothing.
            if self.news.changed_since(seq, concerned) {
                self.attrs.invalidate(&*place.path);
            }
        }
        Ok(held)
    }

    /// Page `page` of the directory at `place`, encoded: of `listing`, or of any that is young
    /// enough.
    pub(crate) async fn list(
        &self,
        place: Place,
        oldest: Oldest,
        listing: Option<u64>,
        page: u32,
    ) -> Result<Vec<u8>, PageError> {
        let listing = match listing {
            Some(id) => self.listings.by_id(id).ok_or(PageError::Gone)?,
            None => {
                let seq = self.news.seq();
                let in_doubt = |path: &str, since: u64| {
                    let concerned = |change: &Change| change.concerns_listing(path);
                    self.news.changed_since(since, concerned)
                };
                self.listings.start(&place, oldest, seq, in_doubt)?
            }
        };
        let (piece, from) = self
            .listings
            .piece(&listing, page as usize, &self.metrics)
            .await?;
        self.metrics.list_answered(from);
        let age = listing.asked_at().elapsed();
        let (end, entries) = match &piece {
            Piece::Entries { entries, last } => (*last, &entries[..]),
            Piece::End => (true, NO_ENTRIES),
        };
        encode_page(listing.id(), age, end, entries).map_err(|_| PageError::Gone)
    }

    /// Forgets what `change` concerns; says so to all who watch if it is to be published.
    pub(crate) fn forget(&self, change: &Change, origin: u64, publish: bool) {
        if publish {
            self.news.publish(change.clone(), origin);
        } else {
            self.news.note(change.clone());
        }
        self.listings.forget(change);
        self.attrs.invalidate(&*change.path);
        if change.recursive {
            let below = change.clone();
            let result = self
                .attrs
                .invalidate_entries_if(move |path, _| below.concerns(path));
            if result.is_err() {
                // Cannot be: the cache was built for it.
                self.attrs.invalidate_all();
            }
        }
    }

    /// Lets nobody wait for news any more: the node is about to end.
    pub fn close(&self) {
        self.news.close();
    }

    /// The news after `seen`, without those of `origin`, as soon as there are any, else what
    /// there is after `patience`.
    pub(crate) async fn watch(&self, seen: Option<Seen>, origin: u64, patience: Duration) -> News {
        self.news.watch(seen, origin, patience).await
    }
}

impl Held {
    fn answer(&self) -> StatAnswer {
        StatAnswer {
            age_ms: u64::try_from(self.asked_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            found: self.found.as_deref().cloned(),
        }
    }
}

/// An empty list, encoded.
const NO_ENTRIES: &[u8] = &[0];

impl fmt::Debug for NodeMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeMetadata")
            .field("attrs", &self.attrs.entry_count())
            .field("listings", &self.listings)
            .finish_non_exhaustive()
    }
}
