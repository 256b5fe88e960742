//! A block's bytes with their checksums.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use millpond_proto::checksum::{PAGE_SIZE, crc32c, page_checksums, piece_count, pieces};
use millpond_proto::wire::frame::Tier;

use crate::policy::Policy;

/// A whole block, short only if it is a file's last.
///
/// - `checksums` has one CRC32C per 64 KiB page of `data`.
/// - Cheap to clone.
#[derive(Clone)]
pub struct Block {
    /// The bytes. They should own a buffer of their own length: a tier accounts for the
    /// length, not for a larger buffer that they may be a part of.
    pub data: Bytes,
    /// One CRC32C per page.
    pub checksums: Arc<[u32]>,
    /// How full tiers choose between it and others.
    pub policy: Policy,
}

impl Block {
    /// A block of `data`, whose checksums are computed.
    pub fn new(data: Bytes) -> Self {
        let checksums = page_checksums(&data).into();
        Self {
            data,
            checksums,
            policy: Policy::default(),
        }
    }

    /// A block whose bytes were verified against `checksums` by the caller. None unless
    /// there is one per page.
    pub fn verified(data: Bytes, checksums: Vec<u32>) -> Option<Self> {
        let pages = data.len().div_ceil(PAGE_SIZE as usize);
        (checksums.len() == pages).then(|| Self {
            data,
            checksums: checksums.into(),
            policy: Policy::default(),
        })
    }

    /// The same block under another policy.
    #[must_use]
    pub const fn under(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Length in bytes.
    pub const fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether the block has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// `len` bytes from `offset` with one checksum per page piece; the bytes are shared, not
    /// copied. None if the range does not lie within the block.
    pub fn range(&self, offset: u32, len: u32, tier: Tier) -> Option<Hit> {
        let end = u64::from(offset) + u64::from(len);
        if end > self.data.len() as u64 {
            return None;
        }
        let data = self.data.slice(offset as usize..end as usize);
        let checksums = piece_checksums(&data, offset, self.data.len(), |page| {
            self.checksums[page as usize]
        });
        Some(Hit {
            data,
            checksums,
            tier,
        })
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.data.len())
    }
}

/// A range of a block, found in a tier.
#[derive(Clone)]
pub struct Hit {
    /// The range, contiguous.
    pub data: Bytes,
    /// One CRC32C per page piece of the range, see [`pieces`].
    pub checksums: Vec<u32>,
    /// Where it was.
    pub tier: Tier,
}

impl fmt::Debug for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hit({} bytes, {:?})", self.data.len(), self.tier)
    }
}

/// The checksum of each page piece of a range: the page's own (`page_checksum`) where the
/// piece is the whole page, computed for the pieces at the ends that are not.
pub(crate) fn piece_checksums(
    range: &[u8],
    offset: u32,
    block_len: usize,
    page_checksum: impl Fn(u32) -> u32,
) -> Vec<u32> {
    let len = range.len() as u32;
    let mut checksums = Vec::with_capacity(piece_count(offset, len) as usize);
    checksums.extend(pieces(offset, len).map(|piece| {
        let page_start = u64::from(piece.page) * u64::from(PAGE_SIZE);
        let page_len = (block_len as u64 - page_start).min(u64::from(PAGE_SIZE));
        if u64::from(piece.len) == page_len {
            page_checksum(piece.page)
        } else {
            let start = piece.start as usize;
            crc32c(&range[start..start + piece.len as usize])
        }
    }));
    checksums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_range_carries_the_checksums_of_its_pieces(
            len in 1usize..300_000,
            a in any::<prop::sample::Index>(),
            b in any::<prop::sample::Index>(),
        ) {
            let data: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
            let block = Block::new(data.clone().into());
            let (a, b) = (a.index(len + 1), b.index(len + 1));
            let (start, end) = (a.min(b), a.max(b));
            let hit = block.range(start as u32, (end - start) as u32, Tier::Memory).unwrap();
            prop_assert_eq!(&hit.data[..], &data[start..end]);
            let expected: Vec<u32> = pieces(start as u32, (end - start) as u32)
                .map(|p| crc32c(&hit.data[p.start as usize..(p.start + p.len) as usize]))
                .collect();
            prop_assert_eq!(hit.checksums, expected);
        }
    }

    #[test]
    fn a_range_past_the_end_is_no_hit() {
        let block = Block::new(Bytes::from_static(b"12345"));
        assert!(block.range(0, 6, Tier::Memory).is_none());
        assert!(block.range(u32::MAX, u32::MAX, Tier::Memory).is_none());
        assert!(block.range(5, 0, Tier::Memory).is_some());
    }
}
