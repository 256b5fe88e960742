//! Which listings the kernel may hold of directories, and when it may go on using them.
//!
//! The kernel has one cached listing per directory, whatever handles filled it: each handle
//! that may cache adds the entries it reads if they come after what is there. So all handles
//! that may cache at one time must be reading one and the same listing, else what they fill
//! the cache with could be the beginning of one and the end of another.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// By inode number. A listing is known by its address: each is immutable.
#[derive(Debug)]
pub(crate) struct KernelDirs<T> {
    dirs: Mutex<HashMap<u64, Dir<T>>>,
}

#[derive(Debug)]
struct Dir<T> {
    /// The listing that handles which may cache are reading, or were.
    listing: Weak<T>,
    /// Whether the kernel has surely dropped what it held of earlier listings.
    settled: bool,
    /// Handles that may cache.
    opens: u32,
}

/// What a handle on a directory may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    /// Neither read from the kernel's cache nor add to it; what is there goes.
    No,
    /// Fill the cache; what is there goes.
    Fill,
    /// Use what is there: it is of the listing that this handle would read.
    Keep,
}

impl<T> KernelDirs<T> {
    pub(crate) fn new() -> Self {
        Self {
            dirs: Mutex::new(HashMap::new()),
        }
    }

    /// Counts an open of directory `ino` by a handle that reads `listing`, unless the answer is
    /// [`Caching::No`].
    ///
    /// The kernel drops what it holds when it handles the *answer* to an open, and it may
    /// handle the answer to a later open first. So it is told to keep only when
    /// [`settle`](Self::settle) has shown that it has dropped what was there.
    pub(crate) fn open(&self, ino: u64, listing: &Arc<T>) -> Caching {
        let mut dirs = self.dirs.lock();
        let dir = dirs.entry(ino).or_insert_with(Dir::new);
        if dir.is(listing) {
            dir.opens += 1;
            return if dir.settled {
                Caching::Keep
            } else {
                Caching::Fill
            };
        }
        if dir.opens > 0 {
            return Caching::No;
        }
        *dir = Dir {
            listing: Arc::downgrade(listing),
            settled: false,
            opens: 1,
        };
        Caching::Fill
    }

    /// Notes that entries were asked for through a handle whose open was answered with
    /// [`Caching::Fill`]: the kernel asks for none before it has handled that answer.
    pub(crate) fn settle(&self, ino: u64, listing: &Arc<T>) {
        let mut dirs = self.dirs.lock();
        if let Some(dir) = dirs.get_mut(&ino).filter(|dir| dir.is(listing)) {
            dir.settled = true;
        }
    }

    /// Whether a handle that reads `old` and asks for its beginning again may go on with
    /// `new`: when no other handle may cache. The kernel asks for the beginning only when it
    /// has forgotten all it held, so what is filled from then on is `new` alone.
    pub(crate) fn renew(&self, ino: u64, old: &Arc<T>, new: &Arc<T>) -> bool {
        let mut dirs = self.dirs.lock();
        match dirs.get_mut(&ino) {
            Some(dir) if dir.is(old) && dir.opens == 1 => {
                dir.listing = Arc::downgrade(new);
                true
            }
            _ => false,
        }
    }

    /// Counts a release of what [`open`](Self::open) counted.
    pub(crate) fn release(&self, ino: u64) {
        if let Some(dir) = self.dirs.lock().get_mut(&ino) {
            dir.opens = dir.opens.saturating_sub(1);
        }
    }

    /// Forgets directory `ino`, as the kernel did.
    pub(crate) fn forget(&self, ino: u64) {
        self.dirs.lock().remove(&ino);
    }

    /// The directories that have been open with a listing for which `is_over` holds: an open
    /// handle could go on reading it from the kernel.
    pub(crate) fn open_with(&self, mut is_over: impl FnMut(&T) -> bool) -> Vec<u64> {
        let dirs = self.dirs.lock();
        let open = dirs.iter().filter(|(_, dir)| dir.opens > 0);
        // A listing that is gone is held by no handle.
        open.filter(|(_, dir)| dir.listing.upgrade().is_none_or(|it| is_over(&it)))
            .map(|(ino, _)| *ino)
            .collect()
    }
}

impl<T> Dir<T> {
    const fn new() -> Self {
        Self {
            listing: Weak::new(),
            settled: false,
            opens: 0,
        }
    }

