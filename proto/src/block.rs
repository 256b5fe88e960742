//! Block arithmetic: from byte ranges of a file to spans of its blocks.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;

/// The size of every block of a cluster, fixed at bootstrap.
///
/// A power of two from 64 KiB to 64 MiB; 4 MiB unless configured (1 MiB transfers reach the
/// wire's limit, larger blocks only add latency).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BlockSize(u32);

impl BlockSize {
    /// 4 MiB.
    pub const DEFAULT: Self = Self(4 << 20);
    /// 64 KiB: one checksum page.
    pub const MIN: Self = Self(64 << 10);
    /// 64 MiB.
    pub const MAX: Self = Self(64 << 20);

    /// A block size of `bytes`.
    ///
    /// # Errors
    /// [`BlockSizeError`] unless `bytes` is a power of two within `MIN..=MAX`.
    pub const fn new(bytes: u64) -> Result<Self, BlockSizeError> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.bytes() && bytes <= Self::MAX.bytes() {
            Ok(Self(bytes as u32))
        } else {
            Err(BlockSizeError(bytes))
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// The number of blocks of a file of `file_size` bytes; 0 for an empty file.
    pub const fn count(self, file_size: u64) -> u64 {
        file_size.div_ceil(self.bytes())
    }

    /// The byte range of the file that block `index` holds; empty past the end of the file.
    pub const fn range(self, index: u64, file_size: u64) -> Range<u64> {
        let start = index.saturating_mul(self.bytes());
        if start >= file_size {
            return file_size..file_size;
        }
        let end = start.saturating_add(self.bytes());
        start..if end < file_size { end } else { file_size }
    }

    /// The length in bytes of block `index`; short for the last block, 0 past the end.
    pub const fn block_len(self, index: u64, file_size: u64) -> u32 {
        let range = self.range(index, file_size);
        (range.end - range.start) as u32
    }

    /// The spans, in order, that together hold `[offset, offset + len)` of a file of
    /// `file_size` bytes, cut at the end of the file.
    pub fn spans(
        self,
        offset: u64,
        len: u64,
        file_size: u64,
    ) -> impl ExactSizeIterator<Item = BlockSpan> {
        let start = offset.min(file_size);
        let end = offset.saturating_add(len).min(file_size);
        let first = start / self.bytes();
        let count = if start < end {
            (end - 1) / self.bytes() - first + 1
        } else {
            0
        };
        // One span more than fits in memory addresses cannot be asked for by one read.
        (0..count as usize).map(move |i| {
            let index = first + i as u64;
            let block_start = index * self.bytes();
            let from = start.max(block_start);
            let to = end.min(block_start + self.bytes());
            BlockSpan {
                index,
                offset: (from - block_start) as u32,
                len: (to - from) as u32,
            }
        })
    }
}

impl Default for BlockSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 1 << 20 {
            write!(f, "{} MiB", self.0 >> 20)
        } else {
            write!(f, "{} KiB", self.0 >> 10)
        }
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = BlockSizeError;

    fn try_from(bytes: u32) -> Result<Self, BlockSizeError> {
        Self::new(u64::from(bytes))
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> Self {
        size.0
    }
}

/// The number is not a possible block size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "block size {size} is not a power of two between 64 KiB (65536) and 64 MiB (67108864); \
     the default is 4MiB",
    size = AsGiven(*.0)
)]
pub struct BlockSizeError(u64);

/// A number of bytes as people write it, and in bytes.
struct AsGiven(u64);

impl fmt::Display for AsGiven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if bytes >= unit && bytes.is_multiple_of(unit) {
                return write!(f, "{}{name} ({bytes} bytes)", bytes / unit);
            }
        }
        write!(f, "{bytes}")
    }
}

impl BlockSizeError {
    /// Always [`ErrorKind::Invalid`].
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// A range inside one block.
///
/// - `offset + len` is at most the block's length.
/// - `len` is at least 1 when it comes from [`BlockSize::spans`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSpan {
    /// The block's number in its file.
    pub index: u64,
    /// Where the span starts in the block, in bytes.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block_sizes() -> impl Strategy<Value = BlockSize> {
        (16u32..=26).prop_map(|bits| BlockSize::new(1 << bits).unwrap())
    }

    #[test]
    fn only_powers_of_two_in_range_are_block_sizes() {
        assert!(BlockSize::new(4 << 20).is_ok());
        for wrong in [0, 1, 3 << 20, 32 << 10, 128 << 20, (4 << 20) + 1] {
            let error = BlockSize::new(wrong).unwrap_err();
            assert!(error.to_string().contains(&wrong.to_string()), "{error}");
        }
        let error = BlockSize::new(3 << 20).unwrap_err().to_string();
        assert!(error.contains("block size 3MiB (3145728 bytes)"), "{error}");
    }

    proptest! {
        /// The spans of a read are exactly its bytes, in order, none twice.
        #[test]
        fn spans_partition_the_range(
            size in block_sizes(),
            offset in 0u64..1 << 30,
            len in 0u64..1 << 28,
            file_size in 0u64..1 << 30,
        ) {
            let mut at = offset.min(file_size);
            for span in size.spans(offset, len, file_size) {
                prop_assert_eq!(span.index * size.bytes() + u64::from(span.offset), at);
                prop_assert!(span.len >= 1);
                let block_len = size.block_len(span.index, file_size);
                prop_assert!(span.offset + span.len <= block_len);
                at += u64::from(span.len);
            }
            prop_assert_eq!(at, offset.saturating_add(len).min(file_size).max(offset.min(file_size)));
        }

        #[test]
        fn blocks_partition_the_file(size in block_sizes(), file_size in 0u64..1 << 32) {
            let count = size.count(file_size);
            let total: u64 = if count == 0 { 0 } else {
                (count - 1) * size.bytes() + u64::from(size.block_len(count - 1, file_size))
            };
            prop_assert_eq!(total, file_size);
            prop_assert_eq!(size.block_len(count, file_size), 0);
        }
    }
}
