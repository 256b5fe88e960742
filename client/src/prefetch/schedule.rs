//! How far ahead of its readers a hint list is fetched. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The bounds of fetching ahead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Entries that are begun and not yet read, at most; at least 1.
    pub(crate) files: usize,
    /// Bytes of these, at most, unless one entry alone has more.
    pub(crate) bytes: u64,
}

/// Which entries of a list to fetch now.
///
/// - Entries are begun in order, each at most once, and none that was read before.
/// - Entries begun and not read are at most [`Bounds::files`]; those that hold memory have
///   at most [`Bounds::bytes`] together, or are one.
/// - Readers may take entries out of order, as loaders with several workers do. One that is
///   taken far ahead of what was begun (a loader that resumes) moves the place to go on.
/// - What was fetched and not read when readers are a window further is given up: it holds
///   nobody up.
#[derive(Debug)]
pub(crate) struct Schedule {
    bounds: Bounds,
    entries: u32,
    /// The first entry not begun.
    next: u32,
    /// Entries begun and not read.
    window: BTreeMap<u32, State>,
    /// Entries from `next` on that were read already.
    early: BTreeSet<u32>,
    /// Bytes of the entries in the window that hold memory.
    held: u64,
    /// The entry after the furthest that was read.
    reached: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its attributes are on their way.
    Looking,
    /// It has so many bytes, for which there is no room yet.
    Ready(u64),
    /// It is fetched, or on its way.
    Held(u64),
}

impl Schedule {
    /// A schedule for a list of `entries`.
    pub(crate) fn new(entries: u32, bounds: Bounds) -> Self {
        Self {
            bounds,
            entries,
            next: 0,
            window: BTreeMap::new(),
            early: BTreeSet::new(),
            held: 0,
            reached: 0,
        }
    }

    /// The next entry to look up, if one may be begun now.
    pub(crate) fn begin(&mut self) -> Option<u32> {
        while self.early.remove(&self.next) {
            self.next += 1;
        }
        if self.window.len() >= self.bounds.files || self.next >= self.entries {
            return None;
        }
        let index = self.next;
        self.next += 1;
        self.window.insert(index, State::Looking);
        Some(index)
    }

    /// Entry `index`, which was begun, has so many bytes to fetch.
    pub(crate) fn found(&mut self, index: u32, bytes: u64) {
        if let Some(state @ State::Looking) = self.window.get_mut(&index) {
            *state = State::Ready(bytes);
        }
    }

    /// The next entry to fetch, if there is room for it.
    pub(crate) fn admit(&mut self) -> Option<u32> {
        let ready = self
            .window
            .iter_mut()
            .find_map(|(index, state)| match state {
                State::Ready(bytes) => Some((*index, *bytes, state)),
                State::Looking | State::Held(_) => None,
            });
        let (index, bytes, state) = ready?;
        if self.held > 0 && self.held + bytes > self.bounds.bytes {
            return None;
        }
        *state = State::Held(bytes);
        self.held += bytes;
        Some(index)
    }

    /// Entry `index` cannot be fetched.
    pub(crate) fn failed(&mut self, index: u32) {
        self.release(index);
    }

    /// A reader came to one of `candidates`, entries in order that fit what it reads: the
    /// first that was not read yet. Returns which.
    pub(crate) fn read(&mut self, candidates: impl Iterator<Item = u32>) -> Option<u32> {
        let index = candidates.filter(|index| self.is_unread(*index)).min()?;
        if index < self.next {
            self.release(index);
        } else if (index - self.next) as usize >= self.bounds.files {
            self.next = index + 1;
            self.early = self.early.split_off(&self.next);
        } else {
            self.early.insert(index);
        }
        self.reached = self.reached.max(index + 1);
        self.give_up();
        Some(index)
    }

    /// Whether nothing is left to look up or to fetch.
    pub(crate) fn is_done(&self) -> bool {
        let left = |index: &u32| !self.early.contains(index);
        let waiting = |state: &State| !matches!(state, State::Held(_));
        !(self.next..self.entries).any(|index| left(&index)) && !self.window.values().any(waiting)
    }

    /// Entries begun or passed over.
    pub(crate) fn passed(&self) -> u32 {
        self.next
    }

    /// Entries that are fetched, or on their way, and not read; and their bytes.
    pub(crate) fn ahead(&self) -> (usize, u64) {
        let held = |state: &&State| matches!(state, State::Held(_));
        (self.window.values().filter(held).count(), self.held)
    }

    /// Whether entry `index` is still wanted.
    pub(crate) fn wants(&self, index: u32) -> bool {
        self.window.contains_key(&index)
    }

    fn is_unread(&self, index: u32) -> bool {
        if index < self.next {
            self.window.contains_key(&index)
        } else {
            index < self.entries && !self.early.contains(&index)
        }
    }

    fn release(&mut self, index: u32) {
        if let Some(State::Held(bytes)) = self.window.remove(&index) {
            self.held -= bytes;
        }
    }

