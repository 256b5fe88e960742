//! Whole blocks in memory.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foyer::{Cache, CacheBuilder, S3FifoConfig};
use millpond_proto::BlockId;
use parking_lot::Mutex;
use tracing::warn;

use crate::admission::{Admission, Refusal};
use crate::block::Block;
use crate::hold::{Hold, Share, reserve};
use crate::policy::Policy;

/// What an entry costs beside its data and checksums: key, record, index and list links.
const ENTRY_OVERHEAD: usize = 256;

/// A shard is not made smaller than this, so that a block of any size fits one.
const SMALLEST_SHARD: u64 = 512 << 20;

/// The most shards: their locks are held for a hash lookup only.
const MOST_SHARDS: u64 = 16;

/// Blocks in memory, limited in bytes with all overhead. Each is under one [`Policy`]:
///
/// - `ScanResistant`: evicted by S3-FIFO (Yang et al., SOSP 2023). One pass over more data than
///   fits does not push out what is used twice.
/// - `Hold`: held for as long as it is returned to. What does not fit any more is treated like
///   the others, in the part of the tier that is kept for them, so that a block that is read in
///   pieces is there for all of them.
#[derive(Clone)]
pub struct MemoryTier {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Cache<BlockId, Block>,
    held: Box<[Mutex<Hold<Block>>]>,
    hasher: RandomState,
    capacity: u64,
    shard_capacity: u64,
    /// Bytes in `held`, and what the cache is told of them. Locked after a part of `held`.
    share: Mutex<(u64, Share)>,
    /// The same bytes, to be read without the lock.
    held_bytes: AtomicU64,
    /// The weight of the largest block so far.
    largest: AtomicU64,
}

impl MemoryTier {
    /// A tier of at most `capacity` bytes; 0 keeps nothing.
    pub fn new(capacity: u64) -> Self {
        let shards = (capacity / SMALLEST_SHARD).clamp(1, MOST_SHARDS) as usize;
        let bytes = usize::try_from(capacity).unwrap_or(usize::MAX);
        let cache = CacheBuilder::new(bytes)
            .with_name("blocks")
            .with_shards(shards)
            .with_eviction_config(S3FifoConfig::default())
            .with_weighter(|_: &BlockId, block: &Block| weight(block) as usize)
            .build();
        let held = (0..shards).map(|_| Mutex::new(Hold::new())).collect();
        Self {
            inner: Arc::new(Inner {
                cache,
                held,
                hasher: RandomState::new(),
                capacity,
                shard_capacity: capacity / shards as u64,
                share: Mutex::new((0, Share::new(capacity))),
                held_bytes: AtomicU64::new(0),
                largest: AtomicU64::new(0),
            }),
        }
    }

    /// The block, if in the tier. Counts as a use.
    pub fn get(&self, id: &BlockId) -> Option<Block> {
        let inner = &self.inner;
        if inner.holds_any()
            && let Some(block) = inner.held(id).lock().get(id)
        {
            return Some(block.clone());
        }
        inner.cache.get(id).map(|entry| entry.value().clone())
    }

    /// Whether the block is in the tier. Does not count as a use.
    pub fn contains(&self, id: &BlockId) -> bool {
        let inner = &self.inner;
        inner.holds_any() && inner.held(id).lock().peek(id).is_some() || inner.cache.contains(id)
    }

    /// Keeps a block, evicting others if need be.
    pub fn insert(&self, id: BlockId, block: Block) -> Admission {
        let inner = &self.inner;
        let weight = weight(&block);
        if weight > inner.shard_capacity {
            return Admission::Refused(Refusal::TooLarge);
        }
        if inner.largest.fetch_max(weight, Ordering::Relaxed) < weight {
            inner.keep_reserve();
        }
        if self.contains(&id) {
            return Admission::Present;
        }
        let left = match block.policy {
            Policy::ScanResistant => Some(block),
            Policy::Hold => inner.hold(id, block, weight),
        };
        if let Some(block) = left {
            inner.cache.insert(id, block);
        }
        Admission::Accepted
    }

