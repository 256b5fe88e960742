//! The next files of a directory: recognised when files are opened in its order. Pure.
//!
//! The order is that of the last listing of the directory that this client saw to its end.
//! Where none was seen, or where the listing is in another order than the reader's, names
//! that rise open after open are taken as read in the order of their names.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Streams that one directory follows.
const STREAMS: usize = 4;

/// Consecutive opens after the first by which a stream is believed.
const BELIEVED: u32 = 2;

/// Opens with rising names after which the order of names is taken as the reader's.
const RISING: u32 = 8;

/// How many names a stream that is believed may pass over.
const SLACK: u32 = 3;

/// The first window of a stream, in files.
const FIRST_WINDOW: u32 = 4;

/// The most bytes of names that are kept for one directory, and for all.
const MAX_DIRECTORY: usize = 1 << 20;
const MAX_ALL: usize = 4 << 20;

/// Directories that are followed without their names.
const MAX_DIRECTORIES: usize = 256;

/// The names of the files in a directory, in the order of a listing.
#[derive(Debug, Default)]
pub(crate) struct Names {
    text: String,
    ends: Vec<u32>,
    /// Numbers of the names, by name.
    sorted: Vec<u32>,
    overflowed: bool,
}

impl Names {
    /// Adds the next name of the listing. Of a directory too large only the beginning is
    /// kept.
    pub(crate) fn push(&mut self, name: &str) {
        if self.overflowed || self.text.len() + name.len() > MAX_DIRECTORY {
            self.overflowed = true;
            return;
        }
        self.text.push_str(name);
        self.ends.push(self.text.len() as u32);
    }

    fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    fn name(&self, number: u32) -> &str {
        let at = number as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[at] as usize]
    }

    fn index(&mut self) {
        let mut sorted: Vec<u32> = (0..self.len()).collect();
        sorted.sort_unstable_by_key(|number| self.name(*number));
        self.sorted = sorted;
    }

    fn number_of(&self, name: &str) -> Option<u32> {
        let at = self
            .sorted
            .binary_search_by_key(&name, |number| self.name(*number));
        at.ok().map(|at| self.sorted[at])
    }

    fn is_sorted(&self) -> bool {
        self.sorted.is_sorted()
    }

    /// The same names in the order of their bytes.
    fn in_order(&self) -> Self {
        let mut names = Self::default();
        for number in &self.sorted {
            names.push(self.name(*number));
        }
        names.sorted = (0..names.len()).collect();
        names.overflowed = self.overflowed;
        names
    }

    fn weight(&self) -> usize {
        self.text.len() + 8 * self.ends.len()
    }
}

/// What follows from an open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing.
    Nothing,
    /// These files of the directory come next.
    Fetch(Vec<String>),
    /// The directory is read in the order of its names, which are not known.
    List,
}

/// The directories in which files are opened.
#[derive(Debug, Default)]
pub(crate) struct Siblings {
    directories: HashMap<Arc<str>, Directory>,
    weight: usize,
    clock: u64,
}

#[derive(Debug, Default)]
struct Directory {
    names: Option<Names>,
    streams: [Stream; STREAMS],
    /// The name opened last, and how many before it rose.
    last: Box<str>,
    rising: u32,
    /// Whether its listing was asked for.
    asked: bool,
    used: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Stream {
    next: u32,
    run: u32,
    window: u32,
    /// Everything before was asked for.
    ahead: u32,
    /// When it was used last; 0 if the slot is free.
    used: u64,
}

impl Siblings {
    /// Takes the names of the files of `dir`, as a listing gave them.
    pub(crate) fn learn(&mut self, dir: &str, mut names: Names) {
        if names.len() < 3 {
            return;
        }
        names.index();
        self.clock += 1;
        self.weight += names.weight();
        let directory = self.directory(dir);
        let before = directory.names.replace(names);
        directory.streams = Default::default();
        let before = before.map_or(0, |names| names.weight());
        self.weight -= before;
        self.make_room(dir);
    }

