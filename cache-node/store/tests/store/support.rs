//! Blocks whose content follows from their id, and ways to look at a directory.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use millpond_proto::checksum::{crc32c, pieces};
use millpond_proto::{BlockId, FileId};
use millpond_store::{Block, Hit, StoreStats};

/// Block `index` of the file with this number.
pub(crate) fn id(file: u8, index: u64) -> BlockId {
    let mut bytes = [0x5a; 16];
    bytes[0] = file;
    bytes[1] = file.wrapping_mul(17);
    BlockId::new(FileId(bytes), index)
}

/// The only right content of a block of `len` bytes.
pub(crate) fn content(id: &BlockId, len: usize) -> Vec<u8> {
    let mut state = u64::from(id.file.0[0]) * 1_000_003 + id.index * 7919 + 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

pub(crate) fn block(id: &BlockId, len: usize) -> Block {
    Block::new(Bytes::from(content(id, len)))
}

/// The hit holds exactly these bytes of the block, with matching checksums.
pub(crate) fn assert_right(hit: &Hit, id: &BlockId, block_len: usize, offset: u32) {
    let start = offset as usize;
    let expected = &content(id, block_len)[start..start + hit.data.len()];
    assert!(hit.data == expected, "wrong bytes of {id}");
    let sums: Vec<u32> = pieces(offset, hit.data.len() as u32)
        .map(|p| crc32c(&hit.data[p.start as usize..(p.start + p.len) as usize]))
        .collect();
    assert_eq!(hit.checksums, sums, "wrong checksums of {id}");
}

/// Bytes that all block files below `dir` take on disk, those being written included.
pub(crate) fn disk_usage(dir: &Path) -> u64 {
    block_files(dir)
        .iter()
        .filter_map(|path| std::fs::metadata(path).ok())
        .map(|m| (m.blocks() * 512).max(m.size().next_multiple_of(4096)))
        .sum()
}

/// Every file below `dir` except marker and lock.
pub(crate) fn block_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if next != dir {
                files.push(path);
            }
        }
    }
    files
}

/// Nothing was lost silently: every insert into the disk tier has an outcome, and every block
/// that was ever on disk is there or has left for a reason. Holds while nothing is being
/// written.
pub(crate) fn assert_accounted(stats: &StoreStats, inserts: u64) {
    let outcomes =
        stats.disk_writes + stats.disk_present + stats.disk_overtaken + stats.disk_refused.total();
    assert_eq!(outcomes, inserts, "{stats:?}");
    let left = stats.disk_evictions + stats.disk_dropped + stats.disk_removed + stats.disk_lost;
    let came = stats.disk_found + stats.disk_writes;
    assert_eq!(came, stats.disk_blocks + left, "{stats:?}");
}
