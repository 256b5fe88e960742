//! Files of the tier by name: opened, made, removed, evicted.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_proto::FileId;

use super::cached::{CachedFile, LoadError, map_footprint};
use super::charge::Charge;
use super::index::Removed;
use super::metrics::Failure;
use super::{Inner, LocalDisk};

impl LocalDisk {
    /// The file, opened if it is in the tier. Blocks the thread unless it is open.
    pub(super) fn load(&self, id: FileId) -> Option<Arc<CachedFile>> {
        self.inner.load(id)
    }
}

impl Inner {
    /// The file, opened if it is in the tier. A file that cannot be used is removed.
    pub(super) fn load(&self, id: FileId) -> Option<Arc<CachedFile>> {
        {
            let mut index = self.index.lock();
            if let Some(file) = index.opened(&id) {
                return Some(file);
            }
            if !index.contains(&id) {
                return None;
            }
        }
        let names = self.names.lock();
        let loaded = self.load_named(id);
        drop(names);
        let (file, closed) = loaded?;
        // Closing may wait for the disk.
        drop(closed);
        Some(file)
    }

    /// The same, while the names are locked; with the files that were closed for it.
    fn load_named(&self, id: FileId) -> Option<(Arc<CachedFile>, Vec<Arc<CachedFile>>)> {
        let charge = {
            let mut index = self.index.lock();
            if let Some(file) = index.opened(&id) {
                return Some((file, Vec::new()));
            }
            index.charge(&id)?
        };
        if self.is_closed() {
            return None;
        }
        match CachedFile::load(&self.layout, id, charge) {
            Ok(file) => Some(self.index.lock().enter(file)),
            Err(error) => {
                self.metrics.count_failure(Failure::Read);
                match error {
                    LoadError::Damaged(why) => {
                        tracing::warn!(file = %id, why, "damaged cached file removed");
                    }
                    LoadError::Io(error) => {
                        tracing::warn!(file = %id, %error, "unreadable cached file removed");
                    }
                }
                let removed = self.remove_named(id);
                self.unlink(removed);
                None
            }
        }
    }

    /// The file, made if it is not in the tier and there is room for it; `None` if there is
    /// none.
    pub(super) fn load_or_create(
        &self,
        id: FileId,
        size: u64,
    ) -> io::Result<Option<Arc<CachedFile>>> {
        if let Some(file) = self.load(id) {
            return Ok(Some(file));
        }
        let charge = Arc::new(Charge::new(Arc::clone(&self.used)));
        if !self.make_room_for(&charge, map_footprint(size), id) {
            return Ok(None);
        }
        let names = self.names.lock();
        if let Some((file, _closed)) = self.load_named(id) {
            return Ok(Some(file));
        }
        if self.is_closed() {
            return Ok(None);
        }
        let made = CachedFile::create(&self.layout, id, size, charge);
        let entered = match made {
            Ok(file) => self.index.lock().enter(file),
            Err(error) => {
                if let Ok(trash) = self.layout.put_aside(id) {
                    let _ = fs::remove_file(trash);
                }
                return Err(error);
            }
        };
        drop(names);
        Ok(Some(entered.0))
    }

    /// Counts `bytes` more for `charge`, which is of the file `keep`, evicting others if
    /// need be. False if there is no room.
    pub(super) fn make_room_for(&self, charge: &Charge, bytes: u64, keep: FileId) -> bool {
        loop {
            {
                // Under this lock the sum is exact, so that it never exceeds the capacity.
                let _index = self.index.lock();
                if self.used.load(Ordering::Relaxed) + bytes <= self.capacity {
                    charge.add(bytes);
                    return true;
                }
            }
            if !self.evict_one(Some(&keep)) {
                return false;
            }
        }
    }

    /// Evicts until `bytes` more would have room.
    pub(super) fn make_room(&self, bytes: u64, keep: Option<&FileId>) {
        while self.used.load(Ordering::Relaxed) + bytes > self.capacity && self.evict_one(keep) {}
    }

    /// Evicts the file used longest ago; false if there is none that may go.
    pub(super) fn evict_one(&self, keep: Option<&FileId>) -> bool {
        let victim = self.index.lock().victim(keep);
        let Some(victim) = victim else {
            return false;
        };
        if self.remove(victim) {
            self.metrics.evicted_files.inc();
        }
        true
    }

    /// Removes a file, whoever uses it: they keep its bytes, and its room, until they close
    /// it.
    pub(super) fn remove(&self, id: FileId) -> bool {
        let names = self.names.lock();
        if self.is_closed() {
            return false;
        }
        let removed = self.remove_named(id);
        drop(names);
        let is_gone = removed.is_some();
        self.unlink(removed);
        is_gone
    }

    /// Unlinks what was put aside; its room is free then.
    fn unlink(&self, removed: Option<(Removed, PathBuf)>) {
        let Some((removed, trash)) = removed else {
            return;
        };
        match fs::remove_file(&trash) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.metrics.count_failure(Failure::Write);
                tracing::warn!(path = %trash.display(), %error, "cannot remove a cached file");
            }
        }
        drop(removed);
    }

    /// Takes a file out of the index and its names away; what is left is to be unlinked.
    fn remove_named(&self, id: FileId) -> Option<(Removed, PathBuf)> {
        let removed = self.index.lock().remove(&id)?;
        match self.layout.put_aside(id) {
            Ok(trash) => Some((removed, trash)),
            Err(error) => {
                self.metrics.count_failure(Failure::Write);
                tracing::warn!(file = %id, %error, "cannot remove a cached file");
                None
            }
        }
    }
}
