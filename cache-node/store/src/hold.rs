//! Admit, then hold: which blocks to keep of a data set that is larger than the room. Pure.
//!
//! Training reads every sample once per epoch, each time in another order. A cache that makes
//! room for what was read last then throws away what is read next. Holding on to the blocks
//! that came first, whatever comes later, hits them in every epoch: as many as fit, which is
//! the best that can be had (Belady's MIN finds no more).
//!
//! What is held goes when nobody returns to it: data sets are replaced, and files get new
//! versions. The clock is the number of blocks that were asked for. A block is given up when it
//! has been idle for much longer than any block that was returned to lately.

use std::mem;

use hashlink::LinkedHashMap;
use millpond_proto::BlockId;

/// A block is idle too long after so many times the longest return of late. In shuffled epochs
/// the longest is close to two epochs.
const PATIENCE: u64 = 4;

/// Before as much was returned to as is held, a block is idle too long after so many asks for each block
/// that is held: a tier that holds less than one part in so many of a data set is no use.
const FIRST_PATIENCE: u64 = 256;

/// However soon blocks are returned to, one is not idle before so many asks.
const LEAST_PATIENCE: u64 = 256;

/// Reads of a block while so many others are asked for, at most, are one use: it is read in
/// pieces.
const BURST: u64 = 64;

/// The blocks that are held, each with what the tier keeps of it.
///
/// Invariant: `bytes` is the sum of all weights, and at most the room that was last given.
#[derive(Debug)]
pub(crate) struct Hold<V> {
    /// Those used longest ago in front.
    blocks: LinkedHashMap<BlockId, Held<V>>,
    bytes: u64,
    /// Blocks asked for so far.
    clock: u64,
    returns: Returns,
}

#[derive(Debug)]
struct Held<V> {
    value: V,
    weight: u64,
    used: u64,
}

/// How long it takes until blocks are returned to.
#[derive(Debug, Default)]
struct Returns {
    seen: u64,
    /// The longest of this turn, and of the one before; 0 if there was none. A turn is as many
    /// returns as there are blocks.
    longest: u64,
    before: u64,
}

impl<V> Hold<V> {
    pub(crate) fn new() -> Self {
        Self {
            blocks: LinkedHashMap::new(),
            bytes: 0,
            clock: 0,
            returns: Returns::default(),
        }
    }

    /// The block, if held. Counts as a use.
    pub(crate) fn get(&mut self, id: &BlockId) -> Option<&V> {
        self.blocks.to_back(id)?;
        let len = self.blocks.len() as u64;
        let held = self.blocks.get_mut(id)?;
        if self.clock - held.used >= (len / 4).min(BURST) {
            self.clock += 1;
            let away = self.clock - mem::replace(&mut held.used, self.clock);
            self.returns.note(away, len);
        }
        self.blocks.back().map(|(_, held)| &held.value)
    }

    /// The block, if held. Does not count as a use.
    pub(crate) fn peek(&self, id: &BlockId) -> Option<&V> {
        self.blocks.get(id).map(|held| &held.value)
    }

    /// Notes that a block that is not held was asked for; says whether one of `weight` bytes
    /// would be taken in.
    pub(crate) fn asked(&mut self, weight: u64, room: u64) -> bool {
        self.clock += 1;
        let patience = self.patience();
        let idle = |held: &&Held<V>| self.clock - held.used > patience;
        let idle = self.blocks.values().take_while(idle);
        let mut left = self.bytes;
        let mut held = idle.map(|held| held.weight);
        loop {
            if left.saturating_add(weight) <= room {
                return true;
            }
            match held.next() {
                Some(weight) => left -= weight,
                None => return false,
            }
        }
    }

    /// Takes in a block that [`asked`](Self::asked) said would be; returns those that had to
    /// leave for it.
    pub(crate) fn insert(
        &mut self,
        id: BlockId,
        weight: u64,
        value: V,
        room: u64,
    ) -> Vec<(BlockId, V)> {
        let gone = self.shed(room.saturating_sub(weight));
        let used = self.clock;
        let held = Held {
            value,
            weight,
            used,
        };
        if let Some(before) = self.blocks.insert(id, held) {
            self.bytes -= before.weight;
        }
        self.bytes += weight;
        gone
    }

