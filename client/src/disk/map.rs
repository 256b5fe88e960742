//! The map file: which pages of a cached file are there, and their checksums. All integers
//! are little-endian.
//!
//! ```text
//!   0  magic "MPCACHE1"
//!   8  file id, 16 bytes
//!  24  size of the file u64
//!  32  CRC32C u32 of all before
//!  36  0 u32
//!  40  one entry per page: CRC32C u32 of the page; CRC32C u32 of file id, page number u64
//!      and the checksum before, inverted
//! ```
//!
//! An entry that does not name its own file and page is no entry: zeros of a sparse file, a
//! torn write, a part that never reached the disk. So entries are written one by one, in
//! any order, without a journal.

use millpond_proto::FileId;
use millpond_proto::checksum::crc32c;

const MAGIC: &[u8; 8] = b"MPCACHE1";

/// Bytes before the first entry.
pub(super) const HEADER: u64 = 40;

/// Bytes of an entry.
pub(super) const ENTRY: u64 = 8;

/// Where the entry of `page` is.
pub(super) const fn offset(page: u64) -> u64 {
    HEADER + page * ENTRY
}

/// What a map begins with.
pub(super) fn header(file: FileId, size: u64) -> [u8; HEADER as usize] {
    let mut out = [0; HEADER as usize];
    out[..8].copy_from_slice(MAGIC);
    out[8..24].copy_from_slice(&file.0);
    out[24..32].copy_from_slice(&size.to_le_bytes());
    let sum = crc32c(&out[..32]);
    out[32..36].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The size of the file whose map begins so; none if it is no map, or that of another file.
pub(super) fn size_in(header: &[u8; HEADER as usize], file: FileId) -> Option<u64> {
    let size = u64::from_le_bytes(header[24..32].try_into().ok()?);
    (*header == self::header(file, size)).then_some(size)
}

/// The entry of a page that is there.
pub(super) fn entry(file: FileId, page: u64, checksum: u32) -> [u8; ENTRY as usize] {
    let mut out = [0; ENTRY as usize];
    out[..4].copy_from_slice(&checksum.to_le_bytes());
    out[4..].copy_from_slice(&seal(file, page, checksum).to_le_bytes());
    out
}

/// The checksum in the entry of `page`; none if the page is not there.
pub(super) fn checksum_in(entry: &[u8], file: FileId, page: u64) -> Option<u32> {
    let checksum = u32::from_le_bytes(entry.get(..4)?.try_into().ok()?);
    let sealed = u32::from_le_bytes(entry.get(4..8)?.try_into().ok()?);
    (sealed == seal(file, page, checksum)).then_some(checksum)
}

fn seal(file: FileId, page: u64, checksum: u32) -> u32 {
    let mut named = [0; 28];
    named[..16].copy_from_slice(&file.0);
    named[16..24].copy_from_slice(&page.to_le_bytes());
    named[24..].copy_from_slice(&checksum.to_le_bytes());
    !crc32c(&named)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: FileId = FileId([0xab; 16]);

    /// The layout is on users' disks: it may change only with the format number.
    #[test]
    fn golden_map_is_stable() {
        let text = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let expected =
            "4d50434143484531".to_owned() + &"ab".repeat(16) + "0403020100000000972cca8a00000000";
        assert_eq!(text(&header(FILE, 0x0102_0304)), expected);
        assert_eq!(text(&entry(FILE, 7, 0x1122_3344)), "44332211061ebe37");
    }

    #[test]
    fn a_header_of_another_file_or_with_a_flipped_bit_is_none() {
        let good = header(FILE, 99);
        assert_eq!(size_in(&good, FILE), Some(99));
        assert_eq!(size_in(&good, FileId([1; 16])), None);
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(size_in(&bad, FILE), None, "bit {bit}");
        }
        assert_eq!(size_in(&[0; HEADER as usize], FILE), None);
    }

    proptest! {
        #[test]
        fn an_entry_is_good_for_its_page_only(page: u64, other: u64, checksum: u32, bit in 0u8..64) {
            let good = entry(FILE, page, checksum);
            prop_assert_eq!(checksum_in(&good, FILE, page), Some(checksum));
            if other != page {
                prop_assert_eq!(checksum_in(&good, FILE, other), None);
            }
            prop_assert_eq!(checksum_in(&good, FileId([1; 16]), page), None);
            let mut bad = good;
            bad[usize::from(bit) / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(checksum_in(&bad, FILE, page), None);
        }

        /// Whatever a map's file has in it, of any length.
        #[test]
        fn bytes_that_are_no_map_are_taken_for_none(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            begins in any::<bool>(),
            page: u64,
        ) {
            let mut bytes = bytes;
            if begins && bytes.len() >= MAGIC.len() {
                bytes[..MAGIC.len()].copy_from_slice(MAGIC);
            }
            if let Some(first) = bytes.first_chunk() {
                let size = size_in(first, FILE);
                prop_assert!(size.is_none_or(|size| header(FILE, size) == *first));
            }
            if let Some(checksum) = checksum_in(&bytes, FILE, page) {
                prop_assert_eq!(&bytes[..8], &entry(FILE, page, checksum));
            }
        }

        #[test]
        fn a_hole_is_no_entry(page in 0u64..1 << 30) {
            prop_assert_eq!(checksum_in(&[0; 8], FILE, page), None);
        }
    }
}
