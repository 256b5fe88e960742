//! What the handles that are open on one inode have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millpond_client::Draft;
use parking_lot::Mutex;

/// Whether the file of an inode is being written by this mount, for all handles that are open
/// on it: those that only read see at once what is written.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// To see without the lock that there is no draft.
    drafted: AtomicBool,
    draft: Mutex<Option<Arc<Draft>>>,
}

impl Live {
    /// The draft of the file, if it is being written or was since the first of the handles was
    /// opened.
    pub(crate) fn draft(&self) -> Option<Arc<Draft>> {
        if !self.drafted.load(Ordering::Acquire) {
            return None;
        }
        self.draft.lock().as_ref().map(Arc::clone)
    }

    pub(super) fn set(&self, draft: Option<Arc<Draft>>) {
        let mut present = self.draft.lock();
        self.drafted.store(draft.is_some(), Ordering::Release);
        let before = std::mem::replace(&mut *present, draft);
        drop(present);
        drop(before);
    }
}
