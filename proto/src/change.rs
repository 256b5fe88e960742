//! Paths that are no longer as they were said to be.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A path of the namespace that changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change {
    /// Absolute and normalized.
    pub path: String,
    /// Whether everything below it may have changed too.
    pub recursive: bool,
}

impl Change {
    /// Everything.
    pub fn everything() -> Self {
        Self {
            path: "/".to_owned(),
            recursive: true,
        }
    }

    /// Whether what was said of `path` (its attributes, its absence) is in doubt.
    pub fn concerns(&self, path: &str) -> bool {
        path == self.path || (self.recursive && is_below(path, &self.path))
    }

    /// Whether a listing of the directory `dir` is in doubt: the path is in it, is it, or
    /// lies above it.
    pub fn concerns_listing(&self, dir: &str) -> bool {
        self.concerns(dir) || parent(&self.path) == Some(dir)
    }
}

/// Whether `path` lies below the directory `dir`.
pub fn is_below(path: &str, dir: &str) -> bool {
    match path.strip_prefix(dir) {
        Some(rest) if dir == "/" => !rest.is_empty(),
        Some(rest) => rest.starts_with('/'),
        None => false,
    }
}

/// The directory that holds the absolute `path`; none for the root.
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        at => Some(&path[..at]),
    }
}

/// The latest changes in order, numbered from 1.
///
/// An answer of the store may be kept only if nothing that concerns it changed between the
/// question and now: whoever asks notes [`seq`](Self::seq) before, and looks at
/// [`since`](Self::since) after.
#[derive(Debug)]
pub struct ChangeLog {
    latest: VecDeque<Change>,
    seq: u64,
    capacity: usize,
}

impl ChangeLog {
    /// An empty log that remembers `capacity` changes.
    pub const fn new(capacity: usize) -> Self {
        Self {
            latest: VecDeque::new(),
            seq: 0,
            capacity,
        }
    }

    /// The number of the last change; 0 if there was none.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Adds a change; returns its number.
    pub fn push(&mut self, change: Change) -> u64 {
        self.seq += 1;
        self.latest.push_back(change);
        if self.latest.len() > self.capacity {
            self.latest.pop_front();
        }
        self.seq
    }

    /// The changes after number `seq`; none if some of them are forgotten, so that everything
    /// is in doubt.
    pub fn since(&self, seq: u64) -> Option<impl Iterator<Item = &Change>> {
        let new = usize::try_from(self.seq.checked_sub(seq)?).ok()?;
        let first = self.latest.len().checked_sub(new)?;
        Some(self.latest.range(first..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, recursive: bool) -> Change {
        Change {
            path: path.to_owned(),
            recursive,
        }
    }

    #[test]
    fn a_change_concerns_the_path_and_the_listing_that_has_it() {
        let file = change("/a/b", false);
        assert!(file.concerns("/a/b"));
        assert!(!file.concerns("/a/b/c") && !file.concerns("/a") && !file.concerns("/a/bc"));
        assert!(file.concerns_listing("/a") && file.concerns_listing("/a/b"));
        assert!(!file.concerns_listing("/") && !file.concerns_listing("/a/b/c"));
    }

    #[test]
    fn a_recursive_change_concerns_all_below() {
        let tree = change("/a", true);
        assert!(tree.concerns("/a/b/c") && tree.concerns_listing("/a/b"));
        assert!(!tree.concerns("/ab") && !tree.concerns("/"));
        assert!(tree.concerns_listing("/"));
        let all = Change::everything();
        assert!(all.concerns("/") && all.concerns("/x/y") && all.concerns_listing("/x"));
    }

    #[test]
    fn parents() {
        assert_eq!(parent("/"), None);
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/a/b"), Some("/a"));
    }

    #[test]
    fn a_log_tells_what_is_new_or_that_it_does_not_know() {
        let mut log = ChangeLog::new(2);
        let news = |log: &ChangeLog, seq| -> Option<Vec<String>> {
            Some(log.since(seq)?.map(|c| c.path.clone()).collect())
        };
        assert_eq!(news(&log, 0), Some(vec![]));
        for path in ["/1", "/2", "/3"] {
            log.push(change(path, false));
        }
        assert_eq!(log.seq(), 3);
        assert_eq!(news(&log, 3), Some(vec![]));
        assert_eq!(news(&log, 1), Some(vec!["/2".into(), "/3".into()]));
        assert_eq!(news(&log, 0), None, "the first is forgotten");
        assert_eq!(news(&log, 4), None, "another log's number");
    }
}
