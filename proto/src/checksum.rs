//! CRC32C per page: the integrity check that travels with block data.
//!
//! A **page** here is 64 KiB of a block, aligned to the block's start; the last page of a
//! block may be short. Checksums are computed where data enters the tier, stored with the
//! block, and verified on every read from disk and by the client.

use crc_fast::{CrcAlgorithm, checksum};

/// Bytes that one checksum covers.
pub const PAGE_SIZE: u32 = 64 * 1024;

/// CRC32C (Castagnoli, RFC 3720 appendix B.4) of `data`.
pub fn crc32c(data: &[u8]) -> u32 {
    // The algorithm is 32 bits wide, the library's return type is wider.
    (checksum(CrcAlgorithm::Crc32Iscsi, data) & 0xffff_ffff) as u32
}

/// The number of pages in a block of `len` bytes.
pub const fn page_count(len: u32) -> u32 {
    len.div_ceil(PAGE_SIZE)
}

/// The checksum of every page of `block`, which starts at a page boundary.
pub fn page_checksums(block: &[u8]) -> Vec<u32> {
    block.chunks(PAGE_SIZE as usize).map(crc32c).collect()
}

/// Splits `[offset, offset + len)` of a block at page boundaries: `(page number, start, len)`
/// of each piece, `start` relative to the range. A response carries one checksum per piece.
pub fn pieces(offset: u32, len: u32) -> impl Iterator<Item = PagePiece> {
    let end = u64::from(offset) + u64::from(len);
    let mut at = u64::from(offset);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let page = at / u64::from(PAGE_SIZE);
        let stop = ((page + 1) * u64::from(PAGE_SIZE)).min(end);
        let piece = PagePiece {
            page: page as u32,
            start: (at - u64::from(offset)) as u32,
            len: (stop - at) as u32,
        };
        at = stop;
        Some(piece)
    })
}

/// The number of items that [`pieces`] yields.
pub const fn piece_count(offset: u32, len: u32) -> u32 {
    if len == 0 {
        return 0;
    }
    let first = offset / PAGE_SIZE;
    let last = ((offset as u64 + len as u64 - 1) / PAGE_SIZE as u64) as u32;
    last - first + 1
}

/// The intersection of a range of a block with one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagePiece {
    /// The page's number in the block.
    pub page: u32,
    /// Where the piece starts, relative to the range.
    pub start: u32,
    /// Length in bytes, at least 1 and at most [`PAGE_SIZE`].
    pub len: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn crc32c_matches_the_rfc_vectors() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b""), 0);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_exactly(offset in 0u32..1 << 24, len in 0u32..1 << 20) {
            let mut at = 0;
            let mut count = 0;
            for piece in pieces(offset, len) {
                prop_assert_eq!(piece.start, at);
                prop_assert!(piece.len >= 1 && piece.len <= PAGE_SIZE);
                let first = offset + piece.start;
                prop_assert_eq!(first / PAGE_SIZE, piece.page);
                prop_assert_eq!((first + piece.len - 1) / PAGE_SIZE, piece.page);
                at += piece.len;
                count += 1;
            }
            prop_assert_eq!(at, len);
            prop_assert_eq!(count, piece_count(offset, len));
        }
    }
}
