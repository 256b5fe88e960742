//! The tier against what it promises, and against maps of bytes.

use millpond_proto::{BlockId, FileId};
use proptest::prelude::*;

use super::*;
use crate::sources::SourceBytes;

const MIB: u32 = 1 << 20;

fn id(n: u64) -> PieceId {
    PieceId {
        block: BlockId::new(FileId([1; 16]), n),
        index: 0,
    }
}

fn zeros(len: u32) -> Bytes {
    Bytes::from(vec![0; len as usize])
}

#[test]
fn bytes_never_exceed_the_capacity_and_the_oldest_goes_first() {
    let memory = LocalMemory::new(8 << 20);
    for n in 0..100 {
        memory.insert(id(n), 0, zeros(MIB), Origin::Ufs, None);
        assert!(memory.live_bytes() <= 8 << 20, "at piece {n}");
        // The first one is used all the time.
        assert!(memory.read(&id(0), 0..10).is_some());
    }
    assert!(memory.live_bytes() >= 6 << 20);
    assert!(memory.holds_any(&id(99)), "the newest stays");
    assert!(!memory.holds_any(&id(1)), "the oldest goes");
}

#[test]
fn what_is_held_for_a_stream_outlives_others_until_it_is_read_or_released() {
    let memory = LocalMemory::new(8 << 20);
    let (one, two) = (Holder(1), Holder(2));
    assert_eq!(memory.join(one), 4 << 20);
    assert_eq!(memory.join(two), 2 << 20);
    memory.insert(id(1), 0, zeros(MIB), Origin::Ufs, Some(one));
    memory.insert(id(2), 0, zeros(MIB), Origin::Ufs, Some(two));
    memory.insert(id(3), 0, zeros(MIB), Origin::Ufs, Some(two));
    let flood = |from: u64| {
        for n in from..from + 20 {
            memory.insert(id(n), 0, zeros(MIB), Origin::Ufs, None);
        }
    };
    flood(100);
    assert!((1..=3).all(|n| memory.holds_any(&id(n))));

    // Read in part it is still held; read to its end it is not.
    assert!(memory.read(&id(2), 0..MIB / 2).is_some());
    flood(200);
    assert!(memory.read(&id(2), MIB / 2..MIB).is_some());
    flood(300);
    assert!(!memory.holds_any(&id(2)));
    assert!(memory.holds_any(&id(1)) && memory.holds_any(&id(3)));

    memory.release(two);
    flood(400);
    assert!(!memory.holds_any(&id(3)));
    assert!(memory.holds_any(&id(1)));
}

#[test]
fn an_idle_stream_gives_back_what_was_held_for_it() {
    let mut tier = Tier::new(8 << 20);
    let start = Instant::now();
    let at = |secs| start + std::time::Duration::from_secs(secs);
    assert_eq!(tier.join(Holder(1), at(0)), 1);
    let extent = Extent::new(0, zeros(MIB), Origin::Ufs, &Arc::default());
    tier.insert(id(1), Arc::new(extent), Some(Holder(1)));
    assert_eq!(tier.join(Holder(2), at(3)), 2);
    assert!(tier.held_bytes() > 0);
    assert_eq!(tier.join(Holder(2), at(6)), 1, "the other is idle");
    assert_eq!(tier.held_bytes(), 0);
    assert!(tier.bytes() > 0);
}

#[test]
fn promised_room_is_there_and_is_bounded() {
    let memory = LocalMemory::new(8 << 20);
    for n in 0..8 {
        memory.insert(id(n), 0, zeros(MIB - 1024), Origin::Ufs, None);
    }
    let mut room = memory.promise(4 << 20).unwrap();
    assert!(memory.live_bytes() <= 4 << 20);
    assert!(memory.promise(3 << 20).is_none(), "three quarters at most");
    room.give_back(2 << 20);
    assert!(memory.promise(3 << 20).is_some());
    drop(room);
    assert!(memory.promise(6 << 20).is_some());
}

#[test]
fn what_is_larger_than_the_tier_is_good_for_its_reader_only() {
    let memory = LocalMemory::new(1 << 10);
    let extent = memory.insert(id(0), 0, zeros(MIB), Origin::Ufs, None);
    let mut counted = SourceBytes::default();
    assert_eq!(extent.hand_out(10..14, &mut counted).len(), 4);
    drop(extent);
    assert!(!memory.holds_any(&id(0)));
    assert_eq!(memory.live_bytes(), 0);
}

