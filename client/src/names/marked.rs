//! Directories of object stores that this client knows to have a marker.

use std::collections::HashSet;

use parking_lot::Mutex;

/// Paths of directories that have a marker object, as far as is remembered: what lies in them
/// may go without the directory going too. That one is not here means nothing.
#[derive(Debug, Default)]
pub(crate) struct Marked(Mutex<HashSet<Box<str>>>);

/// So many are remembered; then all are forgotten.
const MOST: usize = 10_000;

impl Marked {
    pub(crate) fn insert(&self, path: &str) {
        let mut paths = self.0.lock();
        if paths.len() >= MOST {
            paths.clear();
        }
        paths.insert(path.into());
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        self.0.lock().contains(path)
    }

    /// Forgets `path` and all below it.
    pub(crate) fn remove(&self, path: &str) {
        let mut paths = self.0.lock();
        paths.retain(|at| &**at != path && !millpond_proto::change::is_below(at, path));
    }
}
