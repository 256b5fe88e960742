//! The local memory tier: stretches of pieces, weighed in bytes, least recently used first out.
//!
//! | module | holds |
//! |---|---|
//! | `extent` | a stretch of a piece, and several that make a range |
//! | `tier` | which pieces are here, and in which order they go; pure |

mod extent;
mod tier;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::pieces::{Piece, PieceId};
use crate::sources::Origin;

pub(crate) use extent::{Extent, Parts};
pub(crate) use tier::Holder;
use tier::Tier;

/// The local memory tier.
///
/// - What it holds and what it has promised room for are never more than its capacity.
/// - What is held for a stream goes last, and is never more than [`LocalMemory::most_held`]
///   together with what is promised.
pub(crate) struct LocalMemory {
    tier: Mutex<Tier>,
    capacity: u64,
    live: Arc<AtomicU64>,
}

/// What a look for a range found.
#[derive(Debug)]
pub(crate) struct Look {
    /// The extents that are here.
    pub(crate) here: Vec<Arc<Extent>>,
    /// What is to be fetched.
    pub(crate) gaps: Vec<Range<u32>>,
}

/// Room in the tier for what is on its way; given back when dropped.
pub(crate) struct Room {
    tier: Arc<LocalMemory>,
    left: u64,
}

impl LocalMemory {
    /// A tier of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Arc<Self> {
        Arc::new(Self {
            tier: Mutex::new(Tier::new(capacity)),
            capacity,
            live: Arc::new(AtomicU64::new(0)),
        })
    }

    /// The range of the piece, if all of it is here. Does not wait.
    pub(crate) fn read(&self, id: &PieceId, range: Range<u32>) -> Option<Parts> {
        self.tier.lock().read(id, range)
    }

    /// The same without counting as a use.
    pub(crate) fn peek(&self, id: &PieceId, range: Range<u32>) -> Option<Parts> {
        Parts::pick(range, self.tier.lock().extents(id))
    }

    /// What of `range` is here and what is not. If the piece turned out to be of use in many
    /// places, what is to be fetched is the rest of it, in one stretch.
    pub(crate) fn look(&self, piece: &Piece, range: Range<u32>) -> Look {
        let tier = self.tier.lock();
        let here = tier.extents(&piece.id).to_vec();
        let mut gaps = tier.gaps(&piece.id, range);
        let more = gaps.iter().map(|gap| gap.end - gap.start).sum();
        if more > 0 && tier.is_dense(&piece.id, more, piece.len) {
            let all = tier.gaps(&piece.id, 0..piece.len);
            if let (Some(first), Some(last)) = (all.first(), all.last()) {
                // One range, though some of it is here: a request costs more than its bytes.
                let rest = first.start..last.end;
                gaps.splice(.., std::iter::once(rest));
            }
        }
        Look { here, gaps }
    }

    /// What of `range` is not here; nothing else is fetched with it.
    pub(crate) fn look_exactly(&self, id: &PieceId, range: Range<u32>) -> Look {
        let tier = self.tier.lock();
        Look {
            here: tier.extents(id).to_vec(),
            gaps: tier.gaps(id, range),
        }
    }

    /// Whether any byte of the piece is here, without counting as a use.
    pub(crate) fn holds_any(&self, id: &PieceId) -> bool {
        !self.tier.lock().extents(id).is_empty()
    }

    /// Puts bytes in that begin `start` bytes into the piece, and returns them; others go if
    /// the tier is full. They go at once themselves if they are more than the tier, and are
    /// still good for the caller.
    pub(crate) fn insert(
        &self,
        id: PieceId,
        start: u32,
        data: Bytes,
        origin: Origin,
        holder: Option<Holder>,
    ) -> Arc<Extent> {
        let extent = Arc::new(Extent::new(start, data, origin, &self.live));
        let gone = {
            let mut tier = self.tier.lock();
            let held = tier.held_bytes() + u64::from(extent.len()) <= self.most_held();
            tier.insert(id, Arc::clone(&extent), holder.filter(|_| held))
        };
        // Freed without the lock: a large one is given back to the system page by page.
        drop(gone);
        extent
    }

    /// Promises room for `bytes` that nobody waits for yet; none if too much of the tier is
    /// promised or held already.
    pub(crate) fn promise(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        let mut gone = Vec::new();
        {
            let mut tier = self.tier.lock();
            if tier.promised + tier.held_bytes() + bytes > self.most_held() {
                return None;
            }
            tier.make_room(bytes, &mut gone);
            tier.promised += bytes;
        }
        drop(gone);
        Some(Room {
            tier: Arc::clone(self),
            left: bytes,
        })
    }

    /// `holder` is being read now: its data is held from now on, and it may have this many
    /// bytes of it.
    pub(crate) fn join(&self, holder: Holder) -> u64 {
        let holders = self.tier.lock().join(holder, Instant::now());
        // A stream's present piece is held beside what is ahead of it.
        self.capacity / 2 / holders as u64
    }

    /// For how many streams data is held.
    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        self.tier.lock().holders()
    }

    /// What was held for `holder` may go like anything else.
    pub(crate) fn release(&self, holder: Holder) {
        self.tier.lock().release(holder);
    }

    #[cfg(test)]
    pub(crate) fn clear(&self) {
        let gone = self.tier.lock().clear();
        drop(gone);
    }

    /// The tier's limit in bytes.
    pub(crate) const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The most bytes that are held for streams or on their way to be.
    pub(crate) const fn most_held(&self) -> u64 {
        self.capacity / 4 * 3
    }

    /// Bytes of extents that exist: in the tier or still in a reader's hands.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }
}

impl Room {
    /// Gives back the room for `bytes`: they landed, or never will.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.tier.tier.lock().promised -= bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back(self.left);
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LocalMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalMemory")
            .field("capacity", &self.capacity)
            .field("live", &self.live_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
