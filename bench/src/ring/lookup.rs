//! What a lookup costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use millpond_proto::ring::VNODES;
use millpond_proto::{BlockId, Ring};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::SCENARIO;
use super::clusters::{blocks, ring};
use crate::measure::{Arm, CpuMeter, Sample, interleave};
use crate::record::{Figure, Row};
use crate::scenario::Context;

/// Different blocks that are looked up; they fit into the processor's second-level cache.
const BLOCKS: usize = 1 << 14;
/// Owners of a replicated block.
const REPLICAS: usize = 3;
/// A run without a natural end takes this share of `--duration`.
const SHARE: u32 = 10;

/// Lookups of the first owner and of three owners for each size, each beside one binary search
/// in a plain array of as many points: what finding the first owner cannot do without.
pub(super) fn rows(context: &Context, sizes: &[usize]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &nodes in sizes {
        let (one, replicas) = (
            format!("lookup/{nodes}"),
            format!("lookup-{REPLICAS}/{nodes}"),
        );
        if context.wanted.wants(&one) || context.wanted.wants(&replicas) {
            context.step(format!("lookups in a ring of {nodes} nodes"));
            let measured = measure(context, nodes, [&one, &replicas])?;
            let wanted = measured
                .into_iter()
                .filter(|row| context.wanted.wants(&row.case));
            rows.extend(wanted);
        }
    }
    Ok(rows)
}

fn measure(context: &Context, nodes: usize, cases: [&str; 2]) -> Result<Vec<Row>> {
    let ring = ring(1..=nodes as u64);
    let blocks: Vec<BlockId> = blocks(context.seed, BLOCKS).collect();
    let mut random = StdRng::seed_from_u64(context.seed);
    let mut points: Vec<u64> = (0..nodes * VNODES as usize)
        .map(|_| random.random())
        .collect();
    points.sort_unstable();
    let keys: Vec<u64> = (0..BLOCKS).map(|_| random.random()).collect();

    let length = (context.duration / SHARE).max(Duration::from_millis(1));
    let samples = interleave(
        context.runs,
        &mut [
            Arm::new("first owners", |_| {
                Ok(timed(length, &blocks, |block| owner(&ring, block)))
            }),
            Arm::new("owners", |_| {
                Ok(timed(length, &blocks, |block| owners(&ring, block)))
            }),
            Arm::new("binary search", |_| {
                Ok(timed(length, &keys, |key| {
                    points.partition_point(|point| point < key)
                }))
            }),
        ],
    )?;
    let [one, replicas, search] = &samples[..] else {
        return Ok(Vec::new());
    };
    let rows = cases
        .into_iter()
        .zip([one, replicas])
        .map(|(case, samples)| {
            let figure = Figure::Ops("lookups/s");
            let row = Row::measured(SCENARIO, case, figure, samples);
            let nanos = row
                .value
                .as_ref()
                .map_or(f64::NAN, |rate| 1e9 / rate.median);
            row.with("ns", nanos)
                .with("points", points.len() as f64)
                .against(
                    "one binary search in an array of as many points",
                    figure,
                    search,
                )
        });
    Ok(rows.collect())
}

fn owner(ring: &Ring, block: &BlockId) -> usize {
    ring.owner(block).map_or(0, |node| node.0 as usize)
}

fn owners(ring: &Ring, block: &BlockId) -> usize {
    ring.owners(block, REPLICAS).as_slice().len()
}

/// Calls `f` for all of `keys` again and again for about `length`.
fn timed<T>(length: Duration, keys: &[T], f: impl Fn(&T) -> usize) -> Sample {
    let cpu = CpuMeter::start(&[]);
    let start = Instant::now();
    let mut ops = 0;
    loop {
        for key in keys {
            black_box(f(black_box(key)));
        }
        ops += keys.len() as u64;
        if start.elapsed() >= length {
            break;
        }
    }
    let elapsed = start.elapsed();
    Sample {
        elapsed,
        ops,
        cpu_seconds: cpu.seconds(),
        ..Sample::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_called_and_counted() {
        let calls = std::cell::Cell::new(0);
        let sample = timed(Duration::from_nanos(1), &[1, 2, 3], |_| {
            calls.set(calls.get() + 1);
            0
        });
        assert_eq!(sample.ops, calls.get());
        assert!(sample.ops >= 3 && sample.ops % 3 == 0);
    }
}
