//! The files that are read on a mount where the kernel opens files itself.
//!
//! Nothing tells when such a file is closed. So what reads of one file share (which version,
//! what is read ahead) is held from its first read until its end was read, or nobody read it
//! for a while, or too many others are; the next read makes it anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millpond_client::FileHandle;
use parking_lot::RwLock;

/// The most files that are held.
const CAPACITY: usize = 4096;

/// Files by inode number; each inode stands for one version.
#[derive(Debug, Default)]
pub(crate) struct HeldFiles<T = FileHandle> {
    files: RwLock<HashMap<u64, Held<T>>>,
}

#[derive(Debug)]
struct Held<T> {
    file: Arc<T>,
    /// Since the last sweep.
    used: AtomicBool,
}

impl<T> HeldFiles<T> {
    pub(crate) fn new() -> Self {
        Self {
            files: RwLock::new(HashMap::new()),
        }
    }

    pub(crate) fn get(&self, ino: u64) -> Option<Arc<T>> {
        let files = self.files.read();
        let held = files.get(&ino)?;
        // Most reads find it set: a write would take the cache line from the other threads.
        if !held.used.load(Ordering::Relaxed) {
            held.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&held.file))
    }

    /// Holds `file` for `ino`, unless one is held already; returns the one that is.
    pub(crate) fn insert(&self, ino: u64, file: Arc<T>) -> Arc<T> {
        let mut files = self.files.write();
        if files.len() >= CAPACITY && !files.contains_key(&ino) {
            make_room(&mut files);
        }
        let held = files.entry(ino).or_insert_with(|| Held {
            file,
            used: AtomicBool::new(true),
        });
        Arc::clone(&held.file)
    }

    pub(crate) fn remove(&self, ino: u64) {
        // Most files are read once and from start to end, and were never held.
        if self.files.read().contains_key(&ino) {
            self.files.write().remove(&ino);
        }
    }

    /// Lets go of what was not used since the last sweep.
    pub(crate) fn sweep(&self) {
        sweep(&mut self.files.write());
    }

    pub(crate) fn len(&self) -> usize {
        self.files.read().len()
    }
}

fn sweep<T>(files: &mut HashMap<u64, Held<T>>) {
    files.retain(|_, held| std::mem::take(held.used.get_mut()));
}

/// Makes room for at least one more; any are as good to lose where all are in use.
fn make_room<T>(files: &mut HashMap<u64, Held<T>>) {
    sweep(files);
    let surplus = (files.len() + CAPACITY / 8).saturating_sub(CAPACITY);
    let some: Vec<u64> = files.keys().copied().take(surplus).collect();
    for ino in some {
        files.remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_held_is_what_all_get() {
        let held = HeldFiles::new();
        assert_eq!(*held.insert(2, Arc::new('a')), 'a');
        assert_eq!(*held.insert(2, Arc::new('b')), 'a');
        assert_eq!(held.get(2).as_deref(), Some(&'a'));
        held.remove(2);
        assert!(held.get(2).is_none());
        assert_eq!(*held.insert(2, Arc::new('b')), 'b');
    }

    #[test]
    fn what_nobody_uses_between_two_sweeps_goes() {
        let held = HeldFiles::new();
        held.insert(2, Arc::new(()));
        held.insert(3, Arc::new(()));
        held.sweep();
        assert!(held.get(3).is_some());
        held.sweep();
        assert!(held.get(2).is_none() && held.get(3).is_some());
    }

    #[test]
    fn no_more_are_held_than_the_capacity() {
        let held = HeldFiles::new();
        for ino in 0..3 * CAPACITY as u64 {
            held.insert(ino, Arc::new(()));
            assert!(held.get(ino).is_some());
            assert!(held.len() <= CAPACITY);
        }
    }
}
