//! What chance does to each request. Pure: the number of a request decides.

use std::time::Duration;

use super::figures::Shape;

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// As the wrapped store says.
    Served,
    /// More came than the request rate allows.
    TooMany,
    /// It was chosen to fail.
    Failed,
}

/// The latency of request `number`: log-normal, with the median and the 99th percentile of
/// the shape; more than four standard deviations (one request in 30,000) count as four.
pub(super) fn latency(shape: &Shape, number: u64) -> Duration {
    if shape.latency.is_zero() {
        return Duration::ZERO;
    }
    let tail = shape.latency_p99.as_secs_f64() / shape.latency.as_secs_f64();
    let sigma = tail.ln() / Z99;
    let factor = (sigma * normal(shape.seed, number).clamp(-4.0, 4.0)).exp();
    shape.latency.mul_f64(factor)
}

/// Whether request `number` is chosen to fail.
pub(super) fn fails(shape: &Shape, number: u64) -> bool {
    uniform(shape.seed, number, 2) * 1e6 < f64::from(shape.failing_ppm)
}

/// The standard normal distribution's quantile of 0.99.
const Z99: f64 = 2.326_347_874_040_841;

/// A standard normal variate (Box and Muller, A note on the generation of random normal
/// deviates, 1958).
fn normal(seed: u64, number: u64) -> f64 {
    let radius = (-2.0 * uniform(seed, number, 0).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(seed, number, 1)).cos()
}

/// Evenly between 0 and 1, both excluded.
fn uniform(seed: u64, number: u64, lane: u64) -> f64 {
    let bits = mix(mix(seed ^ mix(number)) ^ lane);
    ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number
/// generators, 2014).
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: u64 = 20_000;

    fn shape(seed: u64) -> Shape {
        Shape {
            latency: Duration::from_millis(30),
            latency_p99: Duration::from_millis(200),
            failing_ppm: 50_000,
            seed,
            ..Shape::NONE
        }
    }

    #[test]
    fn latencies_have_the_median_and_the_tail_of_the_shape() {
        for seed in [0, 1, u64::MAX] {
            let mut drawn: Vec<_> = (0..N).map(|n| latency(&shape(seed), n)).collect();
            drawn.sort_unstable();
            let at = |share: f64| drawn[(N as f64 * share) as usize].as_secs_f64();
            assert!((at(0.5) / 0.030 - 1.0).abs() < 0.05, "{}", at(0.5));
            assert!((at(0.99) / 0.200 - 1.0).abs() < 0.15, "{}", at(0.99));
            assert!(at(0.99999) < 0.030 * (200f64 / 30.0).powf(4.0 / Z99) * 1.001);
        }
    }

    #[test]
    fn a_median_without_a_tail_is_a_constant() {
        let shape = Shape {
            latency_p99: Duration::from_millis(30),
            ..shape(3)
        };
        assert!((0..100).all(|n| latency(&shape, n) == Duration::from_millis(30)));
        assert_eq!(latency(&Shape::NONE, 3), Duration::ZERO);
    }

    #[test]
    fn as_many_fail_as_the_shape_says() {
        let failed = (0..N).filter(|n| fails(&shape(4), *n)).count() as f64;
        assert!((failed / N as f64 / 0.05 - 1.0).abs() < 0.15, "{failed}");
        let all = Shape {
            failing_ppm: 1_000_000,
            ..shape(4)
        };
        assert!((0..N).all(|n| fails(&all, n) && !fails(&Shape::NONE, n)));
    }

    #[test]
    fn the_seed_chooses() {
        let draws = |seed| {
            (0..50)
                .map(|n| latency(&shape(seed), n))
                .collect::<Vec<_>>()
        };
        assert_eq!(draws(5), draws(5));
        assert_ne!(draws(5), draws(6));
    }
}