    /// Drops a block.
    pub fn remove(&self, id: &BlockId) {
        let inner = &self.inner;
        if inner.holds_any() {
            let mut held = inner.held(id).lock();
            if let Some(block) = held.remove(id) {
                inner.released(weight(&block));
            }
        }
        inner.cache.remove(id);
    }

    /// Bytes of all blocks, overhead included; never above [`capacity`](Self::capacity).
    pub fn used(&self) -> u64 {
        self.inner.cache.usage() as u64 + self.held()
    }

    /// Bytes of the blocks that are held, overhead included.
    pub fn held(&self) -> u64 {
        self.inner.held_bytes.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub fn capacity(&self) -> u64 {
        self.inner.capacity
    }

    /// Blocks in the tier.
    pub fn blocks(&self) -> u64 {
        let held: usize = self.inner.held.iter().map(|held| held.lock().len()).sum();
        (self.inner.cache.entries() + held) as u64
    }
}

impl Inner {
    fn holds_any(&self) -> bool {
        self.held_bytes.load(Ordering::Relaxed) > 0
    }

    /// The part of the held blocks that `id` belongs to.
    fn held(&self, id: &BlockId) -> &Mutex<Hold<Block>> {
        match &*self.held {
            [only] => only,
            parts => &parts[self.hasher.hash_one(id) as usize % parts.len()],
        }
    }

    /// Holds a block if there is room; gives it back otherwise.
    fn hold(&self, id: BlockId, block: Block, weight: u64) -> Option<Block> {
        let mut held = self.held(&id).lock();
        let room = self.room();
        if !held.asked(weight, room) {
            return Some(block);
        }
        // The room is taken from the cache before it is used.
        self.take(weight);
        // Another insert of the same block may have come first.
        let twice = held.remove(&id).map(|_| weight);
        let gone = held.insert(id, weight, block, room);
        let gone: u64 = gone.iter().map(|(_, block)| self::weight(block)).sum();
        self.released(gone + twice.unwrap_or(0));
        None
    }

    /// How much each part of the held blocks may have.
    fn room(&self) -> u64 {
        let largest = self.largest.load(Ordering::Relaxed);
        self.shard_capacity - reserve(self.shard_capacity, largest)
    }

    /// Gives the cache the room that blocks larger than all before need.
    fn keep_reserve(&self) {
        let room = self.room();
        for held in &self.held {
            let mut held = held.lock();
            let gone = held.shed(room);
            self.released(gone.iter().map(|(_, block)| weight(block)).sum());
        }
    }

    fn take(&self, bytes: u64) {
        let mut share = self.share.lock();
        share.0 += bytes;
        self.settle(&mut share);
    }

    fn released(&self, bytes: u64) {
        if bytes > 0 {
            let mut share = self.share.lock();
            share.0 -= bytes;
            self.settle(&mut share);
        }
    }

    fn settle(&self, (held, share): &mut (u64, Share)) {
        let told = share.taken(*held);
        // What is freed is counted first, what is taken last: the sum never exceeds the limit.
        self.held_bytes.fetch_min(*held, Ordering::Relaxed);
        if let Some(left) = told {
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            if let Err(error) = self.cache.resize(left) {
                warn!(%error, bytes = left, "the memory tier cannot be resized");
            }
        }
        self.held_bytes.store(*held, Ordering::Relaxed);
    }
}

impl fmt::Debug for MemoryTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTier")
            .field("used", &self.used())
            .field("capacity", &self.capacity())
            .finish()
    }
}

