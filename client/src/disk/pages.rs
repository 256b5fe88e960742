//! Pages of a file, and sets of them. Pure.
//!
//! A **page** is an aligned 64 KiB of a file, short only at its end: what one checksum
//! covers, and the unit in which the local disk tier holds a file.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_proto::checksum::PAGE_SIZE;

/// Bytes of a page.
pub(super) const PAGE: u64 = PAGE_SIZE as u64;

/// The pages of a file of `size` bytes.
pub(super) const fn count(size: u64) -> u64 {
    size.div_ceil(PAGE)
}

/// The pages that hold any byte of `range`.
pub(super) const fn touching(range: &Range<u64>) -> Range<u64> {
    if range.start >= range.end {
        return 0..0;
    }
    range.start / PAGE..range.end.div_ceil(PAGE)
}

/// The pages that lie wholly in `range` of a file of `size` bytes; the last page of the file
/// may be short.
pub(super) const fn within(range: &Range<u64>, size: u64) -> Range<u64> {
    let first = range.start.div_ceil(PAGE);
    let end = if range.end >= size {
        count(size)
    } else {
        range.end / PAGE
    };
    if first < end { first..end } else { 0..0 }
}

/// The bytes of `pages` of a file of `size` bytes.
pub(super) fn bytes(pages: &Range<u64>, size: u64) -> Range<u64> {
    pages.start * PAGE..(pages.end * PAGE).min(size)
}

/// A set of pages of one file, changed and asked by many threads.
#[derive(Debug)]
pub(super) struct PageSet {
    words: Box<[AtomicU64]>,
    pages: u64,
}

impl PageSet {
    /// None of `pages` pages.
    pub(super) fn new(pages: u64) -> Self {
        let words = (0..pages.div_ceil(64)).map(|_| AtomicU64::new(0));
        Self {
            words: words.collect(),
            pages,
        }
    }

    /// Whether all of `pages` are in the set. What was done before they were added is seen.
    pub(super) fn has_all(&self, pages: &Range<u64>) -> bool {
        debug_assert!(pages.end <= self.pages);
        masks(pages).all(|(at, mask)| self.words[at].load(Ordering::Acquire) & mask == mask)
    }

    /// Whether any of `pages` is in the set.
    pub(super) fn has_any(&self, pages: &Range<u64>) -> bool {
        masks(pages).any(|(at, mask)| self.words[at].load(Ordering::Acquire) & mask != 0)
    }

    /// Adds pages; returns how many were not in the set.
    pub(super) fn add(&self, pages: &Range<u64>) -> u64 {
        let add = |(at, mask): (usize, u64)| {
            let before = self.words[at].fetch_or(mask, Ordering::AcqRel);
            u64::from((mask & !before).count_ones())
        };
        masks(pages).map(add).sum()
    }

    /// Takes pages out; returns how many were in the set.
    pub(super) fn take(&self, pages: &Range<u64>) -> u64 {
        let take = |(at, mask): (usize, u64)| {
            let before = self.words[at].fetch_and(!mask, Ordering::AcqRel);
            u64::from((mask & before).count_ones())
        };
        masks(pages).map(take).sum()
    }

    /// The first run of pages of `pages` that are not in the set.
    pub(super) fn first_missing(&self, pages: Range<u64>) -> Option<Range<u64>> {
        let has = |page: u64| self.has_all(&(page..page + 1));
        let mut at = pages.start;
        while at < pages.end {
            // Whole words that are full are passed over at once.
            if at.is_multiple_of(64)
                && at + 64 <= pages.end
                && self.words[(at / 64) as usize].load(Ordering::Acquire) == u64::MAX
            {
                at += 64;
            } else if has(at) {
                at += 1;
            } else {
                let end = (at + 1..pages.end).find(|page| has(*page));
                return Some(at..end.unwrap_or(pages.end));
            }
        }
        None
    }
}

/// The words that hold `pages`, each with the bits of these.
fn masks(pages: &Range<u64>) -> impl Iterator<Item = (usize, u64)> + use<> {
    let (mut at, end) = (pages.start, pages.end);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let word = at / 64;
        let stop = ((word + 1) * 64).min(end);
        let ones = u64::MAX >> (64 - (stop - at));
        let mask = ones << (at % 64);
        at = stop;
        Some((word as usize, mask))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Pages within a range are bytes of the range, and no further page would be.
        #[test]
        fn pages_within_a_range_are_all_that_fit(
            size in 0u64..10 * PAGE, start in 0u64..10 * PAGE, len in 0u64..10 * PAGE,
        ) {
            let range = start.min(size)..(start + len).min(size);
            let whole = within(&range, size);
            for page in 0..count(size) {
                let bytes = bytes(&(page..page + 1), size);
                let fits = range.start <= bytes.start && bytes.end <= range.end;
                prop_assert_eq!(whole.contains(&page), fits, "page {}", page);
                let touched = !range.is_empty()
                    && bytes.start < range.end
                    && range.start < bytes.end;
                prop_assert_eq!(touching(&range).contains(&page), touched, "page {}", page);
            }
        }

        /// Behaves like a set of numbers.
        #[test]
        fn a_page_set_is_a_set(
            ops in proptest::collection::vec((any::<bool>(), 0u64..200, 0u64..130), 0..40),
        ) {
            const PAGES: u64 = 200;
            let set = PageSet::new(PAGES);
            let mut model = BTreeSet::new();
            for (add, start, len) in ops {
                let range = start..(start + len).min(PAGES);
                let has_all = range.clone().all(|p| model.contains(&p));
                let has_any = range.clone().any(|p| model.contains(&p));
                prop_assert_eq!(set.has_all(&range), has_all);
                prop_assert_eq!(set.has_any(&range), has_any);
                let first = range.clone().find(|p| !model.contains(p)).map(|from| {
                    let end = (from..range.end).find(|p| model.contains(p));
                    from..end.unwrap_or(range.end)
                });
                prop_assert_eq!(set.first_missing(range.clone()), first);
                let before = model.len();
                if add {
                    model.extend(range.clone());
                    prop_assert_eq!(set.add(&range) as usize, model.len() - before);
                } else {
                    model.retain(|p| !range.contains(p));
                    prop_assert_eq!(set.take(&range) as usize, before - model.len());
                }
            }
        }
    }
}
