//! The metadata cache: attributes by path and whole directories, believed for a while, in one
//! bounded amount of memory.
//!
//! Time is an argument, so that the rules can be tested without waiting.

mod directory;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millpond_proto::change::{self, Change, ChangeLog};
use millpond_proto::{MetadataMode, Trust};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::attr::{Attr, DirEntry};

pub use directory::Directory;
pub(crate) use directory::{remaining, weight_of};

/// What an entry costs beside its texts.
const ENTRY_OVERHEAD: usize = 640;

/// A directory that would take more than this share of the cache is not kept.
const LARGEST_SHARE: u64 = 4;

/// Changes that are told apart; after more of them at once, everything counts as changed.
const REMEMBERED_CHANGES: usize = 1024;

/// What is known of a path.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// It exists.
    Present(Arc<Attr>),
    /// It does not.
    Absent,
}

/// What is known of a path, and for how long it may be believed from now on.
#[derive(Debug, Clone)]
pub(crate) struct Believed {
    pub(crate) known: Known,
    pub(crate) valid: Duration,
}

/// A question put to a store: what its answer needs in order to be kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// The mount table that the path was resolved in.
    pub(crate) generation: u64,
    /// How many changes were known.
    pub(crate) seq: u64,
    /// When.
    pub(crate) at: Instant,
    /// How long the answer may be believed.
    pub(crate) trust: Trust,
}

/// Attributes and directories by namespace path.
///
/// - What exists is believed for [`Trust::presence`], absence for [`Trust::absence`], both
///   counted from when the store was asked.
/// - A directory answers for all names that it has, and for all that it has not.
/// - Where an attribute and a directory both speak of a path, the later one is right.
/// - An entry holds for one generation of the mount table only.
/// - An answer to a question that was put before a change of its path is never kept.
/// - Errors are never entered, nor directories that were not listed to their end.
pub(crate) struct MetadataCache {
    /// Attributes by path (the root's by `""`), directories by their path and a `/`: a lookup
    /// of either takes a part of the path asked for and allocates nothing.
    entries: Cache<Arc<str>, Entry>,
    capacity: u64,
    default: Trust,
    changes: Mutex<ChangeLog>,
    /// The number of the last change, to see without the lock that there was none.
    seq: AtomicU64,
}

#[derive(Clone)]
struct Entry {
    what: What,
    asked: Asked,
}

#[derive(Clone)]
enum What {
    Attr(Known),
    Directory(Arc<Directory>),
}

