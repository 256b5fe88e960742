//! Hashing of numbers that are spread well already.

use std::hash::{BuildHasherDefault, Hasher};

/// Hashes inode numbers: they come out of a keyed hash, so that what is left to do is to move
/// their entropy to where a hash map looks for it.
pub(super) type Spread = BuildHasherDefault<Multiply>;

/// Multiplies by 2^64 over the golden ratio.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
