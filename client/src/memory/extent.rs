//! A stretch of a piece in memory.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use crate::sources::{Origin, SourceBytes};

/// A stretch of a piece in memory, with where it came from. Never empty.
///
/// Invariant: over its life at most its length is handed out under its origin; the rest
/// counts as read from memory.
pub(crate) struct Extent {
    start: u32,
    data: Bytes,
    origin: Origin,
    /// Bytes not yet handed out under `origin`.
    fresh: AtomicU32,
    live: Arc<AtomicU64>,
}

impl Extent {
    /// `data` begins `start` bytes into its piece. `live` counts the bytes of all extents.
    pub(super) fn new(start: u32, data: Bytes, origin: Origin, live: &Arc<AtomicU64>) -> Self {
        live.fetch_add(data.len() as u64, Ordering::Relaxed);
        Self {
            start,
            fresh: AtomicU32::new(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            data,
            origin,
            live: Arc::clone(live),
        }
    }

    /// The bytes of the piece that it holds.
    pub(crate) fn range(&self) -> Range<u32> {
        self.start..self.start + self.len()
    }

    pub(super) fn len(&self) -> u32 {
        self.data.len() as u32
    }

    pub(super) fn holds(&self, range: &Range<u32>) -> bool {
        self.start <= range.start && range.end <= self.start + self.len()
    }

    /// Bytes `range` of the piece, all of which are here, counted in `counted` by where they
    /// came from. They share the extent's memory.
    pub(crate) fn hand_out(&self, range: Range<u32>, counted: &mut SourceBytes) -> Bytes {
        self.count(range.end - range.start, counted);
        self.data.slice(self.within(range))
    }

    /// The same into `out`.
    pub(crate) fn copy_out(
        &self,
        range: Range<u32>,
        out: &mut BytesMut,
        counted: &mut SourceBytes,
    ) {
        self.count(range.end - range.start, counted);
        out.extend_from_slice(&self.data[self.within(range)]);
    }

    const fn within(&self, range: Range<u32>) -> Range<usize> {
        (range.start - self.start) as usize..(range.end - self.start) as usize
    }

    fn count(&self, len: u32, counted: &mut SourceBytes) {
        let mut first = 0;
        // Most extents are read over and over once they are read: no write then.
        if self.fresh.load(Ordering::Relaxed) > 0 {
            let take = |fresh: u32| Some(fresh.saturating_sub(len));
            let fresh = self
                .fresh
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .unwrap_or_default();
            first = fresh.min(len);
        }
        counted.add(self.origin, u64::from(first));
        counted.add(Origin::Memory, u64::from(len - first));
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.live
            .fetch_sub(self.data.len() as u64, Ordering::Relaxed);
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extent")
            .field("range", &self.range())
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Extents that together hold one range of a piece: one, nearly always.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    range: Range<u32>,
    first: Arc<Extent>,
    /// Each continues where the one before ends.
    more: Vec<Arc<Extent>>,
}

impl Parts {
    /// Picks from `extents`, in any order, those that hold `range` of the piece; none if a
    /// byte of it is in no extent.
    pub(crate) fn pick(range: Range<u32>, extents: &[Arc<Extent>]) -> Option<Self> {
        let furthest = |at: u32| {
            let over = extents.iter().filter(|e| e.range().contains(&at));
            over.max_by_key(|e| e.range().end).map(Arc::clone)
        };
        let first = furthest(range.start)?;
        let mut at = first.range().end;
        let mut more = Vec::new();
        while at < range.end {
            let next = furthest(at)?;
            at = next.range().end;
            more.push(next);
        }
        Some(Self { range, first, more })
    }

    /// The bytes, contiguous; shared if they lie in one extent.
    pub(crate) fn hand_out(&self, counted: &mut SourceBytes) -> Bytes {
        if self.more.is_empty() {
            return self.first.hand_out(self.range.clone(), counted);
        }
        let mut whole = BytesMut::with_capacity((self.range.end - self.range.start) as usize);
        self.copy_out(&mut whole, counted);
        whole.freeze()
    }

    /// The bytes into `out`, counted as read.
    pub(crate) fn copy_out(&self, out: &mut BytesMut, counted: &mut SourceBytes) {
        for (extent, range) in self.spans() {
            extent.copy_out(range, out, counted);
        }
    }

    /// The bytes, contiguous, not counted as read; shared if they lie in one extent.
    pub(crate) fn unread(&self) -> Bytes {
        if self.more.is_empty() {
            return self.first.data.slice(self.first.within(self.range.clone()));
        }
        let mut whole = BytesMut::with_capacity((self.range.end - self.range.start) as usize);
        for (extent, range) in self.spans() {
            whole.extend_from_slice(&extent.data[extent.within(range)]);
        }
        whole.freeze()
    }

    fn spans(&self) -> impl Iterator<Item = (&Arc<Extent>, Range<u32>)> {
        let mut at = self.range.start;
        std::iter::once(&self.first)
            .chain(&self.more)
            .map(move |extent| {
                let end = extent.range().end.min(self.range.end);
                let range = at..end;
                at = end;
                (extent, range)
            })
    }
}

/// The parts of `range` that none of `extents`, in any order, holds; in order.
pub(super) fn gaps(range: Range<u32>, extents: &[Arc<Extent>]) -> Vec<Range<u32>> {
    let mut gaps = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let over = extents.iter().filter(|e| e.range().contains(&at));
        if let Some(end) = over.map(|e| e.range().end).max() {
            at = end;
            continue;
        }
        let later = extents.iter().map(|e| e.range().start).filter(|s| *s > at);
        let end = later.min().unwrap_or(range.end).min(range.end);
        gaps.push(at..end);
        at = end;
    }
    gaps
}
