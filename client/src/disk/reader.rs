//! Reading from the tier, and who reads.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use millpond_proto::FileId;

use super::cached::{Backing, CachedFile, ReadError};
use super::index::path_key;
use super::metrics::Failure;
use super::{Inner, LocalDisk};
use crate::core::Core;
use crate::fetch::OpenFile;

/// An open handle of a reader: while it exists, the version that it reads is not removed
/// because a later one is known.
#[derive(Debug)]
pub(crate) struct Reader {
    disk: LocalDisk,
    id: FileId,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let replaced = self.disk.inner.index.lock().leave(self.id);
        if let Some(id) = replaced {
            self.disk.drop_replaced(id);
        }
    }
}

impl LocalDisk {
    /// Notes that `file` is opened: the version that its path had before goes, and a file
    /// that is used again is made whole, so that the kernel can read it itself.
    pub(crate) fn join(&self, core: &Arc<Core>, file: &Arc<OpenFile>) -> Reader {
        let (replaced, known) = {
            let mut index = self.inner.index.lock();
            index.join(file.id);
            let replaced = index.note_path(path_key(&file.path), file.id);
            (replaced, index.opened(&file.id))
        };
        if let Some(old) = replaced {
            self.drop_replaced(old);
        }
        if let Some(known) = known {
            self.make_whole(core, file, &known);
        }
        Reader {
            disk: self.clone(),
            id: file.id,
        }
    }

    /// `range` of the file, if it is here, was verified, and the kernel has it in memory.
    /// Never waits; may be called on any thread. The range is not empty and lies within the
    /// file.
    pub(crate) fn try_read(&self, id: FileId, range: &Range<u64>) -> Option<Bytes> {
        if !self.inner.tells.load(Ordering::Relaxed) {
            return None;
        }
        let file = self.inner.index.lock().opened(&id)?;
        match file.try_read(range) {
            Ok(data) => Some(data),
            Err(error) => {
                if error.kind() == io::ErrorKind::Unsupported {
                    self.inner.tells.store(false, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// `range` of the file, if it is here and undamaged. The range is not empty and lies
    /// within the file.
    ///
    /// # Cancel safety
    /// Nothing is lost; a read that began is finished in the background.
    pub(crate) async fn read(&self, id: FileId, range: Range<u64>) -> Option<Bytes> {
        {
            let index = self.inner.index.lock();
            if !index.contains(&id) || index.peek(&id).is_some_and(|file| !file.holds(&range)) {
                return None;
            }
        }
        // The semaphore is never closed.
        let permit = Arc::clone(&self.inner.reads).acquire_owned().await.ok()?;
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let data = this.read_blocking(id, &range);
            drop(permit);
            data
        });
        read.await.ok()?
    }

    fn read_blocking(&self, id: FileId, range: &Range<u64>) -> Option<Bytes> {
        let file = self.load(id)?;
        match file.read(range) {
            Ok(data) => {
                self.settle_if_large(&file);
                Some(data)
            }
            Err(error) => {
                self.inner.count(&file, &error);
                None
            }
        }
    }

    /// Whether any of `range` of the file is here.
    pub(crate) async fn holds_any(&self, id: FileId, range: Range<u64>) -> bool {
        if !self.inner.index.lock().contains(&id) {
            return false;
        }
        let this = self.clone();
        let loaded = tokio::task::spawn_blocking(move || this.load(id)).await;
        let file = loaded.ok().flatten();
        file.is_some_and(|file| file.holds_any(&range))
    }

    /// The file for the kernel to read itself, if it is here whole and all of it was
    /// verified. Never waits.
    pub(crate) fn backing(&self, id: FileId) -> Option<Backing> {
        // Under the lock: what has the pin then is not evicted.
        let mut index = self.inner.index.lock();
        Backing::of(index.opened(&id)?)
    }
}

impl Inner {
    /// Counts what was wrong with pages that were dropped.
    pub(super) fn count(&self, file: &CachedFile, error: &ReadError) {
        match error {
            ReadError::Missing => {}
            ReadError::Damaged(pages) => {
                self.metrics.corrupt_pages.inc_by(*pages);
                tracing::warn!(file = %file.id, pages, "damaged pages of a cached file dropped");
            }
            ReadError::Io(error) => {
                self.metrics.count_failure(Failure::Read);
                tracing::warn!(file = %file.id, %error, "unreadable pages of a cached file dropped");
            }
        }
    }
}
