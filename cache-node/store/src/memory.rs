//! Whole blocks in memory.

use std::fmt;

use foyer::{Cache, CacheBuilder, S3FifoConfig};
use millpond_proto::BlockId;

use crate::admission::{Admission, Refusal};
use crate::block::Block;

/// What an entry costs beside its data and checksums: key, record, index and list links.
const ENTRY_OVERHEAD: usize = 256;

/// A shard is not made smaller than this, so that a block of any size fits one.
const SMALLEST_SHARD: u64 = 512 << 20;

/// The most shards: their locks are held for a hash lookup only.
const MOST_SHARDS: u64 = 16;

/// Blocks in memory, limited in bytes with all overhead, evicted by S3-FIFO (Yang et al.,
/// SOSP 2023): one pass over more data than fits does not push out what is used twice.
#[derive(Clone)]
pub struct MemoryTier {
    cache: Cache<BlockId, Block>,
    capacity: u64,
    shard_capacity: usize,
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
            .with_weighter(|_: &BlockId, block: &Block| weight(block))
            .build();
        Self {
            cache,
            capacity,
            shard_capacity: bytes / shards,
        }
    }

    /// The block, if held. Counts as a use.
    pub fn get(&self, id: &BlockId) -> Option<Block> {
        self.cache.get(id).map(|entry| entry.value().clone())
    }

    /// Whether the block is held. Does not count as a use.
    pub fn contains(&self, id: &BlockId) -> bool {
        self.cache.contains(id)
    }

    /// Keeps a block, evicting others if need be.
    pub fn insert(&self, id: BlockId, block: Block) -> Admission {
        if weight(&block) > self.shard_capacity {
            return Admission::Refused(Refusal::TooLarge);
        }
        if self.cache.contains(&id) {
            return Admission::Present;
        }
        self.cache.insert(id, block);
        Admission::Accepted
    }

    /// Drops a block.
    pub fn remove(&self, id: &BlockId) {
        self.cache.remove(id);
    }

    /// Bytes held, overhead included; never above [`capacity`](Self::capacity).
    pub fn used(&self) -> u64 {
        self.cache.usage() as u64
    }

    /// The limit in bytes.
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Blocks held.
    pub fn blocks(&self) -> u64 {
        self.cache.entries() as u64
    }
}

impl fmt::Debug for MemoryTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTier")
            .field("used", &self.used())
            .field("capacity", &self.capacity)
            .finish()
    }
}

fn weight(block: &Block) -> usize {
    ENTRY_OVERHEAD + block.data.len() + block.checksums.len() * size_of::<u32>()
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
}
