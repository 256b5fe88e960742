//! The block file. All integers are little-endian.
//!
//! ```text
//!            0  data, `len` bytes
//!          len  CRC32C u32 of each 64 KiB page
//!  end of that  magic "MPBLOCK1"
//!           +8  file id, 16 bytes
//!          +24  block index u64
//!          +32  len u32
//!          +36  CRC32C u32 of the page checksums and the footer up to here
//!          +40  end of the file
//! ```

use std::fs::Metadata;
use std::io;
use std::path::Path;

use bytes::Bytes;
use millpond_proto::BlockId;
use millpond_proto::checksum::{PAGE_SIZE, crc32c, page_count};
use millpond_proto::wire::frame::Tier;

use crate::block::{Block, Hit, piece_checksums};
use crate::policy::Policy;
use crate::stats::Count;

use super::files::{Files, OpenFile};

const MAGIC: &[u8; 8] = b"MPBLOCK1";
const FOOTER_LEN: usize = 40;

/// The unit in which file systems give out space.
const ALLOCATION: u64 = 4096;

/// Why a block could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The file is not what was written.
    Damaged(&'static str),
    /// The file cannot be read.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Bytes on disk of the file of a block of `len` bytes.
pub(super) const fn footprint(len: usize) -> u64 {
    file_len(len as u64).next_multiple_of(ALLOCATION)
}

const fn file_len(len: u64) -> u64 {
    len + len.div_ceil(PAGE_SIZE as u64) * 4 + FOOTER_LEN as u64
}

/// The length of the block whose file has `file_len` bytes; none if no block has.
pub(super) fn block_len(file: u64) -> Option<u32> {
    let content = file.checked_sub(FOOTER_LEN as u64)?;
    let pages = content.div_ceil(u64::from(PAGE_SIZE) + 4);
    let len = content.checked_sub(pages * 4)?;
    (file_len(len) == file).then(|| u32::try_from(len).ok())?
}

/// Writes a new file at `path`.
pub(super) fn write(files: &Files, path: &Path, id: &BlockId, block: &Block) -> io::Result<()> {
    let mut file = files.create(path, mode(block.policy))?;
    file.write(&block.data)?;
    file.write(&footer(id, block))
}

/// The permissions of a block file tell its policy, so that a scan need not open it.
const fn mode(policy: Policy) -> u32 {
    match policy {
        Policy::ScanResistant => 0o600,
        Policy::Hold => 0o400,
    }
}

/// The policy of the block in a file.
pub(super) fn policy(file: &Metadata) -> Policy {
    if file.permissions().readonly() {
        Policy::Hold
    } else {
        Policy::ScanResistant
    }
}

fn footer(id: &BlockId, block: &Block) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.checksums.len() * 4 + FOOTER_LEN);
    for checksum in block.checksums.iter() {
        out.extend_from_slice(&checksum.to_le_bytes());
    }
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&id.file.0);
    out.extend_from_slice(&id.index.to_le_bytes());
    out.extend_from_slice(&(block.data.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c(&out).to_le_bytes());
    out
}

/// Reads `len` bytes from `offset` of a block of `block_len` bytes, with the pages around
/// them, and verifies those pages. The range lies within the block.
pub(super) fn read(
    file: &OpenFile<'_>,
    id: &BlockId,
    block_len: u32,
    offset: u32,
    len: u32,
) -> Result<Hit, ReadError> {
    let checksums = read_checksums(file, id, block_len)?;
    let first_page = offset / PAGE_SIZE;
    let end_page = page_count(offset + len).max(first_page);
    let start = u64::from(first_page) * u64::from(PAGE_SIZE);
    let end = (u64::from(end_page) * u64::from(PAGE_SIZE)).min(u64::from(block_len));
    let pages = read_exact(file, start, end.saturating_sub(start) as usize)?;
    let expected = &checksums[first_page as usize..end_page as usize];
    for (page, expected) in pages.chunks(PAGE_SIZE as usize).zip(expected) {
        if crc32c(page) != *expected {
            return Err(ReadError::Damaged("a page does not match its checksum"));
        }
    }
    let skip = if len == 0 {
        0
    } else {
        (u64::from(offset) - start) as usize
    };
    let data = Bytes::from(pages).slice(skip..skip + len as usize);
    let pieces = piece_checksums(&data, offset, block_len as usize, |page| {
        checksums[page as usize]
    });
    Ok(Hit {
        data,
        checksums: pieces,
        tier: Tier::Disk,
    })
}

/// Reads a whole block page by page and verifies it; counts the bytes.
pub(super) fn verify(file: &OpenFile<'_>, id: &BlockId, count: &Count) -> Result<(), ReadError> {
    let Some(len) = block_len(file.len()?) else {
        return Err(ReadError::Damaged("no block has a file of this length"));
    };
    let checksums = read_checksums(file, id, len)?;
    for (page, expected) in (0..).zip(checksums) {
        let start = u64::from(page * PAGE_SIZE);
        let page_len = (u64::from(len) - start).min(u64::from(PAGE_SIZE));
        let bytes = read_exact(file, start, page_len as usize)?;
        count.add(page_len);
        if crc32c(&bytes) != expected {
            return Err(ReadError::Damaged("a page does not match its checksum"));
        }
    }
    Ok(())
}

