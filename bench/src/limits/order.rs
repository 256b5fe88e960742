//! Every number once, in an order that a seed gives, without a list of them.

/// A permutation of `0..len`, by a Feistel network that is walked until it lands inside.
#[derive(Debug, Clone)]
pub(super) struct Order {
    len: u64,
    half: u32,
    seed: u64,
}

const ROUNDS: u32 = 4;

impl Order {
    /// The order of `0..len` that `seed` gives.
    pub(super) const fn new(len: u64, seed: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let half = bits.div_ceil(2);
        Self {
            len,
            half: if half == 0 { 1 } else { half },
            seed,
        }
    }

    /// The number at `index`, which must be less than the length.
    pub(super) fn get(&self, index: u64) -> u64 {
        debug_assert!(index < self.len, "{index} is not below {}", self.len);
        let mut at = self.shuffle(index);
        while at >= self.len {
            at = self.shuffle(at);
        }
        at
    }

    fn shuffle(&self, value: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (value >> self.half, value & mask);
        for round in 0..ROUNDS {
            let key = self.seed.rotate_left(round * 16) ^ u64::from(round);
            let mixed = (right ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            (left, right) = (right, (left ^ mixed) & mask);
        }
        left << self.half | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_once_and_shuffled() {
        for len in [1, 2, 3, 100, 4096, 5000] {
            let order = Order::new(len, 11);
            let mut all: Vec<_> = (0..len).map(|index| order.get(index)).collect();
            assert!(len < 100 || !all.is_sorted());
            all.sort_unstable();
            assert_eq!(all, (0..len).collect::<Vec<_>>());
        }
    }
}
