//! What the local memory tier holds, and in which order it goes. Pure.
//!
//! Two queues: **held** entries were fetched for a stream that has not read them yet, and go
//! only when nothing else is left; all others are **kept**. In both the least recently used
//! goes first.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::extent::{Extent, Parts, gaps};
use crate::pieces::PieceId;

/// For whom an entry is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Holder(pub(crate) u64);

/// The extents of pieces, by piece.
#[derive(Debug)]
pub(super) struct Tier {
    capacity: u64,
    places: HashMap<PieceId, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    kept: Queue,
    held: Queue,
    /// Promised to fetches that have not landed.
    pub(super) promised: u64,
    /// Streams for which entries may be held, and when each was last heard of.
    holders: HashMap<Holder, Instant>,
    /// When idle holders were last looked for.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    id: PieceId,
    /// Do not contain one another.
    extents: Vec<Arc<Extent>>,
    weight: u64,
    holder: Option<Holder>,
    /// In which queue it is: its holder may have changed since it was put there.
    in_held: bool,
    /// Reads since it is here.
    touches: u8,
    /// Stretches put in since it is here.
    inserts: u8,
    before: u32,
    after: u32,
}

/// Entries in the order of their last use.
#[derive(Debug, Clone, Copy)]
struct Queue {
    oldest: u32,
    newest: u32,
    bytes: u64,
}

const NONE: u32 = u32::MAX;

/// What an entry costs beside its bytes: table slot, links, one extent's reference counts.
const ENTRY_OVERHEAD: u64 = 256;

/// What a further extent costs beside its bytes.
const EXTENT_OVERHEAD: u64 = 128;

/// Extents of one piece; with more, the oldest of them goes.
const MOST_EXTENTS: usize = 64;

/// A stream that was not read for so long has no claim to memory any more.
const IDLE: Duration = Duration::from_secs(5);

/// How often idle streams are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// Reads of different parts of a piece after which the rest of it is fetched as well.
const DENSE_TOUCHES: u8 = 8;

impl Tier {
    pub(super) fn new(capacity: u64) -> Self {
        let empty = Queue {
            oldest: NONE,
            newest: NONE,
            bytes: 0,
        };
        Self {
            capacity,
            places: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            kept: empty,
            held: empty,
            promised: 0,
            holders: HashMap::new(),
            swept: None,
        }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.kept.bytes + self.held.bytes
    }

    pub(super) const fn held_bytes(&self) -> u64 {
        self.held.bytes
    }

    /// The extents that hold `range`; counts as a use.
    pub(super) fn read(&mut self, id: &PieceId, range: Range<u32>) -> Option<Parts> {
        let place = *self.places.get(id)?;
        let parts = Parts::pick(range.clone(), &self.entries[place as usize].extents)?;
        let entry = &mut self.entries[place as usize];
        entry.touches = entry.touches.saturating_add(1);
        let last = entry.extents.iter().map(|e| e.range().end).max();
        let through = last.is_some_and(|end| range.end >= end);
        if through {
            entry.holder = None;
        }
        self.touch(place);
        Some(parts)
    }

    /// All extents of the piece, without counting as a use.
    pub(super) fn extents(&self, id: &PieceId) -> &[Arc<Extent>] {
        let place = self.places.get(id);
        place.map_or(&[], |place| &self.entries[*place as usize].extents)
    }

    /// What of `range` is not here.
    pub(super) fn gaps(&self, id: &PieceId, range: Range<u32>) -> Vec<Range<u32>> {
        gaps(range, self.extents(id))
    }

    /// Whether so much of the piece was of use that the rest will be too. `more` bytes are
    /// about to be fetched, `len` is all of it.
    pub(super) fn is_dense(&self, id: &PieceId, more: u32, len: u32) -> bool {
        let Some(place) = self.places.get(id) else {
            return false;
        };
        let entry = &self.entries[*place as usize];
        let here: u64 = entry.extents.iter().map(|e| u64::from(e.len())).sum();
        let half = (here + u64::from(more)) * 2 >= u64::from(len);
        // Each stretch is read once when it comes; what is more is reading again.
        let reused = entry.touches > entry.inserts;
        reused || entry.touches >= DENSE_TOUCHES || (entry.touches >= 2 && half)
    }