    /// Takes note that `name` in `dir` was opened. At most `limit` files are fetched ahead of
    /// a reader.
    pub(crate) fn opened(&mut self, dir: &str, name: &str, limit: u32) -> Advice {
        self.clock += 1;
        let before = self.weight;
        let directory = self.directory(dir);
        directory.note_rising(name);
        let mut change = 0;
        if directory.rising == RISING {
            match &directory.names {
                Some(names) if !names.is_sorted() => {
                    let in_order = names.in_order();
                    change = in_order.weight() as isize - names.weight() as isize;
                    directory.names = Some(in_order);
                    directory.streams = Default::default();
                }
                None if !directory.asked => {
                    directory.asked = true;
                    return Advice::List;
                }
                Some(_) | None => {}
            }
        }
        let ahead = directory.advance(name, limit);
        let advice = match (ahead, &directory.names) {
            (Some(ahead), Some(names)) => {
                Advice::Fetch(ahead.map(|number| names.name(number).to_owned()).collect())
            }
            _ => Advice::Nothing,
        };
        self.weight = before.saturating_add_signed(change);
        self.make_room(dir);
        advice
    }

    fn directory(&mut self, dir: &str) -> &mut Directory {
        let clock = self.clock;
        if !self.directories.contains_key(dir) {
            self.directories
                .insert(Arc::from(dir), Directory::default());
        }
        let directory = self.directories.entry(Arc::from(dir)).or_default();
        directory.used = clock;
        directory
    }

    /// Lets go of the directories used least lately, but not of `keep`.
    fn make_room(&mut self, keep: &str) {
        while self.weight > MAX_ALL || self.directories.len() > MAX_DIRECTORIES {
            let others = self.directories.iter().filter(|(dir, _)| &***dir != keep);
            let oldest = others.min_by_key(|(_, directory)| directory.used);
            let Some(oldest) = oldest.map(|(dir, _)| Arc::clone(dir)) else {
                return;
            };
            let gone = self.directories.remove(&oldest);
            self.weight -= gone.and_then(|d| d.names).map_or(0, |names| names.weight());
        }
    }
}

impl Directory {
    fn note_rising(&mut self, name: &str) {
        let rises = !self.last.is_empty() && *self.last < *name;
        self.rising = if rises {
            self.rising.saturating_add(1)
        } else {
            0
        };
        self.last = name.into();
    }

