//! A stream of reads that continue one another.

use std::ops::Range;

use super::{Bounds, Limits, PAGE};

/// A read of this length at the start of a file is believed to be the first of many.
const PROMISING: u64 = 64 << 10;

/// The window is at most so many times what was read, and less after the first few reads:
/// whoever reads little has little fetched, and two neighbours may be a coincidence.
const RAMP: u64 = 8;

/// The same for who reads a file from its start and goes on: nearly always the whole file is
/// read, and a store that is far answers a small window again and again only after its latency.
const RAMP_OF_FILE: u64 = 64;

/// How far before the expected place a read may start and still continue the stream.
const BACK: u64 = 1 << 20;

/// How far from the expected place a read may be and still be one of the kernel's, which
/// arrive out of order: so many times its own length, and never further than [`FURTHEST`].
const DISORDER: u64 = 4;
const FURTHEST: u64 = 4 << 20;

/// The most bytes between two looks whether there is something to fetch.
const OFTEN: u64 = 256 << 10;

/// Reads that came too early and are waited for to fit in.
const EARLY: usize = 8;

/// Invariants: `start <= next`; `early` lies beyond `next`.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) serial: u64,
    /// When it was last read.
    pub(super) used: u64,
    /// Where its first read started.
    start: u64,
    /// Everything from `start` to here was read.
    next: u64,
    early: Vec<Range<u64>>,
    /// Reads that made progress.
    reads: u32,
    /// Everything before was read, fetched or asked for.
    ahead: u64,
    /// When the reader gets here there may be something to fetch.
    due: u64,
}

impl Forward {
    pub(super) fn new(serial: u64, first: Range<u64>, used: u64) -> Self {
        Self {
            serial,
            used,
            start: first.start,
            next: first.start,
            early: Vec::new(),
            reads: 0,
            ahead: first.start,
            due: first.start,
        }
    }

    /// Whether it is read ahead of: from its second read on, or from a first one that looks
    /// like the beginning of the whole file.
    pub(super) const fn believed(&self) -> bool {
        self.reads >= 2 || (self.start == 0 && self.next >= PROMISING)
    }

    pub(super) const fn is_through(&self, size: u64) -> bool {
        self.next >= size
    }

    /// Whether `read` starts where the stream is, or repeats its end.
    pub(super) const fn is_continued(&self, read: &Range<u64>) -> bool {
        read.start >= self.start && read.start <= self.next && self.next - read.start <= BACK
    }

    /// Takes `read` in if it is likely that those before it are about to come.
    pub(super) fn take_early(&mut self, read: &Range<u64>) -> bool {
        let reach = (DISORDER * (read.end - read.start)).min(FURTHEST);
        if read.start <= self.next || read.start - self.next > reach {
            return false;
        }
        // One that comes again, or overlaps another, is none of the kernel's.
        if self
            .early
            .iter()
            .any(|e| e.start < read.end && read.start < e.end)
        {
            return self.early.contains(read);
        }
        if self.early.len() == EARLY {
            return false;
        }
        self.early.push(read.clone());
        true
    }

    /// Takes note of a read that continues it; says what to fetch ahead of it.
    pub(super) fn advance<F: Fn(u64) -> Bounds>(
        &mut self,
        read: &Range<u64>,
        limits: &Limits<F>,
    ) -> Option<Range<u64>> {
        if read.end <= self.next {
            return None;
        }
        self.next = read.end;
        self.reads = self.reads.saturating_add(1);
        while let Some(at) = self.early.iter().position(|e| e.start <= self.next) {
            let early = self.early.swap_remove(at);
            self.next = self.next.max(early.end);
            self.reads = self.reads.saturating_add(1);
        }
        self.ahead = self.ahead.max(self.next);
        if !self.believed() || self.next < self.due {
            return None;
        }
        let (size, bounds) = (limits.size, (limits.bounds)(self.serial));
        let window = bounds.window.min(self.ramp() * (self.next - self.start));
        // With a wide window a look at every read would be too many.
        self.due = self.next + (window / 64).min(OFTEN);
        let to = aligned(self.next + window, window, size, bounds.grain);
        if to <= self.ahead {
            return None;
        }
        // Not byte by byte as the reader goes on, but a good part of the window at a time.
        let worth = bounds.grain.min(window / 2).max(1);
        if to - self.ahead < worth && to < size {
            return None;
        }
        let range = self.ahead..to;
        self.ahead = to;
        Some(range)
    }

    const fn ramp(&self) -> u64 {
        match (self.start, self.reads) {
            (0, 2..) => RAMP_OF_FILE,
            (0, _) | (_, 4..) => RAMP,
            (_, 3) => RAMP / 2,
            (_, _) => RAMP / 4,
        }
    }

    pub(super) fn decline(&mut self, from: u64) {
        self.ahead = self.ahead.min(from).max(self.next);
        self.due = self.next;
    }
}

/// The end of a window that would end at `end`: a boundary of what is asked for at a time, if
/// the window has room for several.
fn aligned(end: u64, window: u64, size: u64, grain: u64) -> u64 {
    if end >= size {
        return size;
    }
    let unit = if window >= 2 * grain { grain } else { PAGE };
    end - end % unit
}
