//! All files as one row of numbered blocks, and the orders to visit them in. Pure.

use std::sync::Arc;

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileInfo {
    /// Relative to the directory or UFS, no leading slash.
    pub(super) path: String,
    /// Length in bytes.
    pub(super) size: u64,
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
    pub(super) fn new(files: Vec<FileInfo>, block: u64) -> Self {
        let mut starts = vec![0];
        let mut total = 0;
        for file in &files {
            total += file.size.div_ceil(block);
            starts.push(total);
        }
        Self {
            files: files.into(),
            block,
            starts,
        }
    }

    pub(super) fn blocks(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
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

/// A random order of `0..len` that needs no memory: a Feistel network over the next power of
/// four, walked until it falls inside (Black and Rogaway, Ciphers with arbitrary finite
/// domains, 2002).
#[derive(Debug, Clone, Copy)]
pub(super) struct Permutation {
    len: u64,
    half_bits: u32,
    seed: u64,
}

impl Permutation {
    pub(super) fn new(len: u64, seed: u64) -> Self {
        let bits = 64 - len.saturating_sub(1).leading_zeros();
        Self {
            len,
            half_bits: bits.div_ceil(2).max(1),
            seed,
        }
    }

    /// The element at `index`, which is less than `len`.
    pub(super) fn get(&self, index: u64) -> u64 {
        let mut at = index;
        loop {
            at = self.encrypt(at);
            if at < self.len {
                return at;
            }
        }
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for round in 0..4 {
            let mixed = mix(right ^ self.seed.rotate_left(round * 16) ^ u64::from(round)) & mask;
            (left, right) = (right, left ^ mixed);
        }
        left << self.half_bits | right
    }
}

/// The finaliser of SplitMix64.
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(sizes: &[u64], block: u64) -> Layout {
        let file = |(n, size): (usize, &u64)| FileInfo {
            path: n.to_string(),
            size: *size,
        };
        Layout::new(sizes.iter().enumerate().map(file).collect(), block)
    }

    #[test]
    fn blocks_cover_every_byte_once() {
        for sizes in [&[0, 1, 0, 10, 11, 20, 0][..], &[5], &[0], &[]] {
            let layout = layout(sizes, 10);
            let mut covered: Vec<u64> = vec![0; sizes.len()];
            for number in 0..layout.blocks() {
                let piece = layout.piece(number);
                assert_eq!(piece.offset, covered[piece.file]);
                assert!(piece.len >= 1);
                covered[piece.file] += piece.len as u64;
            }
            assert_eq!(covered, sizes);
        }
    }

    #[test]
    fn a_permutation_visits_everything_once() {
        for len in [1, 2, 3, 16, 17, 1000, 4097] {
            let order = Permutation::new(len, 7);
            let mut seen: Vec<_> = (0..len).map(|index| order.get(index)).collect();
            let sorted = (0..len).collect::<Vec<_>>();
            assert!(len < 16 || seen != sorted, "{len} is not shuffled");
            seen.sort_unstable();
            assert_eq!(seen, sorted);
        }
    }

    #[test]
    fn the_seed_chooses_the_order() {
        let order = |seed| {
            (0..100)
                .map(|i| Permutation::new(100, seed).get(i))
                .collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
