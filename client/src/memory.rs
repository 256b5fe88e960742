//! The local memory tier: pieces of blocks, weighed in bytes, least recently used first out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::pieces::PieceId;
use crate::sources::{Origin, SourceBytes};

/// A piece in memory, with where it came from.
///
/// Invariant: over the life of a piece, at most its length is handed out under its origin;
/// the rest counts as read from memory.
pub(crate) struct CachedPiece {
    data: Bytes,
    origin: Origin,
    /// Bytes not yet handed out under `origin`.
    fresh: AtomicU32,
    live: Arc<AtomicU64>,
}

impl CachedPiece {
    /// Bytes `[from, from + len)` of the piece, counted in `counted` by where they came from.
    pub(crate) fn hand_out(&self, from: u32, len: u32, counted: &mut SourceBytes) -> Bytes {
        self.count(len, counted);
        self.data.slice(from as usize..(from + len) as usize)
    }

    /// The same into `out`, without sharing the piece's memory.
    pub(crate) fn copy_out(
        &self,
        from: u32,
        len: u32,
        out: &mut bytes::BytesMut,
        counted: &mut SourceBytes,
    ) {
        self.count(len, counted);
        out.extend_from_slice(&self.data[from as usize..(from + len) as usize]);
    }

    /// The whole piece, not counted as read.
    pub(crate) fn data(&self) -> &Bytes {
        &self.data
    }

    fn count(&self, len: u32, counted: &mut SourceBytes) {
        let take = |fresh: u32| Some(fresh.saturating_sub(len));
        let fresh = self
            .fresh
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .unwrap_or_default();
        let first = fresh.min(len);
        counted.add(self.origin, u64::from(first));
        counted.add(Origin::Memory, u64::from(len - first));
    }
}

impl Drop for CachedPiece {
    fn drop(&mut self) {
        self.live
            .fetch_sub(self.data.len() as u64, Ordering::Relaxed);
    }
}

impl fmt::Debug for CachedPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedPiece")
            .field("len", &self.data.len())
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// What the cache holds. moka frees removed entries late (its table is epoch-reclaimed), so
/// the eviction listener empties the slot: the bytes go when the entry does.
type Slot = Arc<Mutex<Option<Arc<CachedPiece>>>>;

/// The local memory tier.
pub(crate) struct LocalMemory {
    cache: Cache<PieceId, Slot>,
    capacity: u64,
    live: Arc<AtomicU64>,
}

/// What an entry costs beside its bytes: table slot, queue nodes, reference counts.
const ENTRY_OVERHEAD: u32 = 512;

impl LocalMemory {
    /// A tier of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_: &PieceId, slot: &Slot| {
                let len = slot.lock().as_ref().map_or(0, |p| p.data.len());
                u32::try_from(len)
                    .unwrap_or(u32::MAX)
                    .saturating_add(ENTRY_OVERHEAD)
            })
            // A frequency filter would refuse pieces that were read ahead for a reader who
            // has not come for them yet.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(|_, slot: Slot, _| drop(slot.lock().take()))
            .build();
        Self {
            cache,
            capacity,
            live: Arc::new(AtomicU64::new(0)),
        }
    }

    /// The piece, if it is here. Does not wait.
    pub(crate) fn get(&self, id: &PieceId) -> Option<Arc<CachedPiece>> {
        self.cache.get(id)?.lock().clone()
    }

    /// Whether the piece is here, without counting as a use.
    pub(crate) fn holds(&self, id: &PieceId) -> bool {
        self.cache.contains_key(id)
    }

    /// Puts a piece in and returns it; others go if the tier is full. The piece itself goes
    /// at once if it is larger than the tier, and is still good for the caller.
    pub(crate) fn insert(&self, id: PieceId, data: Bytes, origin: Origin) -> Arc<CachedPiece> {
        let len = data.len() as u64;
        self.live.fetch_add(len, Ordering::Relaxed);
        let piece = Arc::new(CachedPiece {
            fresh: AtomicU32::new(u32::try_from(len).unwrap_or(u32::MAX)),
            data,
            origin,
            live: Arc::clone(&self.live),
        });
        let slot = Arc::new(Mutex::new(Some(Arc::clone(&piece))));
        self.cache.insert(id, slot);
        // moka evicts in batches of its own choosing, which at 1 MiB an entry is far too late.
        self.cache.run_pending_tasks();
        piece
    }

    #[cfg(test)]
    pub(crate) fn clear(&self) {
        self.cache.invalidate_all();
        self.cache.run_pending_tasks();
    }

    /// The tier's limit in bytes.
    pub(crate) const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes of pieces that exist: in the tier or still in a reader's hands.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
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
mod tests {
    use millpond_proto::{BlockId, FileId};
    use proptest::prelude::*;

    use super::*;

    fn id(n: u64) -> PieceId {
        PieceId {
            block: BlockId::new(FileId([1; 16]), n),
            index: 0,
        }
    }

    #[test]
    fn bytes_never_exceed_the_capacity_by_more_than_the_newest_piece() {
        let memory = LocalMemory::new(8 << 20);
        for n in 0..100 {
            memory.insert(id(n), Bytes::from(vec![0; 1 << 20]), Origin::Ufs);
            assert!(memory.live_bytes() <= 8 << 20, "at piece {n}");
        }
        assert!(memory.live_bytes() >= 6 << 20);
        assert!(memory.get(&id(99)).is_some(), "the newest stays");
        assert!(memory.get(&id(0)).is_none(), "the oldest goes");
    }

    #[test]
    fn a_piece_larger_than_the_tier_is_good_for_its_reader_only() {
        let memory = LocalMemory::new(1 << 10);
        let piece = memory.insert(id(0), Bytes::from(vec![5; 1 << 20]), Origin::Ufs);
        let mut counted = SourceBytes::default();
        assert_eq!(piece.hand_out(10, 4, &mut counted).as_ref(), &[5; 4]);
        drop(piece);
        assert!(memory.get(&id(0)).is_none());
        assert_eq!(memory.live_bytes(), 0);
    }

    #[test]
    fn pieces_are_freed_when_they_are_replaced() {
        let memory = LocalMemory::new(8 << 20);
        for _ in 0..50 {
            memory.insert(id(0), Bytes::from(vec![0; 1 << 20]), Origin::Peer);
        }
        assert_eq!(memory.live_bytes(), 1 << 20);
    }

    proptest! {
        /// However a piece is read, the sum is what was read, and its origin is credited for
        /// at most its length.
        #[test]
        fn every_byte_counts_once(reads in proptest::collection::vec(1u32..=1000, 0..20)) {
            let memory = LocalMemory::new(1 << 20);
            let piece = memory.insert(id(0), Bytes::from(vec![0; 1000]), Origin::Peer);
            let mut counted = SourceBytes::default();
            for len in &reads {
                piece.hand_out(1000 - len, *len, &mut counted);
            }
            let total: u64 = reads.iter().map(|len| u64::from(*len)).sum();
            prop_assert_eq!(counted.total(), total);
            prop_assert_eq!(counted.peer, total.min(1000));
            prop_assert_eq!(counted.memory, total.saturating_sub(1000));
        }
    }
}