#[test]
fn a_piece_that_is_of_use_in_many_places_is_wanted_whole() {
    let memory = LocalMemory::new(8 << 20);
    let piece = Piece {
        id: id(0),
        offset: 0,
        len: MIB,
        start: 0,
    };
    let read = |at: u32, len: u32| {
        let look = memory.look(&piece, at..at + len);
        for gap in &look.gaps {
            memory.insert(
                id(0),
                gap.start,
                zeros(gap.end - gap.start),
                Origin::Ufs,
                None,
            );
        }
        assert!(memory.read(&id(0), at..at + len).is_some());
        look.gaps
    };
    for n in 0..8 {
        assert!(
            read(n * 65536, 4096)
                .iter()
                .eq([&(n * 65536..n * 65536 + 4096)])
        );
    }
    assert!(read(8 * 65536, 4096).iter().eq([&(4096..MIB)]), "the rest");
    assert_eq!(read(12 * 65536, 4096), []);
}

#[test]
fn a_piece_that_is_read_again_is_wanted_whole() {
    let memory = LocalMemory::new(8 << 20);
    let piece = Piece {
        id: id(0),
        offset: 0,
        len: MIB,
        start: 0,
    };
    memory.insert(id(0), 0, zeros(4096), Origin::Ufs, None);
    assert!(memory.read(&id(0), 0..4096).is_some());
    let gaps = memory.look(&piece, 8192..12288).gaps;
    assert!(gaps.iter().eq([&(8192..12288)]));
    assert!(memory.read(&id(0), 0..4096).is_some());
    let gaps = memory.look(&piece, 8192..12288).gaps;
    assert!(gaps.iter().eq([&(4096..MIB)]));
}

proptest! {
    /// However an extent is read, the sum is what was read, and its origin is credited for
    /// at most its length.
    #[test]
    fn every_byte_counts_once(reads in proptest::collection::vec(1u32..=1000, 0..20)) {
        let memory = LocalMemory::new(1 << 20);
        let extent = memory.insert(id(0), 0, zeros(1000), Origin::Peer, None);
        let mut counted = SourceBytes::default();
        for len in &reads {
            extent.hand_out(1000 - len..1000, &mut counted);
        }
        let total: u64 = reads.iter().map(|len| u64::from(*len)).sum();
        prop_assert_eq!(counted.total(), total);
        prop_assert_eq!(counted.peer, total.min(1000));
        prop_assert_eq!(counted.memory, total.saturating_sub(1000));
    }

    /// Whatever stretches were put in: what is read is what was put in, what is missing is
    /// said to be missing, byte for byte, and the books are right.
    #[test]
    fn stretches_add_up(
        puts in proptest::collection::vec((0u64..3, 0u32..200, 1u32..60, any::<bool>()), 0..40),
        looks in proptest::collection::vec((0u64..3, 0u32..250, 1u32..80), 1..30),
    ) {
        let memory = LocalMemory::new(1 << 20);
        memory.join(Holder(1));
        let mut model = [[false; 400]; 3];
        let byte = |n: u64, at: u32| (u64::from(at) * 7 + n * 3) as u8;
        for (n, start, len, held) in puts {
            let data: Vec<u8> = (start..start + len).map(|at| byte(n, at)).collect();
            let holder = held.then_some(Holder(n));
            memory.insert(id(n), start, data.into(), Origin::Ufs, holder);
            for at in start..start + len {
                model[n as usize][at as usize] = true;
            }
        }
        for (n, start, len) in looks {
            let wanted = start..start + len;
            let known = |at: u32| model[n as usize][at as usize];
            let look = memory.look_exactly(&id(n), wanted.clone());
            let missing: Vec<u32> = look.gaps.iter().flat_map(Clone::clone).collect();
            let expected: Vec<u32> = wanted.clone().filter(|at| !known(*at)).collect();
            prop_assert_eq!(&missing, &expected);
            let parts = memory.read(&id(n), wanted.clone());
            prop_assert_eq!(parts.is_some(), expected.is_empty());
            if let Some(parts) = parts {
                let mut counted = SourceBytes::default();
                let bytes = parts.hand_out(&mut counted);
                let right: Vec<u8> = wanted.map(|at| byte(n, at)).collect();
                prop_assert_eq!(&bytes, &right);
                prop_assert_eq!(&parts.unread(), &right);
                prop_assert_eq!(counted.total(), right.len() as u64);
            }
        }
        let tier = memory.tier.lock();
        let live: u64 = memory.live_bytes();
        prop_assert!(tier.bytes() >= live);
        drop(tier);
        memory.clear();
        prop_assert_eq!(memory.live_bytes(), 0);
        prop_assert_eq!(memory.tier.lock().bytes(), 0);
    }
}
