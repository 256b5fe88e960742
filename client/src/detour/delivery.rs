//! How long requests to one source take, from the latest answers. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::pieces::TRANSFER;

/// Answers of one size that the recent past consists of.
const LATEST: usize = 16;

/// Older answers say nothing about now.
const RECENT: Duration = Duration::from_secs(60);

/// The sizes that are told apart.
const SIZES: usize = (TRANSFER / SMALLEST).ilog2() as usize + 1;

const SMALLEST: u64 = 4 << 10;

/// About how much a request asks for: up to so many bytes, and more than half of that. What
/// takes less than half as long for one size takes less for any request of that size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Size(usize);

impl Size {
    /// The size of a request for `bytes`; more than a piece is none.
    pub(crate) const fn of(bytes: u64) -> Self {
        let least = if bytes > SMALLEST { bytes } else { SMALLEST };
        let doubled = least.div_ceil(SMALLEST).next_power_of_two().ilog2() as usize;
        Self(if doubled < SIZES { doubled } else { SIZES - 1 })
    }

    /// The most bytes.
    pub(crate) const fn most(self) -> u64 {
        SMALLEST << self.0
    }
}

/// The latest answers of one source.
#[derive(Debug)]
pub(crate) struct Delivery {
    sizes: [VecDeque<Answer>; SIZES],
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    at: Instant,
    took: Duration,
}

impl Default for Delivery {
    fn default() -> Self {
        Self::new()
    }
}

impl Delivery {
    /// No answers yet.
    pub(crate) const fn new() -> Self {
        Self {
            sizes: [const { VecDeque::new() }; SIZES],
        }
    }

    /// A request took this long, or longer if nobody waited for its end.
    pub(crate) fn add(&mut self, size: Size, took: Duration, now: Instant) {
        let answers = &mut self.sizes[size.0];
        if answers.len() == LATEST {
            answers.pop_front();
        }
        answers.push_back(Answer { at: now, took });
    }

    /// A request was overtaken by one to another source; nobody knows how long it would have
    /// taken.
    pub(crate) fn overtaken(&mut self, size: Size, now: Instant) {
        self.add(size, Duration::MAX, now);
    }

    /// Everything is to be measured anew.
    pub(crate) fn forget(&mut self) {
        self.sizes.iter_mut().for_each(VecDeque::clear);
    }

    /// The same for requests of one size.
    pub(crate) fn forget_size(&mut self, size: Size) {
        self.sizes[size.0].clear();
    }

    /// How long half of the recent requests took at most; none if they are fewer than `least`.
    pub(crate) fn usual(&self, size: Size, least: usize, now: Instant) -> Option<Duration> {
        let is_recent = |a: &&Answer| now.saturating_duration_since(a.at) < RECENT;
        let recent = self.sizes[size.0].iter().filter(is_recent);
        let mut took: Vec<Duration> = recent.map(|a| a.took).collect();
        took.sort_unstable();
        took.get(took.len() / 2)
            .filter(|_| took.len() >= least)
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_size_is_a_power_of_two_of_pages() {
        let most = |bytes| Size::of(bytes).most();
        assert_eq!(most(0), 4096);
        assert_eq!(most(4096), 4096);
        assert_eq!(most(4097), 8192);
        assert_eq!(most(TRANSFER - 1), TRANSFER);
        assert_eq!(most(TRANSFER), TRANSFER);
        assert_eq!(most(u64::MAX), TRANSFER);
    }

    #[test]
    fn one_slow_answer_is_no_rule_and_old_ones_are_none_either() {
        let (mut delivery, now) = (Delivery::new(), Instant::now());
        let size = Size::of(10_000);
        for ms in [1, 900, 1, 1, 800, 1, 1] {
            delivery.add(size, ms * MS, now);
        }
        assert_eq!(delivery.usual(size, 7, now), Some(MS));
        assert_eq!(delivery.usual(size, 8, now), None);
        assert_eq!(delivery.usual(Size::of(100), 1, now), None);
        assert_eq!(delivery.usual(size, 1, now + RECENT), None);
        delivery.forget_size(size);
        assert_eq!(delivery.usual(size, 0, now), None);
    }
}
