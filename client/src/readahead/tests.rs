//! The state machine against readers that are known to follow a pattern, or none.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BOUNDS: Bounds = Bounds {
    grain: MIB,
    window: 16 * MIB,
};

fn note(streams: &mut Streams, offset: u64, len: u64, size: u64) -> Noted {
    streams.note(offset, len, size, |_| BOUNDS)
}

/// Pages of a file that were fetched, each at most once.
#[derive(Default)]
struct Pages(BTreeSet<u64>);

impl Pages {
    fn fetch(&mut self, range: &Range<u64>) -> Result<(), TestCaseError> {
        for page in range.start / PAGE..range.end.div_ceil(PAGE) {
            prop_assert!(
                self.0.insert(page) || page * PAGE < range.start,
                "page {} fetched again",
                page
            );
        }
        Ok(())
    }

    fn hold(&self, range: &Range<u64>) -> bool {
        let mut pages = range.start / PAGE..range.end.div_ceil(PAGE);
        pages.all(|page| self.0.contains(&page))
    }
}

#[test]
fn the_window_of_a_large_file_is_wide_after_a_few_reads() {
    let mut streams = Streams::new(1);
    let mut reached = 0;
    for i in 0..3 {
        let noted = note(&mut streams, i * MIB, MIB, 1 << 30);
        assert_eq!(noted.stream, Some(1));
        reached = noted.ahead.last().map_or(reached, |range| range.end);
    }
    assert_eq!(reached, 3 * MIB + 16 * MIB);
}

#[test]
fn a_small_read_at_the_start_is_not_believed_and_a_large_one_is() {
    for (len, believed) in [(4 * KIB, false), (16 * KIB, false), (128 * KIB, true)] {
        let mut streams = Streams::new(1);
        let noted = note(&mut streams, 0, len, 1 << 30);
        assert_eq!(noted.stream.is_some(), believed, "{len}");
        assert_eq!(noted.ahead.is_empty(), !believed, "{len}");
    }
}

#[test]
fn whoever_reads_little_has_little_fetched() {
    let mut streams = Streams::new(1);
    let mut fetched = 0;
    for i in 0..4 {
        let noted = note(&mut streams, 100 * MIB + i * 4 * KIB, 4 * KIB, 1 << 30);
        fetched += noted.ahead.iter().map(|r| r.end - r.start).sum::<u64>();
    }
    assert!((4 * KIB..=160 * KIB).contains(&fetched), "{fetched}");
}

#[test]
fn declined_ranges_are_asked_for_again() {
    let mut streams = Streams::new(1);
    let noted = note(&mut streams, 0, MIB, 1 << 30);
    let first = noted.ahead[0].clone();
    streams.decline(1, first.start);
    let again = note(&mut streams, MIB, MIB, 1 << 30);
    assert_eq!(again.ahead[0].start, 2 * MIB);
}

#[test]
fn no_window_means_no_readahead() {
    let mut streams = Streams::new(1);
    for i in 0..10 {
        let none = |_| Bounds {
            window: 0,
            grain: MIB,
        };
        let noted = streams.note(i * MIB, MIB, 1 << 30, none);
        assert_eq!(noted.ahead, []);
    }
}

#[test]
fn a_stream_ends_at_the_end_of_the_file() {
    let mut streams = Streams::new(7);
    note(&mut streams, 0, MIB, 2 * MIB);
    assert_eq!(streams.serials().collect::<Vec<_>>(), [7]);
    let noted = note(&mut streams, MIB, MIB, 2 * MIB);
    assert_eq!((noted.stream, noted.ended), (Some(7), Some(7)));
    assert_eq!(streams.serials().count(), 0);
}

#[test]
fn the_least_used_stream_makes_room_and_is_reported() {
    let mut streams = Streams::new(1);
    for n in 0..20 {
        // No progression.
        let at = 10 * MIB + n * n * 100 * MIB;
        note(&mut streams, at, MIB, 1 << 40);
        note(&mut streams, at + MIB, MIB, 1 << 40);
    }
    assert_eq!(streams.serials().count(), STREAMS);
    let noted = note(&mut streams, 1 << 39, MIB, 1 << 40);
    assert_eq!(noted.ended, Some(13));
}

