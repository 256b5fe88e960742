//! Bytes of which each can be computed, so that what arrives can be checked at any offset.

/// A file, or a set of blocks, whose bytes follow from a seed and repeat after a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    seed: u64,
    period: u64,
}

/// Bytes that are computed at once.
const WORD: u64 = 8;

impl Content {
    /// Bytes that repeat after `period` bytes, which are rounded up to a multiple of 8.
    pub const fn new(seed: u64, period: u64) -> Self {
        Self {
            seed,
            period: period.div_ceil(WORD) * WORD,
        }
    }

    /// The bytes from `offset` on.
    pub fn fill(&self, offset: u64, into: &mut [u8]) {
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let within = (at % WORD) as usize;
            let word = self.word(at).to_le_bytes();
            let len = rest.len().min(word.len() - within);
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(&word[within..within + len]);
            at += len as u64;
            rest = later;
        }
    }

    /// `len` bytes from `offset` on.
    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(offset, &mut bytes);
        bytes
    }

    /// How many of the bytes from `offset` on are wrong.
    pub fn mismatches(&self, offset: u64, found: &[u8]) -> u64 {
        const PIECE: usize = 64 << 10;
        let mut expected = [0; PIECE];
        let mut wrong = 0;
        for (index, found) in found.chunks(PIECE).enumerate() {
            let expected = &mut expected[..found.len()];
            self.fill(offset + (index * PIECE) as u64, expected);
            if expected != found {
                wrong += expected.iter().zip(found).filter(|(a, b)| a != b).count() as u64;
            }
        }
        wrong
    }

    /// The word that `offset` lies in, by the finaliser of SplitMix64.
    const fn word(&self, offset: u64) -> u64 {
        let index = offset % self.period / WORD;
        let mut z = index.wrapping_add(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_is_a_piece_of_the_whole_and_the_whole_repeats() {
        let content = Content::new(7, 4096);
        let whole = content.bytes(0, 10_000);
        for (offset, len) in [(0, 1), (3, 20), (8, 8), (4090, 100), (9_999, 1)] {
            assert_eq!(
                content.bytes(offset as u64, len),
                whole[offset..offset + len]
            );
        }
        assert_eq!(whole[..4096], whole[4096..8192]);
        assert_ne!(whole[..2048], whole[2048..4096]);
        assert_ne!(Content::new(8, 4096).bytes(0, 64), whole[..64]);
    }

    #[test]
    fn a_wrong_byte_and_a_wrong_place_are_found() {
        let content = Content::new(1, 1 << 20);
        let mut bytes = content.bytes(512, 200_000);
        assert_eq!(content.mismatches(512, &bytes), 0);
        bytes[150_000] ^= 1;
        assert_eq!(content.mismatches(512, &bytes), 1);
        assert!(content.mismatches(520, &bytes) > 100_000);
    }
}
