//! Directories, page by page: what the store holds, with the mounts on top; from the cache if
//! a whole listing is there, else listed once however many read it.

mod shared;
mod source;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use millpond_proto::{MetadataMode, Trust};

use crate::attr::{Attr, DirEntry};
use crate::core::Core;
use crate::error::ClientError;
use crate::metadata::{Directory, remaining};
use crate::namespace::{self, Place};

pub(crate) use shared::Listings;
pub(crate) use source::{FIRST_PAUSE, LONGEST_PAUSE};

use shared::{Next, Reader};
use source::Target;

/// Pages of a directory.
pub(crate) type Pages = BoxStream<'static, Result<Page, ClientError>>;

/// Some entries of a directory, in the order of its listing.
#[derive(Clone)]
pub struct Page {
    entries: Arc<[DirEntry]>,
    asked_at: Instant,
    trust: Trust,
}

impl Page {
    /// The entries; at least one.
    pub fn entries(&self) -> &[DirEntry] {
        &self.entries
    }

    /// How long its entries are still believed at `now`: what the kernel may be told of them.
    pub fn valid(&self, now: Instant) -> Duration {
        remaining(self.asked_at, self.trust.presence(), now)
    }

    /// Entries that nobody may believe for any time.
    pub(crate) fn unbelieved(entries: impl Iterator<Item = DirEntry>) -> Self {
        Self {
            entries: entries.collect(),
            asked_at: Instant::now(),
            trust: Trust {
                mode: MetadataMode::Strict,
                ttl: Duration::ZERO,
            },
        }
    }

    /// This page, with other entries in place of those for which there is another.
    pub(crate) fn replaced(self, mut other: impl FnMut(&DirEntry) -> Option<DirEntry>) -> Self {
        let others: Vec<_> = self.entries.iter().map(&mut other).collect();
        if others.iter().all(Option::is_none) {
            return self;
        }
        let own = self.entries.iter();
        Self::unbelieved(
            others
                .into_iter()
                .zip(own)
                .map(|(other, own)| other.unwrap_or_else(|| own.clone())),
        )
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

/// Entries in one page of a directory that comes from the cache.
const PAGE: usize = 1000;

/// The directory at the normalized `path`. What the pages say of files is known from then on,
/// so that opening what was listed asks the store nothing.
pub(crate) fn list(core: Arc<Core>, path: String) -> Pages {
    if let Some(directory) = core.listed(&path) {
        return cached(directory);
    }
    stream::once(async move { begin(core, path).await })
        .try_flatten()
        .boxed()
}

/// The pages of a directory that is at hand.
fn cached(directory: Arc<Directory>) -> Pages {
    let count = directory.entries().len().div_ceil(PAGE);
    let page = move |number: usize| {
        let entries = directory.entries();
        let from = number * PAGE;
        Ok(Page {
            entries: entries[from..(from + PAGE).min(entries.len())].into(),
            asked_at: directory.asked_at(),
            trust: directory.trust(),
        })
    };
    stream::iter((0..count).map(page)).boxed()
}

async fn begin(core: Arc<Core>, path: String) -> Result<Pages, ClientError> {
    let snapshot = core.snapshot();
    let place = Place::of(&snapshot.view().mounts, &path);
    let fixed = place.is_fixed_directory();
    let first = mounted(&core, &path, &place.children).await;
    let first = stream::iter(first.map(Ok));
    let Some((mount, below)) = place.mount else {
        return if fixed {
            Ok(first.boxed())
        } else {
            Err(ClientError::NotFound { path })
        };
    };
    let asked = core.question(&snapshot, mount);
    let target = Target {
        path,
        mount,
        below,
        generation: asked.generation,
        // A directory that exists because of mounts need not exist in the store around it.
        may_be_absent: fixed,
        hidden: place.children.into_iter().collect::<HashSet<_>>(),
    };
    // What lies in a directory because of mounts follows other stores, and other rules.
    let whole = target.hidden.is_empty();
    let reader = core.listings.join(&core, target, asked, whole);
    Ok(first.chain(follow(core, reader)).boxed())
}

/// The pages that `reader` reads.
fn follow(core: Arc<Core>, reader: Reader) -> Pages {
    stream::unfold(Some((core, reader)), |state| async {
        let (core, mut reader) = state?;
        loop {
            match reader.next(&core).await {
                Next::Page(page) => return Some((Ok(page), Some((core, reader)))),
                Next::End => return None,
                Next::Failed(error) => return Some((Err(error), None)),
                Next::Behind => reader = reader.alone(&core),
            }
        }
    })
    .boxed()
}

/// The names that exist because of mounts, as a page; none if there are none.
async fn mounted(core: &Arc<Core>, path: &str, names: &[String]) -> Option<Page> {
    let asked_at = Instant::now();
    let entry = |name: &String| {
        let (core, name) = (Arc::clone(core), name.clone());
        let child = namespace::join(path, &name);
        async move {
            let attr = match core.look_up(&child).await {
                Ok(attr) => attr,
                // It went away between two views, or the client is shutting down.
                Err(_) => Arc::new(Attr::virtual_directory()),
            };
            DirEntry {
                name: name.into(),
                attr,
            }
        }
    };
    let entries = futures::future::join_all(names.iter().map(entry)).await;
    (!entries.is_empty()).then(|| Page {
        entries: entries.into(),
        asked_at,
        trust: core.metadata.default_trust(),
    })
}
