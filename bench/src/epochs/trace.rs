//! In which order each epoch reads the samples. Pure.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

/// How an epoch goes through the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Always from the first sample to the last.
    Sequential,
    /// Each epoch in a new order, as a training job does it.
    Shuffled,
}

impl Order {
    pub(super) const ALL: [Self; 2] = [Self::Shuffled, Self::Sequential];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Shuffled => "shuffled",
        }
    }

    /// The samples in the order in which epoch `epoch` reads them, each once.
    pub(super) fn epoch(self, samples: u32, epoch: usize, seed: u64) -> Vec<u32> {
        let mut order: Vec<u32> = (0..samples).collect();
        if self == Self::Shuffled {
            let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1000) + epoch as u64);
            order.shuffle(&mut random);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_reads_each_sample_once() {
        for order in Order::ALL {
            for epoch in 0..3 {
                let mut samples = order.epoch(50, epoch, 7);
                assert_eq!(samples, order.epoch(50, epoch, 7));
                samples.sort_unstable();
                assert_eq!(samples, (0..50).collect::<Vec<_>>());
            }
        }
        let shuffled = |epoch, seed| Order::Shuffled.epoch(50, epoch, seed);
        assert_ne!(shuffled(0, 7), shuffled(1, 7));
        assert_ne!(shuffled(0, 7), shuffled(0, 8));
    }
}
