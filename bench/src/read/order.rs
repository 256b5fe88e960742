//! The orders in which numbered blocks are visited: each once. Pure.

use super::args::Pattern;

/// An order of `0..len` that needs no memory.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Sequential,
    Random(Shuffled),
    Strided(Strides),
}

impl Order {
    pub(super) const fn new(pattern: Pattern, len: u64, seed: u64, stride: u64) -> Self {
        match pattern {
            Pattern::Sequential => Self::Sequential,
            Pattern::Random => Self::Random(Shuffled::new(len, seed)),
            Pattern::Strided => Self::Strided(Strides { len, stride }),
        }
    }

    /// The block to visit as number `index`, which is less than `len`.
    pub(super) fn get(&self, index: u64) -> u64 {
        match self {
            Self::Sequential => index,
            Self::Random(shuffled) => shuffled.get(index),
            Self::Strided(strides) => strides.get(index),
        }
    }
}

/// A random order that needs no memory: a Feistel network over the next power of four, walked
/// until it falls inside (Black and Rogaway, Ciphers with arbitrary finite domains, 2002).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shuffled {
    len: u64,
    half_bits: u32,
    seed: u64,
}

impl Shuffled {
    /// The order of `0..len` that `seed` gives.
    pub(crate) const fn new(len: u64, seed: u64) -> Self {
        let bits = 64 - len.saturating_sub(1).leading_zeros();
        let half_bits = bits.div_ceil(2);
        Self {
            len,
            half_bits: if half_bits == 0 { 1 } else { half_bits },
            seed,
        }
    }

    /// The element at `index`, which is less than `len`.
    pub(crate) const fn get(&self, index: u64) -> u64 {
        let mut at = self.encrypt(index);
        while at >= self.len {
            at = self.encrypt(at);
        }
        at
    }

    const fn encrypt(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        let mut round = 0;
        while round < 4 {
            let key = self.seed.rotate_left(round * 16) ^ round as u64;
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
            round += 1;
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

/// Every `stride`-th block from the first on, then every one from the second on, and so on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strides {
    len: u64,
    /// At least 1.
    stride: u64,
}

impl Strides {
    /// Blocks in rows of `stride`, visited column by column. The first columns are longer by
    /// one where the last row is short.
    const fn get(self, index: u64) -> u64 {
        let (rows, rest) = (self.len / self.stride, self.len % self.stride);
        let in_long = rest * (rows + 1);
        if index < in_long {
            return index % (rows + 1) * self.stride + index / (rows + 1);
        }
        let index = index - in_long;
        // There are short columns only where there is a whole row.
        index % rows * self.stride + rest + index / rows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_block_is_visited_once(len in 1u64..500, seed: u64, stride in 1u64..600) {
            for pattern in [Pattern::Sequential, Pattern::Random, Pattern::Strided] {
                let order = Order::new(pattern, len, seed, stride);
                let mut seen: Vec<_> = (0..len).map(|index| order.get(index)).collect();
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..len).collect::<Vec<_>>());
            }
        }

        #[test]
        fn the_seed_chooses_the_random_order(seed: u64) {
            let order = |seed| (0..100).map(|at| Shuffled::new(100, seed).get(at)).collect::<Vec<_>>();
            prop_assert_eq!(order(seed), order(seed));
            prop_assert_ne!(order(seed), order(seed.wrapping_add(1)));
            prop_assert!(!order(seed).is_sorted());
        }

        #[test]
        fn strides_go_forward_by_the_stride_until_they_start_over(
            len in 2u64..500,
            stride in 1u64..20,
        ) {
            let order = Order::new(Pattern::Strided, len, 0, stride);
            for index in 1..len {
                let (before, now) = (order.get(index - 1), order.get(index));
                prop_assert!(now == before + stride || (now < stride && before + stride >= len));
            }
        }
    }
}