/// The checksums of a block's pages.
pub(super) fn read_checksums(
    file: &OpenFile<'_>,
    id: &BlockId,
    block_len: u32,
) -> Result<Vec<u32>, ReadError> {
    let sums_len = page_count(block_len) as usize * 4;
    let footer = read_exact(file, u64::from(block_len), sums_len + FOOTER_LEN)?;
    let (signed, sum) = footer.split_at(sums_len + FOOTER_LEN - 4);
    if crc32c(signed).to_le_bytes() != *sum {
        return Err(ReadError::Damaged("the footer does not match its checksum"));
    }
    let (sums, names) = signed.split_at(sums_len);
    let ours = names[..8] == *MAGIC
        && names[8..24] == id.file.0
        && names[24..32] == id.index.to_le_bytes()
        && names[32..36] == block_len.to_le_bytes();
    if !ours {
        return Err(ReadError::Damaged("the footer names another block"));
    }
    let (words, _) = sums.as_chunks::<4>();
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

fn read_exact(file: &OpenFile<'_>, offset: u64, len: usize) -> Result<Vec<u8>, ReadError> {
    let cut = ReadError::Damaged("the file is cut short");
    file.read(offset, len)?.ok_or(cut)
}

#[cfg(test)]
mod tests {
    use millpond_proto::FileId;
    use proptest::prelude::*;

    use super::*;

    /// Writes a new file without faults.
    fn store(path: &Path, id: &BlockId, block: &Block) {
        write(&Files::default(), path, id, block).unwrap();
    }

    fn load(path: &Path, id: &BlockId, len: u32, range: (u32, u32)) -> Result<Hit, ReadError> {
        let files = Files::default();
        read(&files.open(path)?, id, len, range.0, range.1)
    }

    proptest! {
        #[test]
        fn a_file_length_gives_the_block_length_back(len in 0u64..1 << 27) {
            prop_assert_eq!(block_len(file_len(len)), Some(len as u32));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever happened to a file, what is read of it is what was written, or nothing.
        #[test]
        fn a_file_that_was_tampered_with_reads_right_or_not_at_all(
            len in 1usize..200_000,
            damage in prop::collection::vec((any::<prop::sample::Index>(), 1..=u8::MAX), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
            more in prop::collection::vec(any::<u8>(), 0..60),
            claimed in prop::option::of(0u32..300_000),
            range in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let files = Files::default();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("block");
            let id = BlockId::new(FileId([3; 16]), 9);
            let content: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            write(&files, &path, &id, &Block::new(content.clone().into())).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            for (at, with) in &damage {
                let at = at.index(bytes.len());
                bytes[at] ^= with;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            bytes.extend_from_slice(&more);
            std::fs::write(&path, &bytes).unwrap();
            // What a scan would make of its length, or an index that is wrong.
            let found = claimed.or_else(|| block_len(bytes.len() as u64)).unwrap_or(len as u32);
            let (a, b) = (range.0.index(found as usize + 1), range.1.index(found as usize + 1));
            let (offset, count) = (a.min(b) as u32, (a.max(b) - a.min(b)) as u32);
            let file = files.open(&path).unwrap();
            if let Ok(hit) = read(&file, &id, found, offset, count) {
                let end = (offset + count) as usize;
                prop_assert_eq!(&hit.data[..], &content[offset as usize..end]);
            }
            if let Ok(checksums) = read_checksums(&file, &id, found) {
                prop_assert_eq!(checksums, millpond_proto::checksum::page_checksums(&content));
            }
        }
    }

    #[test]
    fn lengths_that_no_block_has_are_told() {
        for wrong in [0, 39, 41, 42, 43, 44] {
            assert_eq!(block_len(wrong), None, "{wrong}");
        }
        assert_eq!(block_len(file_len(65536) + 1), None);
    }

    /// The layout is on users' disks: it may change only with the format number.
    #[test]
    fn golden_block_file_is_stable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("block");
        let id = BlockId::new(FileId([0xab; 16]), 17);
        store(&path, &id, &Block::new(Bytes::from_static(b"123456789")));
        let expected = format!(
            "313233343536373839839206e3{}{}110000000000000009000000",
            hex::encode("MPBLOCK1"),
            "ab".repeat(16)
        );
        let bytes = hex::encode(std::fs::read(&path).unwrap());
        assert_eq!(bytes[..bytes.len() - 8], expected);
        let hit = load(&path, &id, 9, (2, 3)).unwrap();
        assert_eq!(hit.data, "345");
        let other = BlockId::new(FileId([0xab; 16]), 18);
        assert!(matches!(
            load(&path, &other, 9, (2, 3)),
            Err(ReadError::Damaged(_))
        ));
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("block");
        let id = BlockId::new(FileId([1; 16]), 0);
        store(&path, &id, &Block::new(Bytes::from(vec![9; 200])));
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert!(
                matches!(load(&path, &id, 200, (0, 200)), Err(ReadError::Damaged(_))),
                "byte {at}"
            );
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(matches!(
            load(&path, &id, 200, (0, 200)),
            Err(ReadError::Damaged(_))
        ));
    }
}
