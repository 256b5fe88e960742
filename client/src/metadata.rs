//! The metadata cache: attributes by path, believed for a while.
//!
//! Time is an argument, so that the rules can be tested without waiting.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::attr::Attr;

/// Memory for attributes, part of the constant that a client needs beside its data.
const CAPACITY: u64 = 32 << 20;

/// What an entry costs beside its texts.
const ENTRY_OVERHEAD: usize = 640;

/// What is known of a path.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// It exists.
    Present(Arc<Attr>),
    /// It does not.
    Absent,
}

/// Attributes by namespace path.
///
/// - An entry is believed for the TTL, absence for half of it.
/// - An entry holds for one generation of the mount table only.
/// - Errors are never entered.
pub(crate) struct MetadataCache {
    entries: Cache<Arc<str>, Entry>,
    ttl: Duration,
}

#[derive(Clone)]
struct Entry {
    known: Known,
    generation: u64,
    at: Instant,
}

impl MetadataCache {
    pub(crate) fn new(ttl: Duration) -> Self {
        let weigh = |path: &Arc<str>, entry: &Entry| {
            let uri = match &entry.known {
                Known::Present(attr) => attr.ufs_uri.len(),
                Known::Absent => 0,
            };
            u32::try_from(path.len() + uri + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        Self {
            entries: Cache::builder()
                .max_capacity(CAPACITY)
                .weigher(weigh)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            ttl,
        }
    }

    /// What is known of `path` in `generation` at `now`, if it is still believed.
    pub(crate) fn get(&self, path: &str, generation: u64, now: Instant) -> Option<Known> {
        let entry = self.entries.get(path)?;
        let ttl = match entry.known {
            Known::Present(_) => self.ttl,
            Known::Absent => self.ttl / 2,
        };
        let age = now.saturating_duration_since(entry.at);
        (entry.generation == generation && age < ttl).then_some(entry.known)
    }

    /// Enters what the store said of `path` when it was asked at `at`.
    pub(crate) fn put(&self, path: &str, generation: u64, known: Known, at: Instant) {
        let entry = Entry {
            known,
            generation,
            at,
        };
        self.entries.insert(Arc::from(path), entry);
    }

    /// Enters what a listing said of `path`. A listing may know less of a file than `stat`
    /// does: what is known of the same version is kept. Returns what is known now.
    pub(crate) fn put_listed(
        &self,
        path: &str,
        generation: u64,
        mut attr: Attr,
        at: Instant,
    ) -> Arc<Attr> {
        let before = self.entries.get(path);
        if let Some(entry) = before
            && entry.generation == generation
            && let Known::Present(old) = entry.known
        {
            let same = attr.kind == old.kind && attr.version == old.version;
            if same && attr.size == old.size {
                attr.mode = attr.mode.or(old.mode);
                attr.uid = attr.uid.or(old.uid);
                attr.gid = attr.gid.or(old.gid);
                attr.mtime = attr.mtime.or(old.mtime);
            }
        }
        let attr = Arc::new(attr);
        self.put(path, generation, Known::Present(Arc::clone(&attr)), at);
        attr
    }

    /// Forgets `path`: it was seen to have changed.
    pub(crate) fn forget(&self, path: &str) {
        self.entries.invalidate(path);
    }

    /// How long an entry is believed.
    pub(crate) const fn ttl(&self) -> Duration {
        self.ttl
    }
}

impl fmt::Debug for MetadataCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataCache")
            .field("ttl", &self.ttl)
            .field("entries", &self.entries.entry_count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use millpond_proto::FileVersion;

    use super::*;
    use crate::attr::FileKind;

    const TTL: Duration = Duration::from_secs(10);

    fn file(version: &str, mode: Option<u32>) -> Attr {
        Attr {
            kind: FileKind::File,
            version: Some(FileVersion::ETag(version.into())),
            mode,
            ..Attr::virtual_directory()
        }
    }

    fn present(attr: Attr) -> Known {
        Known::Present(Arc::new(attr))
    }

    #[test]
    fn entries_are_believed_for_the_ttl_and_absence_for_half() {
        let cache = MetadataCache::new(TTL);
        let start = Instant::now();
        cache.put("/a", 1, present(file("1", None)), start);
        cache.put("/b", 1, Known::Absent, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(matches!(cache.get("/a", 1, at(9)), Some(Known::Present(_))));
        assert!(cache.get("/a", 1, at(10)).is_none());
        assert!(matches!(cache.get("/b", 1, at(4)), Some(Known::Absent)));
        assert!(cache.get("/b", 1, at(5)).is_none());
    }

    #[test]
    fn another_mount_table_is_another_generation() {
        let cache = MetadataCache::new(TTL);
        let now = Instant::now();
        cache.put("/a", 1, present(file("1", None)), now);
        assert!(cache.get("/a", 2, now).is_none());
    }

    #[test]
    fn a_listing_keeps_what_stat_knew_of_the_same_version() {
        let cache = MetadataCache::new(TTL);
        let now = Instant::now();
        cache.put("/a", 1, present(file("1", Some(0o600))), now);
        assert_eq!(
            cache.put_listed("/a", 1, file("1", None), now).mode,
            Some(0o600)
        );
        assert_eq!(cache.put_listed("/a", 1, file("2", None), now).mode, None);
    }

    #[test]
    fn forgotten_paths_are_asked_for_again() {
        let cache = MetadataCache::new(TTL);
        let now = Instant::now();
        cache.put("/a", 1, present(file("1", None)), now);
        cache.forget("/a");
        assert!(cache.get("/a", 1, now).is_none());
    }
}
