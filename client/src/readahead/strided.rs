//! A stream of reads with the same distance from one to the next.

use std::ops::Range;

use super::{Bounds, Limits};

/// Reads that are looked at for a progression.
const RECENT: usize = 8;

/// Reads that are fetched ahead at most.
const FURTHEST: u64 = 64;

/// The window is at most so many times the reads that fitted.
const RAMP: u64 = 2;

/// The longest distance that makes a stride: a file of large records.
const LONGEST: u64 = 1 << 30;

/// Where the latest reads without a pattern started.
#[derive(Debug)]
pub(super) struct Recent {
    starts: [u64; RECENT],
    count: usize,
}

impl Recent {
    pub(super) const fn new() -> Self {
        Self {
            starts: [0; RECENT],
            count: 0,
        }
    }

    pub(super) const fn add(&mut self, read: &Range<u64>) {
        self.starts[self.count % RECENT] = read.start;
        self.count += 1;
    }

    pub(super) const fn clear(&mut self) {
        self.count = 0;
    }

    /// The distance from read to read, if `read` and three recent ones form a progression.
    /// Four make a coincidence unlikely.
    pub(super) fn progression(&self, read: &Range<u64>) -> Option<i64> {
        let starts = &self.starts[..self.count.min(RECENT)];
        let at = i128::from(read.start);
        starts.iter().find_map(|one| {
            let stride = at - i128::from(*one);
            let has = |times: i128| {
                let wanted = at - times * stride;
                u64::try_from(wanted).is_ok_and(|wanted| starts.contains(&wanted))
            };
            let fits = stride != 0 && stride.unsigned_abs() <= u128::from(LONGEST);
            (fits && has(2) && has(3)).then_some(stride as i64)
        })
    }
}

/// Invariant: `stride` is not 0.
#[derive(Debug)]
pub(super) struct Strided {
    pub(super) serial: u64,
    /// When it was last read.
    pub(super) used: u64,
    stride: i64,
    /// Where the next read starts; none if that is outside of any file.
    next: Option<u64>,
    /// Length of the longest read.
    len: u64,
    /// Reads that fitted.
    fitted: u64,
    /// Reads from `next` on that were asked for already.
    ahead: u64,
}

impl Strided {
    pub(super) const fn new(serial: u64, read: &Range<u64>, stride: i64, used: u64) -> Self {
        Self {
            serial,
            used,
            stride,
            next: Some(read.start),
            len: read.end - read.start,
            fitted: 2,
            ahead: 0,
        }
    }

    pub(super) fn is_continued(&self, read: &Range<u64>) -> bool {
        self.next == Some(read.start)
    }

    /// Takes note of the read at `next`; says what to fetch ahead of it.
    pub(super) fn advance<F: Fn(u64) -> Bounds>(
        &mut self,
        read: &Range<u64>,
        limits: &Limits<F>,
    ) -> Vec<Range<u64>> {
        self.next = read.start.checked_add_signed(self.stride);
        self.len = self.len.max(read.end - read.start);
        self.fitted += 1;
        self.ahead = self.ahead.saturating_sub(1);
        let fit = (limits.bounds)(self.serial).window / self.len;
        let count = fit.min(FURTHEST).min(RAMP * self.fitted);
        // Not one by one: contiguous ones make one request, and others at least one moment.
        if self.ahead * 2 > count {
            return Vec::new();
        }
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for number in self.ahead..count {
            let Some(range) = self.nth(number, limits.size) else {
                break;
            };
            self.ahead = number + 1;
            match ranges.last_mut() {
                Some(last) if last.start == range.end => last.start = range.start,
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }

    /// The read that will come as number `number`, 0 being the next.
    fn nth(&self, number: u64, size: u64) -> Option<Range<u64>> {
        let distance = self.stride.checked_mul(i64::try_from(number).ok()?)?;
        let start = self.next?.checked_add_signed(distance)?;
        let end = start.saturating_add(self.len).min(size);
        (start < end).then_some(start..end)
    }
}