    /// Which names to fetch, now that `name` was opened.
    fn advance(&mut self, name: &str, limit: u32) -> Option<Range<u32>> {
        let names = self.names.as_ref()?;
        let (at, count) = (names.number_of(name)?, names.len());
        let continues = |s: &Stream| {
            let slack = if s.run >= BELIEVED { SLACK } else { 0 };
            s.used > 0 && (s.next..=s.next + slack).contains(&at)
        };
        let Some(stream) = self.streams.iter_mut().find(|s| continues(s)) else {
            let free = self.streams.iter_mut().min_by_key(|s| s.used)?;
            *free = Stream {
                next: at + 1,
                used: self.used,
                ..Stream::default()
            };
            return None;
        };
        stream.used = self.used;
        stream.next = at + 1;
        stream.run = stream.run.saturating_add(1);
        if stream.run < BELIEVED {
            return None;
        }
        stream.window = (stream.window * 2).max(FIRST_WINDOW).min(limit);
        let from = stream.ahead.max(stream.next);
        let to = (stream.next + stream.window).min(count);
        if from >= to {
            return None;
        }
        stream.ahead = to;
        Some(from..to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(names: &[String]) -> Names {
        let mut order = Names::default();
        for name in names {
            order.push(name);
        }
        order
    }

    fn numbered(count: u32) -> Vec<String> {
        (0..count).map(|n| format!("f{n:05}")).collect()
    }

    fn fetched(advice: Advice) -> Vec<String> {
        match advice {
            Advice::Fetch(names) => names,
            Advice::Nothing | Advice::List => Vec::new(),
        }
    }

    #[test]
    fn the_third_file_in_order_opens_the_window_which_grows() {
        let files = numbered(200);
        let mut siblings = Siblings::default();
        siblings.learn("/d", names(&files));
        let mut ahead = 0;
        for (at, name) in files.iter().enumerate() {
            let more = fetched(siblings.opened("/d", name, 64));
            if at < 2 {
                assert_eq!(more, [] as [&str; 0]);
            }
            if at == 2 {
                assert_eq!(more, files[3..7]);
            }
            if let Some(first) = more.first() {
                assert_eq!(*first, files[ahead.max(at + 1)]);
                ahead = ahead.max(at + 1) + more.len();
            }
            assert!(ahead <= at + 1 + 64);
        }
        assert_eq!(ahead, 200, "all but the first three");
    }

    #[test]
    fn readers_of_several_parts_are_each_followed() {
        let files = numbered(400);
        let mut siblings = Siblings::default();
        siblings.learn("/d", names(&files));
        let mut count = [0; 4];
        for step in 0..100 {
            for (reader, count) in count.iter_mut().enumerate() {
                let name = &files[reader * 100 + step];
                *count += fetched(siblings.opened("/d", name, 16)).len();
            }
        }
        assert!(count.iter().all(|count| *count >= 90), "{count:?}");
    }

    #[test]
    fn another_order_than_that_of_the_listing_is_learnt() {
        let files = numbered(50);
        let listed: Vec<_> = files
            .iter()
            .rev()
            .step_by(2)
            .chain(files.iter().rev().skip(1).step_by(2))
            .cloned()
            .collect();
        let mut siblings = Siblings::default();
        siblings.learn("/d", names(&listed));
        let mut count = 0;
        for name in &files {
            count += fetched(siblings.opened("/d", name, 64)).len();
        }
        assert!(count >= 35, "{count}");
    }

    #[test]
    fn a_directory_never_listed_is_listed_once() {
        let files = numbered(50);
        let mut siblings = Siblings::default();
        let asked: Vec<_> = (0..50)
            .filter(|at| siblings.opened("/d", &files[*at], 64) == Advice::List)
            .collect();
        assert_eq!(asked, [RISING as usize]);
    }

    #[test]
    fn names_and_directories_are_bounded() {
        let mut siblings = Siblings::default();
        let long: Vec<_> = (0..20_000).map(|n| format!("{n:0100}")).collect();
        for dir in 0..20 {
            siblings.learn(&format!("/{dir}"), names(&long));
            let weight: usize = siblings
                .directories
                .values()
                .filter_map(|d| d.names.as_ref())
                .map(Names::weight)
                .sum();
            assert_eq!(weight, siblings.weight);
            assert!(weight <= MAX_ALL);
        }
        for dir in 0..1000 {
            siblings.opened(&format!("/many/{dir}"), "x", 64);
            assert!(siblings.directories.len() <= MAX_DIRECTORIES);
        }
    }

    proptest! {
        /// Files in random order are not fetched ahead.
        #[test]
        fn random_order_is_left_alone(order in Just((0u32..300).collect::<Vec<_>>()).prop_shuffle()) {
            let files = numbered(300);
            let mut siblings = Siblings::default();
            siblings.learn("/d", names(&files));
            let mut count = 0;
            for at in &order {
                count += fetched(siblings.opened("/d", &files[*at as usize], 64)).len();
            }
            // Three in a row come about by chance, and cost a first window: 41 files are the
            // most that 100,000 orders cost.
            prop_assert!(count <= 100, "{} files fetched", count);
        }

        /// Whatever is opened, no more than the limit is fetched beyond a reader, and only
        /// names of the directory.
        #[test]
        fn the_limit_holds(opens in proptest::collection::vec(0u32..20, 0..300), limit in 1u32..10) {
            let files = numbered(20);
            let mut siblings = Siblings::default();
            siblings.learn("/d", names(&files));
            for at in opens {
                let more = fetched(siblings.opened("/d", &files[at as usize], limit));
                prop_assert!(more.len() <= limit as usize);
                for name in &more {
                    let number = files.iter().position(|f| f == name);
                    prop_assert!(number.is_some_and(|n| n > at as usize && n <= (at + limit) as usize));
                }
            }
        }
    }
}