impl MetadataCache {
    /// A cache of `capacity` bytes; `default` holds where mounts do not say otherwise.
    pub(crate) fn new(capacity: u64, default: Trust) -> Self {
        let weigh = |path: &Arc<str>, entry: &Entry| {
            let below = match &entry.what {
                What::Attr(Known::Present(attr)) => directory::weight_of_texts(attr),
                What::Attr(Known::Absent) => 0,
                What::Directory(directory) => directory.weight() as usize,
            };
            u32::try_from(path.len() + below + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        Self {
            entries: Cache::builder()
                .max_capacity(capacity)
                .weigher(weigh)
                .eviction_policy(EvictionPolicy::lru())
                .support_invalidation_closures()
                .build(),
            capacity,
            default,
            changes: Mutex::new(ChangeLog::new(REMEMBERED_CHANGES)),
            seq: AtomicU64::new(0),
        }
    }

    /// What holds where a mount does not say otherwise.
    pub(crate) const fn default_trust(&self) -> Trust {
        self.default
    }

    /// The heaviest directory that is kept, in bytes.
    pub(crate) const fn largest_directory(&self) -> u64 {
        self.capacity / LARGEST_SHARE
    }

    /// The number of the last change that is known.
    pub(crate) fn seq(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    /// What is known of `path` in `generation` at `now`, if it is still believed.
    pub(crate) fn get(&self, path: &str, generation: u64, now: Instant) -> Option<Believed> {
        let attr = self.attr(path, generation, now);
        let listed = self.listed(path, generation, now);
        match (attr, listed) {
            (Some((a, a_at)), Some((l, l_at))) => Some(if l_at > a_at { l } else { a }),
            (attr, listed) => attr.or(listed).map(|(believed, _)| believed),
        }
    }

    fn attr(&self, path: &str, generation: u64, now: Instant) -> Option<(Believed, Instant)> {
        let entry = self.entries.get(attr_key(path))?;
        let What::Attr(known) = entry.what else {
            return None;
        };
        let trust = entry.asked.trust;
        let span = match known {
            Known::Present(_) => trust.presence(),
            Known::Absent => trust.absence(),
        };
        let valid = remaining(entry.asked.at, span, now);
        let holds = entry.asked.generation == generation && !valid.is_zero();
        holds.then_some((Believed { known, valid }, entry.asked.at))
    }

    /// What the directory that holds `path` says of it.
    fn listed(&self, path: &str, generation: u64, now: Instant) -> Option<(Believed, Instant)> {
        // With its `/`: the key of the directory.
        let name_at = path.rfind('/')? + 1;
        let (dir, name) = path.split_at(name_at);
        if name.is_empty() {
            return None;
        }
        let directory = self.directory_at(dir, generation)?;
        let (known, valid) = match directory.get(name) {
            Some(entry) => {
                let known = Known::Present(Arc::clone(&entry.attr));
                (known, directory.valid(now))
            }
            None => (Known::Absent, directory.absence_valid(now)),
        };
        (!valid.is_zero()).then_some((Believed { known, valid }, directory.asked_at()))
    }

    /// The directory `path` as a whole, if it is known and still believed at `now`.
    pub(crate) fn directory(
        &self,
        path: &str,
        generation: u64,
        now: Instant,
    ) -> Option<Arc<Directory>> {
        let directory = match path {
            "/" => self.directory_at(path, generation),
            path => self.directory_at(&directory_key(path), generation),
        }?;
        (!directory.valid(now).is_zero()).then_some(directory)
    }

    fn directory_at(&self, key: &str, generation: u64) -> Option<Arc<Directory>> {
        let entry = self.entries.get(key)?;
        match entry.what {
            What::Directory(directory) if entry.asked.generation == generation => Some(directory),
            What::Directory(_) | What::Attr(_) => None,
        }
    }

    /// Enters what the store said of `path`.
    pub(crate) fn put(&self, path: &str, known: Known, asked: Asked) {
        if is_kept(&asked) {
            let concerned = |change: &Change| change.concerns(path);
            self.enter(attr_key(path), What::Attr(known), asked, concerned);
        }
    }

    /// Enters the whole directory `path`, unless it is too large.
    pub(crate) fn put_directory(&self, path: &str, entries: Vec<DirEntry>, asked: Asked) {
        let Some(directory) = Directory::new(entries, asked.at, asked.trust) else {
            return;
        };
        if is_kept(&asked) && u64::from(directory.weight()) <= self.largest_directory() {
            let concerned = |change: &Change| change.concerns_listing(path);
            let what = What::Directory(Arc::new(directory));
            self.enter(&directory_key(path), what, asked, concerned);
        }
    }

    fn enter(&self, key: &str, what: What, asked: Asked, concerned: impl Fn(&Change) -> bool) {
        if self.seq() != asked.seq && self.changed_since(asked.seq, &concerned) {
            return;
        }
        self.entries.insert(Arc::from(key), Entry { what, asked });
        // A change that came between the look and the insertion found nothing to forget.
        if self.seq() != asked.seq && self.changed_since(asked.seq, &concerned) {
            self.entries.invalidate(key);
        }
    }

    fn changed_since(&self, seq: u64, concerned: impl Fn(&Change) -> bool) -> bool {
        match self.changes.lock().since(seq) {
            Some(mut news) => news.any(concerned),
            None => true,
        }
    }

    /// Whether a listing of the directory `path` that was begun when `seq` changes were known
    /// may be wrong by now.
    pub(crate) fn is_listing_in_doubt(&self, path: &str, seq: u64) -> bool {
        self.seq() != seq && self.changed_since(seq, |change| change.concerns_listing(path))
    }

    /// `attr`, which a listing said of `path`, together with what is known of the same version
    /// from elsewhere: a listing may know less of a file than `stat` does.
    pub(crate) fn complete(&self, path: &str, generation: u64, mut attr: Attr) -> Attr {
        let Some(entry) = self.entries.get(attr_key(path)) else {
            return attr;
        };
        if let What::Attr(Known::Present(old)) = entry.what
            && entry.asked.generation == generation
            && attr.kind == old.kind
            && attr.version == old.version
            && attr.size == old.size
        {
            attr.mode = attr.mode.or(old.mode);
            attr.uid = attr.uid.or(old.uid);
            attr.gid = attr.gid.or(old.gid);
            attr.mtime = attr.mtime.or(old.mtime);
            attr.atime = attr.atime.or(old.atime);
            attr.ctime = attr.ctime.or(old.ctime);
        }
        attr
    }

    /// Forgets what `change` concerns: it was seen, or said, to have changed. What was asked
    /// before is not kept either.
    pub(crate) fn forget(&self, change: Change) {
        {
            let mut changes = self.changes.lock();
            let seq = changes.push(change.clone());
            self.seq.store(seq, Ordering::Release);
        }
        self.entries.invalidate(attr_key(&change.path));
        self.entries.invalidate(&*directory_key(&change.path));
        if let Some(parent) = change::parent(&change.path) {
            self.entries.invalidate(&*directory_key(parent));
        }
        if change.path == "/" && change.recursive {
            self.entries.invalidate_all();
        } else if change.recursive {
            let below = directory_key(&change.path);
            let result = self
                .entries
                .invalidate_entries_if(move |key, _| key.starts_with(&*below));
            if result.is_err() {
                // Cannot be: the cache was built for it.
                self.entries.invalidate_all();
            }
        }
    }
}

/// Whether anybody could use the answer later.
fn is_kept(asked: &Asked) -> bool {
    asked.trust.mode != MetadataMode::Strict
}

fn attr_key(path: &str) -> &str {
    if path == "/" { "" } else { path }
}

fn directory_key(path: &str) -> String {
    if path.ends_with('/') {
        path.to_owned()
    } else {
        format!("{path}/")
    }
}

impl fmt::Debug for MetadataCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataCache")
            .field("default", &self.default)
            .field("entries", &self.entries.entry_count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