    /// Gives up those used longest ago until the others take at most `room` bytes.
    pub(crate) fn shed(&mut self, room: u64) -> Vec<(BlockId, V)> {
        let mut gone = Vec::new();
        while self.bytes > room
            && let Some((id, held)) = self.blocks.pop_front()
        {
            self.bytes -= held.weight;
            gone.push((id, held.value));
        }
        gone
    }

    pub(crate) fn remove(&mut self, id: &BlockId) -> Option<V> {
        let held = self.blocks.remove(id)?;
        self.bytes -= held.weight;
        Some(held.value)
    }

    /// Bytes of all that is held.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    fn patience(&self) -> u64 {
        match self.returns.before {
            0 => FIRST_PATIENCE * self.blocks.len() as u64,
            before => (PATIENCE * before.max(self.returns.longest)).max(LEAST_PATIENCE),
        }
    }
}

impl Returns {
    fn note(&mut self, away: u64, turn: u64) {
        // Who reads what is held over and over comes back after as many on average.
        if away < turn {
            return;
        }
        self.longest = self.longest.max(away);
        self.seen += 1;
        if self.seen >= turn {
            self.before = mem::take(&mut self.longest);
            self.seen = 0;
        }
    }
}

/// What held blocks take of the capacity of the cache that they share it with.
///
/// Invariant: `granted` is at least what they take. It changes in steps, because telling the
/// cache costs more than an insert.
#[derive(Debug)]
pub(crate) struct Share {
    capacity: u64,
    step: u64,
    granted: u64,
}

impl Share {
    pub(crate) const fn new(capacity: u64) -> Self {
        Self {
            capacity,
            step: if capacity < 256 { 1 } else { capacity / 256 },
            granted: 0,
        }
    }

    /// Held blocks take, or are about to take, `bytes`. Returns what is left for the cache if
    /// that is another amount than before.
    pub(crate) fn taken(&mut self, bytes: u64) -> Option<u64> {
        let enough = bytes.next_multiple_of(self.step).min(self.capacity);
        if bytes <= self.granted && self.granted <= enough + self.step {
            return None;
        }
        self.granted = enough;
        Some(self.capacity - enough)
    }
}

/// What of `room` is left to blocks that are not held: those of other mounts, and the ones that
/// were read just now and not to the end. `largest` is the weight of the largest block.
pub(crate) fn reserve(room: u64, largest: u64) -> u64 {
    let wanted = (room / 64).max(4 * largest).min(room / 2);
    // A cache that has less than the largest block would exceed it.
    wanted.max(largest + room / 256 + 1).min(room)
}

#[cfg(test)]
mod tests {
    use millpond_proto::FileId;
    use proptest::prelude::*;

    use super::*;

    fn id(index: u64) -> BlockId {
        BlockId::new(FileId([1; 16]), index)
    }

    /// Reads blocks through a hold that has room for `room` of them; returns the hits.
    fn read(hold: &mut Hold<u64>, room: u64, order: impl Iterator<Item = u64>) -> u64 {
        let mut hits = 0;
        for index in order {
            if let Some(value) = hold.get(&id(index)) {
                assert_eq!(*value, index);
                hits += 1;
            } else if hold.asked(1, room) {
                hold.insert(id(index), 1, index, room);
            }
            assert!(hold.bytes() <= room && hold.bytes() == hold.len() as u64);
        }
        hits
    }

    /// The numbers below `of`, in an order that follows from `seed`.
    fn shuffled(of: u64, seed: u64) -> Vec<u64> {
        let mut order: Vec<u64> = (0..of).collect();
        order.sort_by_key(|n| {
            millpond_proto::checksum::crc32c(&(n * 31 + seed * 7919).to_le_bytes())
        });
        order
    }

    #[test]
    fn as_many_as_fit_are_hit_in_every_epoch() {
        for room in [50, 250, 500, 750, 900] {
            let mut hold = Hold::new();
            assert_eq!(read(&mut hold, room, 0..1000), 0);
            for epoch in 1..20 {
                let order = shuffled(1000, epoch);
                assert_eq!(read(&mut hold, room, order.into_iter()), room);
            }
        }
    }

