//! Which reads of a file are sequential, and what to fetch before they ask. Pure.
//!
//! A handle follows a few streams at once, because several readers share one handle of the
//! kernel, and because the kernel's own read-ahead arrives out of order on several threads.

use std::ops::Range;

/// Streams that one handle follows.
const STREAMS: usize = 4;

/// How far from the expected place a read still belongs to a stream.
const SLACK: u64 = 512 << 10;

/// The sequential streams of one handle.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: [Stream; STREAMS],
    clock: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Stream {
    /// Where the next sequential read starts.
    next: u64,
    /// How many reads in a row made progress.
    run: u32,
    /// How far ahead of `next` to read, in bytes; 0 until the stream is believed.
    window: u64,
    /// Everything before was fetched or asked for.
    ahead: u64,
    /// When the stream was last read; 0 if the slot is free.
    used: u64,
}

/// What to fetch before it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Aligned to pieces; cut at the end of the file; not empty.
    pub(crate) range: Range<u64>,
    stream: usize,
}

/// The bounds of reading ahead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Size of the file in bytes.
    pub(crate) size: u64,
    /// Length of a piece in bytes.
    pub(crate) piece: u64,
    /// The widest window in bytes; less than a piece means none.
    pub(crate) window: u64,
}

impl Streams {
    /// Takes note of a read of `[offset, offset + len)`; says what to fetch ahead of it.
    ///
    /// The window opens with the second read that continues the first exactly, or the third
    /// that nearly does, starts at one piece, and doubles with every piece that the reader
    /// enters.
    pub(crate) fn note(&mut self, offset: u64, len: u64, bounds: Bounds) -> Option<Ahead> {
        let end = offset.saturating_add(len).min(bounds.size);
        if offset >= end {
            return None;
        }
        self.clock += 1;
        let clock = self.clock;
        let Some(index) = self.stream_of(offset) else {
            let free = self.least_used();
            self.streams[free] = Stream {
                next: end,
                run: 0,
                window: 0,
                ahead: 0,
                used: clock,
            };
            return None;
        };

        let stream = &mut self.streams[index];
        stream.used = clock;
        if end <= stream.next {
            return None;
        }
        let exact = offset == stream.next;
        let entered = end / bounds.piece > stream.next / bounds.piece;
        stream.next = end;
        stream.run = stream.run.saturating_add(1);
        let most = bounds.window - bounds.window % bounds.piece;
        if stream.window == 0 && (stream.run >= 2 || exact) {
            stream.window = bounds.piece.min(most);
        } else if stream.window > 0 && entered {
            stream.window *= 2;
        }
        stream.window = stream.window.min(most);
        if stream.window == 0 {
            return None;
        }

        let round_up = |at: u64| at.div_ceil(bounds.piece) * bounds.piece;
        let from = stream.ahead.max(round_up(end));
        let to = round_up(end + stream.window).min(bounds.size);
        if from >= to {
            return None;
        }
        stream.ahead = to;
        Some(Ahead {
            range: from..to,
            stream: index,
        })
    }

    /// Takes back what was not fetched: everything of `ahead` from `from` on. It is asked for
    /// again when the reader gets closer.
    pub(crate) fn decline(&mut self, ahead: &Ahead, from: u64) {
        let stream = &mut self.streams[ahead.stream];
        if stream.ahead == ahead.range.end {
            stream.ahead = from;
        }
    }

    /// Whether any stream is read ahead of.
    pub(crate) fn active(&self) -> bool {
        self.streams.iter().any(|s| s.window > 0)
    }

    fn stream_of(&self, offset: u64) -> Option<usize> {
        let near = |s: &Stream| offset.abs_diff(s.next);
        (0..STREAMS)
            .filter(|&i| self.streams[i].used > 0 && near(&self.streams[i]) <= SLACK)
            .min_by_key(|&i| near(&self.streams[i]))
    }

    fn least_used(&self) -> usize {
        (0..STREAMS)
            .min_by_key(|&i| self.streams[i].used)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn bounds(size: u64) -> Bounds {
        Bounds {
            size,
            piece: MIB,
            window: 16 * MIB,
        }
    }

    #[test]
    fn the_window_grows_from_one_piece_to_the_limit() {
        let mut streams = Streams::default();
        let mut widest = 0;
        let mut opened = None;
        for i in 0..64 {
            if let Some(ahead) = streams.note(i * MIB, MIB, bounds(1 << 30)) {
                opened.get_or_insert(ahead.range.end - (i + 1) * MIB);
                widest = widest.max(ahead.range.end - (i + 1) * MIB);
            }
        }
        assert_eq!(opened, Some(MIB));
        assert_eq!(widest, 16 * MIB);
    }

    #[test]
    fn streams_in_turn_are_each_read_ahead() {
        let mut streams = Streams::default();
        let starts = [0, 1 << 30, 2 << 30];
        let mut aheads = [0; 3];
        for i in 0..32 {
            for (s, start) in starts.iter().enumerate() {
                let offset = start + i * 128 * 1024;
                if let Some(ahead) = streams.note(offset, 128 * 1024, bounds(4 << 30)) {
                    assert!(ahead.range.start >= offset);
                    aheads[s] += ahead.range.end - ahead.range.start;
                }
            }
        }
        assert!(aheads.iter().all(|ahead| *ahead >= 2 * MIB), "{aheads:?}");
    }

    #[test]
    fn declined_ranges_are_asked_for_again() {
        let mut streams = Streams::default();
        assert_eq!(streams.note(0, MIB, bounds(1 << 30)), None);
        let ahead = streams.note(MIB, MIB, bounds(1 << 30)).unwrap();
        streams.decline(&ahead, ahead.range.start);
        let again = streams.note(2 * MIB, MIB, bounds(1 << 30)).unwrap();
        assert_eq!(again.range.start, 3 * MIB);
    }

    #[test]
    fn no_window_means_no_readahead() {
        let mut streams = Streams::default();
        let bounds = Bounds {
            window: MIB - 1,
            ..bounds(1 << 30)
        };
        for i in 0..10 {
            assert_eq!(streams.note(i * MIB, MIB, bounds), None);
        }
        assert!(!streams.active());
    }

    proptest! {
        /// A sequential reader has every piece from the third read on fetched for it, once,
        /// and nothing beyond the end of the file.
        #[test]
        fn sequential_reads_are_read_ahead_once(
            step in 4096u64..2 * MIB,
            size in 1u64..200 * MIB,
        ) {
            let mut streams = Streams::default();
            let mut fetched = 0u64;
            let mut offset = 0;
            while offset < size {
                if let Some(ahead) = streams.note(offset, step, bounds(size)) {
                    let Range { start, end } = ahead.range;
                    prop_assert!(start < end && end <= size);
                    prop_assert!(start % MIB == 0 && (end % MIB == 0 || end == size));
                    prop_assert!(start >= fetched, "{} fetched again", start);
                    prop_assert!(start > offset);
                    prop_assert!(end <= offset + step + 17 * MIB);
                    fetched = end;
                }
                offset += step;
            }
            if size > 8 * MIB {
                prop_assert_eq!(fetched, size);
            }
        }

        /// Reads that do not continue one another fetch nothing more than they ask for.
        #[test]
        fn random_reads_are_not_read_ahead(
            slots in proptest::collection::hash_set(0u64..100_000, 1..200),
        ) {
            let mut streams = Streams::default();
            // Two MiB apart at least, so that no two look like neighbours.
            for slot in slots {
                prop_assert_eq!(streams.note(slot * 2 * MIB, 4096, bounds(1 << 40)), None);
            }
        }
    }
}
