//! The drafts of a client, by path.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::draft::Draft;

/// The files that are being written in this client, by their paths in the namespace.
///
/// - A draft is here while it has a handle and a name.
/// - A path has one draft at most. One that lost its path to another lives on unnamed.
#[derive(Debug, Default)]
pub(crate) struct Drafts {
    by_path: Mutex<BTreeMap<Box<str>, Weak<Draft>>>,
    /// To see without the lock that there is none.
    count: AtomicUsize,
}

impl Drafts {
    /// Whether nothing is being written.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// The draft of `path`, if it is being written.
    pub(crate) fn get(&self, path: &str) -> Option<Arc<Draft>> {
        if self.is_empty() {
            return None;
        }
        self.by_path.lock().get(path)?.upgrade()
    }

    /// The draft of `path`, if it has something that the store has not.
    pub(crate) fn changed(&self, path: &str) -> Option<Arc<Draft>> {
        self.get(path).filter(|draft| draft.is_changed())
    }

    /// The drafts of what lies below the directory `dir`, at any depth, with their paths.
    pub(crate) fn below(&self, dir: &str) -> Vec<(Box<str>, Arc<Draft>)> {
        if self.is_empty() {
            return Vec::new();
        }
        let first = below_key(dir);
        let by_path = self.by_path.lock();
        let range = by_path.range::<str, _>((Bound::Excluded(&*first), Bound::Unbounded));
        range
            .take_while(|(path, _)| path.starts_with(&*first))
            .filter_map(|(path, draft)| Some((path.clone(), draft.upgrade()?)))
            .collect()
    }

    /// Sends all that is being written, within about `limit`: for a client that ends.
    pub(crate) async fn drain(&self, limit: Duration) {
        let drafts: Vec<_> = self.below("/").into_iter().collect();
        let changed = drafts.into_iter().filter(|(_, draft)| draft.is_changed());
        let sends = changed.map(|(path, draft)| async move {
            if tokio::time::timeout(limit, draft.finish()).await.is_err() {
                tracing::error!(
                    path,
                    "what was written is lost: it could not be sent in time"
                );
            }
        });
        futures::future::join_all(sends).await;
    }

    /// The draft at `path` and those below it, in the order of their paths.
    pub(super) fn at_and_below(&self, path: &str) -> Vec<Arc<Draft>> {
        let below = self.below(path).into_iter().map(|(_, draft)| draft);
        self.get(path).into_iter().chain(below).collect()
    }

    /// The draft that is at `path` if it `is_same`, else `draft`, which is there from now on.
    ///
    /// One that is not the same goes on for those who have it open, with the version that it
    /// has; if they change it, it becomes the file of that path when they close it.
    pub(super) fn join_or_insert(
        &self,
        path: &str,
        draft: Draft,
        is_same: impl Fn(&Draft) -> bool,
    ) -> Arc<Draft> {
        let draft = draft.shared();
        let mut by_path = self.by_path.lock();
        let there = by_path.get(path).and_then(Weak::upgrade);
        if let Some(there) = there.filter(|there| is_same(there)) {
            return there;
        }
        by_path.insert(path.into(), Arc::downgrade(&draft));
        self.count.store(by_path.len(), Ordering::Relaxed);
        draft
    }

    /// Forgets `draft`, if it is the one at `path`.
    pub(super) fn forget(&self, path: &str, draft: &Draft) {
        let mut by_path = self.by_path.lock();
        let is_it = |at: &Weak<Draft>| std::ptr::eq(at.as_ptr(), draft);
        if by_path.get(path).is_some_and(is_it) {
            by_path.remove(path);
        }
        self.count.store(by_path.len(), Ordering::Relaxed);
    }

    /// What was at `from`, and all below it, has the path `to` now. What was at `to` has none
    /// any more.
    ///
    /// To be called under [`Core::hold_drafts`](crate::core::Core::hold_drafts), which has had
    /// all of it sent.
    pub(crate) fn renamed(&self, from: &str, to: &str) {
        if self.is_empty() {
            return;
        }
        self.removed(to);
        let moved: Vec<(String, Arc<Draft>)> = {
            let mut by_path = self.by_path.lock();
            let first = below_key(from);
            let concerned = |path: &str| path == from || path.starts_with(&*first);
            let paths: Vec<Box<str>> = by_path
                .range::<str, _>((Bound::Included(from), Bound::Unbounded))
                .map(|(path, _)| path)
                .take_while(|path| path.starts_with(from))
                .filter(|path| concerned(path))
                .cloned()
                .collect();
            let mut moved = Vec::new();
            for path in paths {
                let Some(draft) = by_path.remove(&*path) else {
                    continue;
                };
                let new = format!("{to}{}", &path[from.len()..]);
                if let Some(live) = draft.upgrade() {
                    by_path.insert(new.as_str().into(), draft);
                    moved.push((new, live));
                }
            }
            self.count.store(by_path.len(), Ordering::Relaxed);
            moved
        };
        for (path, draft) in moved {
            draft.rename(Some(path));
        }
    }

    /// There is nothing at `path` any more: what is being written lives on without a name
    /// while it has handles, and is never uploaded.
    pub(crate) fn removed(&self, path: &str) {
        if self.is_empty() {
            return;
        }
        let removed = {
            let mut by_path = self.by_path.lock();
            let removed = by_path.remove(path);
            self.count.store(by_path.len(), Ordering::Relaxed);
            removed
        };
        if let Some(draft) = removed.and_then(|draft| draft.upgrade()) {
            draft.rename(None);
        }
    }
}

fn below_key(dir: &str) -> String {
    if dir.ends_with('/') {
        dir.to_owned()
    } else {
        format!("{dir}/")
    }
}