    #[test]
    fn blocks_that_are_read_in_pieces_are_used_once() {
        let mut hold = Hold::new();
        for epoch in 0..6 {
            for eight in shuffled(1000, epoch).chunks(8) {
                // Eight readers, each of a block of its own, in turn.
                let misses: Vec<bool> = eight.iter().map(|n| hold.get(&id(*n)).is_none()).collect();
                for (n, miss) in eight.iter().zip(&misses) {
                    if *miss && hold.asked(1, 300) {
                        hold.insert(id(*n), 1, *n, 300);
                    }
                }
                for _ in 0..31 {
                    eight
                        .iter()
                        .for_each(|n| assert!(hold.get(&id(*n)).is_none_or(|v| v == n)));
                }
            }
        }
        assert_eq!(read(&mut hold, 300, shuffled(1000, 9).into_iter()), 300);
        // And another data set is not kept waiting for it.
        for epoch in 0..12 {
            read(
                &mut hold,
                300,
                shuffled(1000, epoch).into_iter().map(|n| n + 1000),
            );
        }
        assert_eq!(read(&mut hold, 300, 1000..2000), 300);
    }

    #[test]
    fn another_data_set_takes_over_after_a_few_epochs() {
        let mut hold = Hold::new();
        for epoch in 0..5 {
            read(&mut hold, 250, shuffled(1000, epoch).into_iter());
        }
        let next = |epoch| shuffled(1000, epoch).into_iter().map(|n| n + 1000);
        for epoch in 0..12 {
            read(&mut hold, 250, next(epoch));
        }
        assert_eq!(read(&mut hold, 250, next(12)), 250);
    }

    #[test]
    fn a_set_that_fits_is_held_whole_and_what_shrinks_makes_room() {
        let mut hold = Hold::new();
        for epoch in 0..5 {
            read(&mut hold, 1000, shuffled(600, epoch).into_iter());
        }
        assert_eq!(hold.len(), 600);
        // Of 600 files 300 got new versions; there is room for 700.
        let versions = |epoch| {
            let new = |n| if n < 300 { n + 10_000 } else { n };
            shuffled(600, epoch).into_iter().map(new)
        };
        for epoch in 0..20 {
            read(&mut hold, 700, versions(epoch));
        }
        assert_eq!(read(&mut hold, 700, versions(20)), 600);
    }

    #[test]
    fn a_share_is_never_less_than_what_is_taken() {
        let mut share = Share::new(256_000);
        assert_eq!(share.taken(1), Some(255_000));
        assert_eq!(share.taken(1000), None);
        assert_eq!(share.taken(1001), Some(254_000));
        assert_eq!(share.taken(900), None, "one step is not worth telling");
        assert_eq!(share.taken(0), Some(256_000));
        assert_eq!(share.taken(256_000), Some(0));
    }

    proptest! {
        /// Whatever is asked for, inserted and removed: it holds what a map would, and never
        /// more than there is room for.
        #[test]
        fn the_books_are_right(
            ops in proptest::collection::vec((0u64..30, 1u64..20, 0u8..8), 0..400),
            room in 0u64..100,
        ) {
            let mut hold = Hold::new();
            let mut model = std::collections::BTreeMap::new();
            for (index, weight, op) in ops {
                match op {
                    0 => prop_assert_eq!(hold.remove(&id(index)), model.remove(&index).map(|_| index)),
                    1 => {
                        for (gone, value) in hold.shed(room / 2) {
                            prop_assert_eq!(gone, id(value));
                            model.remove(&value);
                        }
                        prop_assert!(hold.bytes() <= room / 2);
                    }
                    _ => {
                        let held = hold.get(&id(index)).copied();
                        prop_assert_eq!(held, model.get(&index).map(|_| index));
                        if held.is_none() && hold.asked(weight, room) {
                            for (_, value) in hold.insert(id(index), weight, index, room) {
                                prop_assert!(model.remove(&value).is_some());
                            }
                            model.insert(index, weight);
                        }
                    }
                }
                prop_assert!(hold.bytes() <= room);
                prop_assert_eq!(hold.bytes(), model.values().sum::<u64>());
                prop_assert_eq!(hold.len(), model.len());
            }
        }

        #[test]
        fn a_share_covers_what_is_taken(
            capacity in 0u64..10_000, taken in proptest::collection::vec(0u64..10_000, 0..50),
        ) {
            let mut share = Share::new(capacity);
            let mut left = capacity;
            for bytes in taken {
                let bytes = bytes.min(capacity);
                left = share.taken(bytes).unwrap_or(left);
                prop_assert!(left + bytes <= capacity);
                prop_assert!(capacity - left <= bytes + 3 * (capacity / 256).max(1));
            }
        }
    }
}