    /// Gives up what readers left a window behind.
    fn give_up(&mut self) {
        let files = u32::try_from(self.bounds.files).unwrap_or(u32::MAX);
        let oldest = self.reached.saturating_sub(files);
        while let Some((&index, _)) = self.window.first_key_value()
            && index < oldest
        {
            self.release(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        files: 4,
        bytes: 100,
    };

    fn begun(schedule: &mut Schedule) -> Vec<u32> {
        std::iter::from_fn(|| schedule.begin()).collect()
    }

    #[test]
    fn readers_in_order_keep_the_window_full() {
        let mut schedule = Schedule::new(10, BOUNDS);
        assert_eq!(begun(&mut schedule), [0, 1, 2, 3]);
        for index in 0..10 {
            assert_eq!(schedule.read([index].into_iter()), Some(index));
            let next = begun(&mut schedule);
            assert_eq!(next, if index < 6 { vec![index + 4] } else { vec![] });
        }
        assert!(schedule.is_done());
    }

    #[test]
    fn bytes_are_bounded_and_a_large_entry_goes_alone() {
        let mut schedule = Schedule::new(4, BOUNDS);
        begun(&mut schedule);
        schedule.found(1, 60);
        schedule.found(0, 500);
        assert_eq!((schedule.admit(), schedule.admit()), (Some(0), None));
        schedule.read([0].into_iter());
        schedule.found(2, 60);
        assert_eq!((schedule.admit(), schedule.admit()), (Some(1), None));
        schedule.failed(1);
        assert_eq!(schedule.admit(), Some(2));
        assert!(!schedule.is_done(), "3 is looked up");
        schedule.failed(3);
        assert!(schedule.is_done());
    }

    #[test]
    fn a_reader_that_starts_in_the_middle_is_followed() {
        let mut schedule = Schedule::new(1000, BOUNDS);
        begun(&mut schedule);
        schedule.read([500].into_iter());
        assert_eq!(begun(&mut schedule), [501, 502, 503, 504]);
    }

    #[test]
    fn the_next_unread_one_of_equal_entries_is_meant() {
        let mut schedule = Schedule::new(4, BOUNDS);
        begun(&mut schedule);
        assert_eq!(schedule.read([0, 2].into_iter()), Some(0));
        assert_eq!(schedule.read([0, 2].into_iter()), Some(2));
        assert_eq!(schedule.read([0, 2].into_iter()), None);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Found(usize, u64),
        Admit,
        Failed(usize),
        Read(u32),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0usize..8, 0u64..200).prop_map(|(at, bytes)| Event::Found(at, bytes)),
            Just(Event::Admit),
            (0usize..8).prop_map(Event::Failed),
            (0u32..40).prop_map(Event::Read),
        ];
        proptest::collection::vec(event, 0..200)
    }

    proptest! {
        /// Whatever comes in whatever order: entries are begun in order and once, none after
        /// it was read, and the window keeps to its bounds.
        #[test]
        fn the_window_keeps_to_its_bounds(events in events()) {
            let mut schedule = Schedule::new(40, BOUNDS);
            let mut last = None;
            let mut read = BTreeSet::new();
            for event in events {
                for index in begun(&mut schedule) {
                    prop_assert!(last < Some(index), "{} again", index);
                    prop_assert!(!read.contains(&index));
                    last = Some(index);
                }
                let nth = |schedule: &Schedule, at: usize| {
                    schedule.window.keys().nth(at).copied()
                };
                match event {
                    Event::Found(at, bytes) => {
                        if let Some(index) = nth(&schedule, at) {
                            schedule.found(index, bytes);
                        }
                    }
                    Event::Admit => {
                        if let Some(index) = schedule.admit() {
                            prop_assert!(!read.contains(&index));
                        }
                    }
                    Event::Failed(at) => {
                        if let Some(index) = nth(&schedule, at) {
                            schedule.failed(index);
                        }
                    }
                    Event::Read(index) => {
                        if let Some(index) = schedule.read([index].into_iter()) {
                            prop_assert!(read.insert(index), "{} was read twice", index);
                        }
                    }
                }
                let sum: u64 = schedule.window.values().map(|state| match state {
                    State::Held(bytes) => *bytes,
                    _ => 0,
                }).sum();
                let large = schedule.window.values().filter(|state| {
                    matches!(state, State::Held(bytes) if *bytes > 0)
                });
                prop_assert_eq!(sum, schedule.ahead().1);
                prop_assert!(sum <= BOUNDS.bytes || large.count() == 1);
                prop_assert!(schedule.window.len() <= BOUNDS.files);
                prop_assert!(schedule.early.len() <= 40);
            }
        }

        /// Workers that take entries nearly in order never stop the list: all is begun.
        #[test]
        fn all_is_begun_when_all_is_read(swaps in proptest::collection::vec(0usize..99, 0..50)) {
            let mut order: Vec<u32> = (0..100).collect();
            for at in swaps {
                order.swap(at, at + 1);
            }
            let mut schedule = Schedule::new(100, BOUNDS);
            for index in order {
                for begun in begun(&mut schedule) {
                    schedule.found(begun, 10);
                }
                while schedule.admit().is_some() {}
                schedule.read([index].into_iter());
            }
            begun(&mut schedule);
            prop_assert!(schedule.is_done());
            prop_assert_eq!(schedule.passed(), 100);
        }
    }
}