    fn is(&self, listing: &Arc<T>) -> bool {
        std::ptr::eq(self.listing.as_ptr(), Arc::as_ptr(listing))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIR: u64 = 7;

    #[test]
    fn the_kernel_keeps_a_listing_once_it_asked_for_it() {
        let dirs = KernelDirs::new();
        let listing = Arc::new(());
        assert_eq!(dirs.open(DIR, &listing), Caching::Fill);
        assert_eq!(dirs.open(DIR, &listing), Caching::Fill);
        dirs.settle(DIR, &listing);
        assert_eq!(dirs.open(DIR, &listing), Caching::Keep);
        for _ in 0..3 {
            dirs.release(DIR);
        }
        assert_eq!(dirs.open(DIR, &listing), Caching::Keep);
        dirs.forget(DIR);
        assert_eq!(dirs.open(DIR, &listing), Caching::Fill);
    }

    #[test]
    fn a_new_listing_is_cached_when_no_handle_reads_the_old_one() {
        let dirs = KernelDirs::new();
        let (old, new) = (Arc::new(1), Arc::new(2));
        assert_eq!(dirs.open(DIR, &old), Caching::Fill);
        dirs.settle(DIR, &old);
        assert_eq!(dirs.open(DIR, &new), Caching::No);
        assert_eq!(dirs.open_with(|listing| *listing == 1), [DIR]);
        dirs.release(DIR);
        assert!(dirs.open_with(|_| true).is_empty());
        assert_eq!(dirs.open(DIR, &new), Caching::Fill);
        // A late settlement of the old one says nothing of the new.
        dirs.settle(DIR, &old);
        assert_eq!(dirs.open(DIR, &new), Caching::Fill);
    }

    #[test]
    fn a_handle_goes_on_with_a_new_listing_when_it_is_alone() {
        let dirs = KernelDirs::new();
        let (old, new) = (Arc::new(1), Arc::new(2));
        dirs.open(DIR, &old);
        dirs.open(DIR, &old);
        assert!(!dirs.renew(DIR, &old, &new));
        dirs.release(DIR);
        assert!(dirs.renew(DIR, &old, &new));
        assert_eq!(dirs.open(DIR, &old), Caching::No);
    }

    /// What the kernel does, as far as caching goes: answers to opens are handled in any
    /// order, after which a handle reads on step by step.
    #[derive(Debug, Clone)]
    enum Step {
        /// Open the listing that the client has now.
        Open,
        /// The client lists anew.
        Change,
        /// The `0`-th answer under way arrives.
        Answer(usize),
        /// The `0`-th open handle reads its next entry.
        Read(usize),
        /// The `0`-th open handle is closed.
        Close(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Open),
            1 => Just(Step::Change),
            3 => any::<usize>().prop_map(Step::Answer),
            8 => any::<usize>().prop_map(Step::Read),
            2 => any::<usize>().prop_map(Step::Close),
        ];
        prop::collection::vec(step, 1..150)
    }

    #[derive(Debug)]
    struct Handle {
        listing: Arc<u32>,
        caching: Caching,
        at: usize,
        settled: bool,
    }

    const ENTRIES: usize = 3;

    proptest! {
        #[test]
        fn no_handle_ever_reads_of_another_listing_than_its_own(steps in steps()) {
            let dirs = KernelDirs::new();
            let mut now = Arc::new(0);
            let mut answers: Vec<Handle> = Vec::new();
            let mut open: Vec<Handle> = Vec::new();
            // Which listing each cached entry is of.
            let mut cache: Vec<u32> = Vec::new();
            for step in steps {
                match step {
                    Step::Change => now = Arc::new(*now + 1),
                    Step::Open => answers.push(Handle {
                        caching: dirs.open(DIR, &now),
                        listing: Arc::clone(&now),
                        at: 0,
                        settled: false,
                    }),
                    Step::Answer(at) if !answers.is_empty() => {
                        let handle = answers.swap_remove(at % answers.len());
                        if handle.caching != Caching::Keep {
                            cache.clear();
                        }
                        open.push(handle);
                    }
                    Step::Read(at) if !open.is_empty() => {
                        let count = open.len();
                        let handle = &mut open[at % count];
                        let number = handle.at % ENTRIES;
                        handle.at += 1;
                        let caches = handle.caching != Caching::No;
                        if caches && let Some(cached) = cache.get(number) {
                            prop_assert_eq!(*cached, *handle.listing);
                            continue;
                        }
                        if handle.caching == Caching::Fill && !handle.settled {
                            dirs.settle(DIR, &handle.listing);
                            handle.settled = true;
                        }
                        if caches && cache.len() == number {
                            cache.push(*handle.listing);
                        }
                    }
                    Step::Close(at) if !open.is_empty() => {
                        let handle = open.swap_remove(at % open.len());
                        if handle.caching != Caching::No {
                            dirs.release(DIR);
                        }
                    }
                    Step::Answer(_) | Step::Read(_) | Step::Close(_) => {}
                }
            }
        }
    }
}