    /// Puts `extent` in, held for `holder` if there is one. Returns what went for it: to be
    /// dropped by the caller, who may hold a lock now.
    pub(super) fn insert(
        &mut self,
        id: PieceId,
        extent: Arc<Extent>,
        holder: Option<Holder>,
    ) -> Vec<Arc<Extent>> {
        let place = match self.places.get(&id) {
            Some(place) => *place,
            None => self.add(id),
        };
        self.unlink(place);
        let entry = &mut self.entries[place as usize];
        let mut gone = Vec::new();
        let range = extent.range();
        entry.inserts = entry.inserts.saturating_add(1);
        if !entry.extents.iter().any(|e| e.holds(&range)) {
            let (inside, rest) = std::mem::take(&mut entry.extents)
                .into_iter()
                .partition(|e| extent.holds(&e.range()));
            (gone, entry.extents) = (inside, rest);
            entry.extents.push(extent);
            if entry.extents.len() > MOST_EXTENTS {
                gone.push(entry.extents.remove(0));
            }
        }
        let bytes: u64 = entry.extents.iter().map(|e| u64::from(e.len())).sum();
        entry.weight = ENTRY_OVERHEAD + EXTENT_OVERHEAD * entry.extents.len() as u64 + bytes;
        let known = holder.filter(|holder| self.holders.contains_key(holder));
        entry.holder = known.or(entry.holder);
        self.link(place);
        self.make_room(0, &mut gone);
        gone
    }

    /// Lets the oldest go until `bytes` more would fit.
    pub(super) fn make_room(&mut self, bytes: u64, gone: &mut Vec<Arc<Extent>>) {
        while self.bytes() + self.promised + bytes > self.capacity {
            let oldest = match (self.kept.oldest, self.held.oldest) {
                (NONE, NONE) => return,
                (NONE, held) => held,
                (kept, _) => kept,
            };
            gone.append(&mut self.remove(oldest));
        }
    }

    /// `holder` is being read; says for how many such streams memory is held now.
    pub(super) fn join(&mut self, holder: Holder, now: Instant) -> usize {
        self.holders.insert(holder, now);
        let due = self.swept.is_none_or(|swept| now >= swept + SWEEP);
        if due {
            self.swept = Some(now);
            let idle =
                |(holder, used): (&Holder, &Instant)| (now > *used + IDLE).then_some(*holder);
            let idle: Vec<Holder> = self.holders.iter().filter_map(idle).collect();
            for holder in idle {
                self.release(holder);
            }
        }
        self.holders.len()
    }

    #[cfg(test)]
    pub(super) fn holders(&self) -> usize {
        self.holders.len()
    }

    /// What is held for `holder` is held no longer.
    pub(super) fn release(&mut self, holder: Holder) {
        if self.holders.remove(&holder).is_none() {
            return;
        }
        let mut place = self.held.oldest;
        while place != NONE {
            let entry = &mut self.entries[place as usize];
            let next = entry.after;
            if entry.holder == Some(holder) {
                entry.holder = None;
                self.unlink(place);
                self.link(place);
            }
            place = next;
        }
    }

    #[cfg(test)]
    pub(super) fn clear(&mut self) -> Vec<Arc<Extent>> {
        let mut gone = Vec::new();
        let places: Vec<u32> = self.places.values().copied().collect();
        for place in places {
            gone.append(&mut self.remove(place));
        }
        gone
    }

    fn add(&mut self, id: PieceId) -> u32 {
        let entry = Entry {
            id,
            extents: Vec::with_capacity(1),
            weight: ENTRY_OVERHEAD,
            holder: None,
            in_held: false,
            touches: 0,
            inserts: 0,
            before: NONE,
            after: NONE,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.places.insert(id, place);
        self.link(place);
        place
    }

    fn remove(&mut self, place: u32) -> Vec<Arc<Extent>> {
        self.unlink(place);
        let entry = &mut self.entries[place as usize];
        let extents = std::mem::take(&mut entry.extents);
        self.places.remove(&entry.id);
        self.free.push(place);
        extents
    }

    fn touch(&mut self, place: u32) {
        if self.kept.newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    /// Puts the entry at the newest end of the queue that it belongs in.
    fn link(&mut self, place: u32) {
        let entry = &mut self.entries[place as usize];
        entry.in_held = entry.holder.is_some();
        let queue = if entry.in_held {
            &mut self.held
        } else {
            &mut self.kept
        };
        (entry.before, entry.after) = (queue.newest, NONE);
        queue.bytes += entry.weight;
        let before = entry.before;
        queue.newest = place;
        if before == NONE {
            queue.oldest = place;
        } else {
            self.entries[before as usize].after = place;
        }
    }

    /// Takes the entry out of its queue.
    fn unlink(&mut self, place: u32) {
        let entry = &self.entries[place as usize];
        let (before, after, weight) = (entry.before, entry.after, entry.weight);
        let held = entry.in_held;
        if before != NONE {
            self.entries[before as usize].after = after;
        }
        if after != NONE {
            self.entries[after as usize].before = before;
        }
        let queue = if held { &mut self.held } else { &mut self.kept };
        queue.bytes -= weight;
        if queue.oldest == place {
            queue.oldest = after;
        }
        if queue.newest == place {
            queue.newest = before;
        }
    }
}