proptest! {
    /// A sequential reader has everything from its second read on fetched for it, each byte
    /// once, and nothing beyond the window or the end of the file.
    #[test]
    fn sequential_reads_are_read_ahead_once(
        step in 4 * KIB..2 * MIB,
        start in prop_oneof![Just(0), 0..50 * MIB],
        size in 1u64..200 * MIB,
    ) {
        let mut streams = Streams::new(1);
        let mut fetched = start;
        let (mut offset, mut missed) = (start, 0);
        while offset < size {
            let end = (offset + step).min(size);
            if fetched < end {
                missed += 1;
                fetched = end;
            }
            for range in note(&mut streams, offset, step, size).ahead {
                prop_assert!(range.start < range.end && range.end <= size);
                prop_assert_eq!(range.start, fetched);
                prop_assert!(range.end <= end + 16 * MIB);
                fetched = range.end;
            }
            offset = end;
        }
        prop_assert!(missed <= 3, "{} reads had to wait", missed);
    }

    /// Streams in turn, each of them with its reads out of order as the kernel's threads send
    /// them, are all read ahead of: up to half as many as are followed, because one that does
    /// not begin with its lowest read takes two places until it is believed.
    #[test]
    fn interleaved_streams_out_of_order_are_each_read_ahead(
        count in 1u64..=STREAMS as u64 / 2,
        len in prop_oneof![Just(128 * KIB), Just(256 * KIB), Just(MIB)],
        disorder in proptest::collection::vec(0usize..4, 64),
        turns in proptest::collection::vec(any::<prop::sample::Index>(), 512),
    ) {
        let size = 1 << 40;
        let mut streams = Streams::new(1);
        let mut readers: Vec<Vec<u64>> = (0..count)
            .map(|n| {
                let mut offsets: Vec<u64> = (0..64).map(|i| (n << 34) + i * len).collect();
                for (i, with) in disorder.iter().enumerate() {
                    offsets.swap(i, i / 4 * 4 + with);
                }
                offsets.reverse();
                offsets
            })
            .collect();
        let mut pages = Pages::default();
        let (mut reads, mut hits, mut fetched) = (0, 0, 0);
        for turn in turns {
            let reader = turn.index(count as usize);
            let Some(offset) = readers[reader].pop() else { continue };
            let read = offset..offset + len;
            reads += 1;
            hits += u64::from(pages.hold(&read));
            let noted = note(&mut streams, offset, len, size);
            for range in &noted.ahead {
                fetched += range.end - range.start;
                pages.0.extend(range.start / PAGE..range.end / PAGE);
            }
        }
        // Streams that begin in the same place before they are known to be one count twice.
        prop_assert!(fetched <= count * (8 * 64 * len + 17 * MIB), "{fetched} fetched");
        if reads > 40 * count {
            prop_assert!(hits * 2 >= reads, "{} of {} were fetched ahead", hits, reads);
        }
    }

    /// A strided reader has the parts it will read fetched, and no others.
    #[test]
    fn strided_reads_are_fetched_and_the_rest_is_not(
        len in prop_oneof![Just(4 * KIB), Just(100 * KIB), Just(MIB)],
        gap in 1u64..50,
        backward in any::<bool>(),
    ) {
        let (stride, reads) = (len + gap * 64 * KIB, 60u64);
        let size = (reads + 200) * stride;
        let mut streams = Streams::new(1);
        let mut pages = Pages::default();
        let mut misses = 0;
        let place = |n: u64| if backward { size - len - n * stride } else { n * stride + 4 * KIB };
        for n in 0..reads {
            let read = place(n)..place(n) + len;
            misses += u64::from(!pages.hold(&read));
            let noted = note(&mut streams, read.start, len, size);
            for range in &noted.ahead {
                let from = if backward { size - range.end } else { range.start - 4 * KIB };
                prop_assert_eq!(from % stride, 0, "{:?} is none of its places", range);
                prop_assert_eq!(range.end - range.start, len);
                pages.fetch(range)?;
            }
        }
        prop_assert!(misses <= 5, "{} of {} had to wait", misses, reads);
    }

    /// A reader that goes backwards has everything before it fetched, in requests that are
    /// not torn into single reads.
    #[test]
    fn backward_reads_are_read_ahead(len in prop_oneof![Just(16 * KIB), Just(128 * KIB), Just(MIB)]) {
        let size = 100 * len;
        let mut streams = Streams::new(1);
        let mut pages = Pages::default();
        let (mut misses, mut requests) = (0, 0);
        for n in (0..100).rev() {
            let read = n * len..(n + 1) * len;
            misses += u64::from(!pages.hold(&read));
            for range in note(&mut streams, read.start, len, size).ahead {
                requests += 1;
                pages.fetch(&range)?;
            }
        }
        prop_assert!(misses <= 5, "{misses} had to wait");
        prop_assert!(requests <= 30, "{requests} requests");
    }

    /// Reads that do not continue one another fetch nothing more than they ask for.
    #[test]
    fn random_reads_are_not_read_ahead(
        slots in proptest::collection::vec(0u64..1_000_000, 1..200),
        len in prop_oneof![Just(4 * KIB), Just(114_660), Just(256 * KIB)],
    ) {
        let size = 1_000_001 * MIB;
        let mut streams = Streams::new(1);
        let mut fetched = 0;
        let mut seen = BTreeSet::new();
        for slot in slots {
            // A read right after another one's is no random one, nor is one as far from a
            // second as that from a third.
            let continues = |&other: &u64| {
                other + 1 == slot
                    || seen.contains(&(2 * slot).abs_diff(other))
                    || seen.contains(&(2 * other).abs_diff(slot))
                    || seen.contains(&((slot + other) / 2))
            };
            if !seen.iter().any(continues) && seen.insert(slot) {
                let noted = note(&mut streams, slot * MIB, len, size);
                fetched += noted.ahead.iter().map(|r| r.end - r.start).sum::<u64>();
            }
        }
        prop_assert_eq!(fetched, 0);
    }

    /// Whatever is read: nothing outside the file, nothing empty, never more than the window.
    #[test]
    fn anything_goes(
        reads in proptest::collection::vec((0u64..300, 1u64..9, any::<bool>()), 1..400),
        size in 1u64..80 * MIB,
        window in 0u64..20 * MIB,
    ) {
        let mut streams = Streams::new(1);
        let bounds = |_| Bounds { grain: MIB, window };
        for (at, pages, decline) in reads {
            let (offset, len) = (at * 64 * KIB, pages * 32 * KIB);
            let noted = streams.note(offset, len, size, bounds);
            let total: u64 = noted.ahead.iter().map(|r| r.end - r.start).sum();
            prop_assert!(total <= window + 2 * MIB);
            for range in &noted.ahead {
                prop_assert!(range.start < range.end && range.end <= size);
            }
            prop_assert!(noted.ahead.is_empty() || noted.stream.is_some());
            if let (true, Some(stream), Some(range)) = (decline, noted.stream, noted.ahead.first()) {
                streams.decline(stream, range.start);
            }
            prop_assert!(streams.serials().count() <= 2 * STREAMS);
        }
    }
}