fn weight(block: &Block) -> u64 {
    (ENTRY_OVERHEAD + block.data.len() + block.checksums.len() * size_of::<u32>()) as u64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millpond_proto::FileId;

    use super::*;

    fn id(index: u64) -> BlockId {
        BlockId::new(FileId([1; 16]), index)
    }

    #[test]
    fn filling_past_the_limit_stays_under_it() {
        let tier = MemoryTier::new(1 << 20);
        for index in 0..200 {
            let block = Block::new(Bytes::from(vec![index as u8; 40_000]));
            assert_eq!(tier.insert(id(index), block), Admission::Accepted);
            assert!(tier.used() <= tier.capacity(), "{tier:?}");
        }
        // And it is used: at least 90 % of it holds blocks.
        assert!(tier.used() > tier.capacity() * 9 / 10, "{tier:?}");
        let held = (0..200).filter(|&i| tier.get(&id(i)).is_some()).count();
        assert_eq!(held as u64, tier.blocks());
    }

    #[test]
    fn a_block_larger_than_the_tier_is_refused() {
        let tier = MemoryTier::new(1 << 20);
        tier.insert(id(0), Block::new(Bytes::from(vec![0; 1000])));
        let large = Block::new(Bytes::from(vec![0; 1 << 20]));
        assert_eq!(
            tier.insert(id(1), large),
            Admission::Refused(Refusal::TooLarge)
        );
        assert!(tier.contains(&id(0)), "others stay");
        let none = MemoryTier::new(0);
        let small = Block::new(Bytes::from_static(b"x"));
        assert_eq!(
            none.insert(id(0), small),
            Admission::Refused(Refusal::TooLarge)
        );
    }

    #[test]
    fn blocks_used_twice_survive_one_pass_over_more_than_fits() {
        let tier = MemoryTier::new(4 << 20);
        let block = || Block::new(Bytes::from(vec![7; 64 << 10]));
        for index in 0..20 {
            tier.insert(id(index), block());
            tier.get(&id(index));
        }
        for index in 1000..1400 {
            tier.insert(id(index), block());
        }
        let kept = (0..20).filter(|&i| tier.contains(&id(i))).count();
        assert!(kept >= 18, "only {kept} of 20 hot blocks were kept");
    }

    #[test]
    fn a_data_set_that_does_not_fit_is_held_in_part_and_others_keep_some_room() {
        let tier = MemoryTier::new(4 << 20);
        let block = || Block::new(Bytes::from(vec![7; 64 << 10])).under(Policy::Hold);
        let other = |n: u64| BlockId::new(FileId([2; 16]), n);
        for epoch in 0..4 {
            let mut hits = 0;
            for index in 0..128 {
                match tier.get(&id(index)) {
                    Some(_) => hits += 1,
                    None => {
                        tier.insert(id(index), block());
                        assert!(tier.contains(&id(index)), "it is there to be read on");
                    }
                }
                assert!(tier.used() <= tier.capacity(), "{tier:?}");
            }
            // 63 fit, of which a few places are kept free.
            assert!(epoch == 0 || hits >= 58, "{hits} hits");
        }
        let held = tier.held();
        for n in 0..100 {
            let block = Block::new(Bytes::from(vec![1; 64 << 10]));
            assert_eq!(tier.insert(other(n), block), Admission::Accepted);
            assert!(tier.contains(&other(n)) && tier.used() <= tier.capacity());
        }
        assert_eq!(tier.held(), held);
        for index in 0..128 {
            tier.remove(&id(index));
        }
        assert_eq!(tier.held(), 0);
        for n in 100..200 {
            tier.insert(other(n), Block::new(Bytes::from(vec![1; 64 << 10])));
        }
        assert!(tier.used() > tier.capacity() * 9 / 10, "{tier:?}");
    }

    #[test]
    fn larger_blocks_than_before_get_their_room() {
        let tier = MemoryTier::new(1 << 20);
        for index in 0..300 {
            let block = Block::new(Bytes::from(vec![7; 4 << 10])).under(Policy::Hold);
            tier.insert(id(index), block);
        }
        assert!(tier.held() > 900 << 10, "{tier:?}");
        let large = Block::new(Bytes::from(vec![7; 200 << 10]));
        assert_eq!(tier.insert(id(1000), large), Admission::Accepted);
        assert!(tier.contains(&id(1000)));
        assert!(tier.used() <= tier.capacity(), "{tier:?}");
    }
}
