//! The planner: from a read to the pieces of blocks it needs. Pure.
//!
//! A **piece** is an aligned part of a block, [`TRANSFER`] bytes long or the whole block when
//! blocks are smaller. It is the unit of transfer and of the local memory tier: 1 MiB reaches
//! the wire's limit with a few in flight, and is the largest request the kernel makes.

use std::ops::Range;

use millpond_proto::{BlockId, BlockSize, FileId};

/// The most bytes of one transfer.
pub(crate) const TRANSFER: u64 = 1 << 20;

/// One piece of one block. Immutable, because the block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PieceId {
    pub(crate) block: BlockId,
    /// Its number in the block.
    pub(crate) index: u32,
}

/// A piece and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: PieceId,
    /// Where it starts in its block.
    pub(crate) offset: u32,
    /// Its length; short at the end of the file. At least 1.
    pub(crate) len: u32,
    /// Where it starts in the file.
    pub(crate) start: u64,
}

impl Piece {
    /// The bytes of the file that the piece holds.
    pub(crate) const fn range(&self) -> Range<u64> {
        self.start..self.start + self.len as u64
    }
}

/// The part of a piece that a read needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PieceSpan {
    pub(crate) piece: Piece,
    /// Where the part starts in the piece.
    pub(crate) from: u32,
    /// Its length, at least 1.
    pub(crate) len: u32,
}

/// How files are cut into blocks and pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    block: BlockSize,
}

impl Layout {
    pub(crate) const fn new(block: BlockSize) -> Self {
        Self { block }
    }

    pub(crate) const fn block_size(self) -> BlockSize {
        self.block
    }

    /// Length in bytes of every piece but the last of a file.
    pub(crate) const fn piece_len(self) -> u64 {
        if self.block.bytes() < TRANSFER {
            self.block.bytes()
        } else {
            TRANSFER
        }
    }

    /// The piece that holds byte `at` of a file of `size` bytes; `at < size`.
    pub(crate) fn piece_at(self, file: FileId, size: u64, at: u64) -> Piece {
        let start = at - at % self.piece_len();
        let index = start / self.block.bytes();
        let offset = (start % self.block.bytes()) as u32;
        Piece {
            id: PieceId {
                block: BlockId::new(file, index),
                index: offset / self.piece_len() as u32,
            },
            offset,
            len: self.piece_len().min(size - start) as u32,
            start,
        }
    }

    /// The spans, in order, that together hold `[offset, offset + len)` of a file of `size`
    /// bytes, cut at the end of the file.
    pub(crate) fn plan(
        self,
        file: FileId,
        size: u64,
        offset: u64,
        len: u64,
    ) -> impl Iterator<Item = PieceSpan> {
        let end = offset.saturating_add(len).min(size);
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let piece = self.piece_at(file, size, at);
            let stop = piece.range().end.min(end);
            let span = PieceSpan {
                piece,
                from: (at - piece.start) as u32,
                len: (stop - at) as u32,
            };
            at = stop;
            Some(span)
        })
    }

    /// All pieces of a block of a file of `size` bytes.
    pub(crate) fn pieces_of(self, block: BlockId, size: u64) -> impl Iterator<Item = Piece> {
        let range = self.block.range(block.index, size);
        self.plan(block.file, size, range.start, range.end - range.start)
            .map(|span| span.piece)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: FileId = FileId([7; 16]);

    proptest! {
        /// The spans of a read are exactly its bytes, in order, each inside one piece, and no
        /// piece crosses a block.
        #[test]
        fn spans_partition_the_read(
            bits in 16u32..=24,
            size in 0u64..1 << 27,
            offset in 0u64..1 << 27,
            len in 0u64..1 << 25,
        ) {
            let block = BlockSize::new(1 << bits).unwrap();
            let layout = Layout::new(block);
            let mut at = offset.min(size);
            for span in layout.plan(FILE, size, offset, len) {
                prop_assert_eq!(span.piece.start + u64::from(span.from), at);
                prop_assert!(span.len >= 1);
                prop_assert!(span.from + span.len <= span.piece.len);
                prop_assert!(u64::from(span.piece.len) <= TRANSFER);
                let block_start = span.piece.id.block.index * block.bytes();
                prop_assert_eq!(block_start + u64::from(span.piece.offset), span.piece.start);
                let block_len = block.block_len(span.piece.id.block.index, size);
                prop_assert!(span.piece.offset + span.piece.len <= block_len);
                at += u64::from(span.len);
            }
            prop_assert_eq!(at, offset.saturating_add(len).min(size).max(offset.min(size)));
        }

        #[test]
        fn pieces_partition_the_block(bits in 16u32..=23, size in 1u64..1 << 25) {
            let block = BlockSize::new(1 << bits).unwrap();
            let layout = Layout::new(block);
            let mut at = 0;
            for index in 0..block.count(size) {
                for (i, piece) in layout.pieces_of(BlockId::new(FILE, index), size).enumerate() {
                    prop_assert_eq!(piece.start, at);
                    prop_assert_eq!(piece.id.index as usize, i);
                    prop_assert_eq!(piece.id.block.index, index);
                    at = piece.range().end;
                }
            }
            prop_assert_eq!(at, size);
        }
    }
}
