//! All files as one row of numbered blocks. Pure.

use std::sync::Arc;

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileInfo {
    /// Relative to the directory or store, no leading slash.
    pub(crate) path: String,
    /// Length in bytes.
    pub(crate) size: u64,
}

/// One read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Index of the file.
    pub(super) file: usize,
    /// Where in the file.
    pub(super) offset: u64,
    /// At least 1.
    pub(super) len: usize,
}

/// Blocks of one size over all files that are not empty; the last of each file is short.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) files: Arc<[FileInfo]>,
    block: u64,
    /// The number of the first block of each file, and the number of all blocks.
    starts: Vec<u64>,
}

impl Layout {
    /// `block` is at least 1.
    pub(super) fn new(files: &Arc<[FileInfo]>, block: u64) -> Self {
        let mut starts = vec![0];
        let mut total = 0;
        for file in &**files {
            total += file.size.div_ceil(block);
            starts.push(total);
        }
        Self {
            files: Arc::clone(files),
            block,
            starts,
        }
    }

    pub(super) fn blocks(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    pub(super) const fn block(&self) -> u64 {
        self.block
    }

    /// Block `number`, which is less than [`blocks`](Self::blocks).
    pub(super) fn piece(&self, number: u64) -> Piece {
        // The last file that starts at or before it: files without blocks start where the
        // next one does.
        let file = self.starts.partition_point(|start| *start <= number) - 1;
        let offset = (number - self.starts[file]) * self.block;
        let len = self.block.min(self.files[file].size - offset);
        Piece {
            file,
            offset,
            len: len as usize,
        }
    }
}

/// The bytes of all files.
pub(super) fn total(files: &[FileInfo]) -> u64 {
    files.iter().map(|file| file.size).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_cover_every_byte_once(
            sizes in prop::collection::vec(0u64..50, 0..12),
            block in 1u64..20,
        ) {
            let file = |(n, size): (usize, &u64)| FileInfo {
                path: n.to_string(),
                size: *size,
            };
            let files: Arc<[FileInfo]> = sizes.iter().enumerate().map(file).collect();
            let layout = Layout::new(&files, block);
            let mut covered = vec![0; sizes.len()];
            for number in 0..layout.blocks() {
                let piece = layout.piece(number);
                prop_assert_eq!(piece.offset, covered[piece.file]);
                prop_assert!(piece.len >= 1);
                covered[piece.file] += piece.len as u64;
            }
            prop_assert_eq!(&covered, &sizes);
            prop_assert_eq!(total(&files), sizes.iter().sum::<u64>());
        }
    }
}
