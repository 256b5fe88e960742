//! What is in the tier, and who uses it.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use millpond_proto::FileId;

use super::cached::CachedFile;
use super::charge::Charge;
use super::lru::Lru;

/// The files of the tier, in the order of their last use.
///
/// Invariants:
/// - what is in `opened` is in `files`, and is the only open object for its names: pages are
///   added to it and to no other;
/// - a file leaves `opened` alone only while nobody else holds it.
#[derive(Debug)]
pub(super) struct Index {
    files: Lru<FileId, Slot>,
    opened: Lru<FileId, Arc<CachedFile>>,
    /// The most files that are kept open.
    most_open: usize,
    /// How many handles of readers there are for a file, in the tier or not.
    readers: HashMap<FileId, u32>,
    /// Which version of a path is in the tier, by a hash of the path: as far as this process
    /// was told. A collision drops a file too early, and costs a fetch.
    by_path: HashMap<u64, FileId>,
    /// Replaced by another version, and still read.
    superseded: HashSet<FileId>,
}

#[derive(Debug)]
struct Slot {
    charge: Arc<Charge>,
    path: Option<u64>,
}

/// How a path is remembered.
pub(super) fn path_key(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

impl Index {
    pub(super) fn new(most_open: usize) -> Self {
        Self {
            files: Lru::new(),
            opened: Lru::new(),
            most_open,
            readers: HashMap::new(),
            by_path: HashMap::new(),
            superseded: HashSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn contains(&self, id: &FileId) -> bool {
        self.files.contains(id)
    }

    /// What a file takes; it is then the one used last.
    pub(super) fn charge(&mut self, id: &FileId) -> Option<Arc<Charge>> {
        self.files.get(id).map(|slot| Arc::clone(&slot.charge))
    }

    /// The file, if it is open; it is then the one used last.
    pub(super) fn opened(&mut self, id: &FileId) -> Option<Arc<CachedFile>> {
        let file = self.opened.get(id).map(Arc::clone)?;
        self.files.get(id);
        Some(file)
    }

    /// The file, if it is open, without counting as a use.
    pub(super) fn peek(&self, id: &FileId) -> Option<&Arc<CachedFile>> {
        self.opened.peek(id)
    }

    /// Enters a file that an earlier process left, as the one used last.
    pub(super) fn restore(&mut self, id: FileId, charge: Arc<Charge>) {
        self.files.insert(id, Slot { charge, path: None });
    }

    /// Enters a file that was opened, unless somebody else was faster, whose file counts;
    /// returns those that are closed for it.
    pub(super) fn enter(&mut self, file: CachedFile) -> (Arc<CachedFile>, Vec<Arc<CachedFile>>) {
        if let Some(faster) = self.opened(&file.id) {
            return (faster, Vec::new());
        }
        let file = Arc::new(file);
        if self.files.get(&file.id).is_none() {
            let charge = Arc::clone(&file.charge);
            self.files.insert(file.id, Slot { charge, path: None });
        }
        let closed = self.close_idle();
        self.opened.insert(file.id, Arc::clone(&file));
        (file, closed)
    }

    /// Takes files that nobody uses from those that are open, until there is room for one
    /// more.
    fn close_idle(&mut self) -> Vec<Arc<CachedFile>> {
        let excess = (self.opened.len() + 1).saturating_sub(self.most_open);
        let idle: Vec<_> = self
            .opened
            .oldest_first()
            .filter(|(_, file)| Arc::strong_count(file) == 1)
            .map(|(id, _)| *id)
            .take(excess)
            .collect();
        idle.iter()
            .filter_map(|id| self.opened.remove(id))
            .collect()
    }

    /// Takes a file out. Its names are still there.
    pub(super) fn remove(&mut self, id: &FileId) -> Option<Removed> {
        let slot = self.files.remove(id)?;
        if let Some(path) = slot.path
            && self.by_path.get(&path) == Some(id)
        {
            self.by_path.remove(&path);
        }
        self.superseded.remove(id);
        let opened = self.opened.remove(id);
        if let Some(file) = &opened {
            file.retire();
        }
        Some(Removed {
            _charge: slot.charge,
            _opened: opened,
        })
    }

    /// The file used longest ago that would give room: not `keep`, and not pinned.
    pub(super) fn victim(&self, keep: Option<&FileId>) -> Option<FileId> {
        let free = |id: &FileId| !self.opened.peek(id).is_some_and(|file| file.is_pinned());
        self.files
            .oldest_first()
            .map(|(id, _)| *id)
            .find(|id| Some(id) != keep && free(id))
    }

    /// Notes that `path` is at version `id`. Returns the version before if that is in the
    /// tier and nobody reads it; if somebody does, it is returned by
    /// [`leave`](Self::leave).
    pub(super) fn note_path(&mut self, path: u64, id: FileId) -> Option<FileId> {
        let slot = self.files.peek_mut(&id);
        let before = match slot {
            Some(slot) => {
                slot.path = Some(path);
                self.by_path.insert(path, id)
            }
            None => self.by_path.get(&path).copied(),
        };
        let old = before.filter(|old| *old != id)?;
        if !self.files.contains(&old) {
            return None;
        }
        if self.readers.contains_key(&old) {
            self.superseded.insert(old);
            return None;
        }
        Some(old)
    }

    /// Counts a reader's handle.
    pub(super) fn join(&mut self, id: FileId) {
        *self.readers.entry(id).or_default() += 1;
    }

    /// Counts it off; returns the file if it is to be dropped now.
    pub(super) fn leave(&mut self, id: FileId) -> Option<FileId> {
        let count = self.readers.get_mut(&id)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.readers.remove(&id);
        self.superseded.take(&id)
    }

    /// Empties it; the names stay.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most_open);
    }
}

/// A file that left the index. Its room is free when this and all users of it are gone.
#[derive(Debug)]
pub(super) struct Removed {
    _charge: Arc<Charge>,
    _opened: Option<Arc<CachedFile>>,
}
