//! Runs as they could have been, for what shows and compares runs.

use std::collections::BTreeMap;
use std::time::Duration;

use millpond_bench::measure::{Sample, Series, Spread};
use millpond_bench::record::{
    Better, Figure, KernelCache, Proof, Recorder, Row, RunRecord, Status,
};

/// A run of a quiet machine by a release build, with `rows`.
pub(crate) fn record(label: &str, rows: Vec<Row>) -> RunRecord {
    let settings = [("quick", "false"), ("seed", "1"), ("runs", "5")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut record = Recorder::start().record(label, BTreeMap::from(settings), rows);
    record.tool.profile = "release".to_owned();
    record.tool.modified = Some(false);
    record.noise.noisy = false;
    record.noise.why.clear();
    record
}

/// Runs of about `gb` GB/s, with latencies and throughput over time.
pub(crate) fn samples(gb: f64) -> Vec<Sample> {
    let jitter = [1.0, 0.97, 1.04, 0.99, 1.02];
    let sample = |factor: f64| {
        let mut sample = Sample {
            elapsed: Duration::from_secs(2),
            bytes: (gb * factor * 2e9) as u64,
            cpu_seconds: 1.4,
            ops: 2000,
            ..Sample::default()
        };
        for n in 0..2000u64 {
            let tail = if n % 100 == 0 { 20 } else { 1 };
            let nanos = (1.0 + n as f64 / 2000.0) * tail as f64 / gb / factor * 1e6;
            sample.latency.record(Duration::from_nanos(nanos as u64));
        }
        let wave = |slot: u32| 1.0 + 0.15 * f64::from(slot).sin();
        sample.series = Some(Series {
            slot_seconds: 0.1,
            bytes: (0..21)
                .map(|slot| (gb * factor * wave(slot) * 1e8) as u64)
                .collect(),
        });
        sample
    };
    jitter.map(sample).to_vec()
}

/// A read beside its limit.
pub(crate) fn read(case: &str, gb: f64, limit: (&str, f64)) -> Row {
    let (value, bound) = (samples(gb), samples(limit.1));
    Row::measured("read", case, Figure::Throughput, &value)
        .against(limit.0, Figure::Throughput, &bound)
        .proved(Proof {
            verified_bytes: Some(256 << 20),
            mismatches: Some(0),
            ufs_requests: Some(0),
            ufs_bytes: Some(0),
            kernel_cache: Some(KernelCache::Dropped {
                before: 256 << 20,
                after: 0,
            }),
        })
}

/// A ratio that was counted.
pub(crate) fn ratio(
    scenario: &str,
    case: &str,
    figure: &str,
    better: Better,
    values: &[f64],
) -> Row {
    let value = Spread::of(values.iter().copied()).unwrap();
    Row::of(scenario, case, figure, "ratio", better, value)
}

/// Figures of every kind, the reads `speed` times as fast as usual.
pub(crate) fn rows(speed: f64) -> Vec<Row> {
    use Better::{Higher, Lower};
    let null = ("null FUSE filesystem, same settings", 5.2);
    let local = ("the same read of a local file", 8.8);
    vec![
        read("fuse/kernel-warm/seq-1m-1job", 8.3 * speed, local),
        read("fuse/kernel-warm/mmap-1job", 5.1 * speed, local),
        read("fuse/tier-warm/seq-1m-1job", 2.1 * speed, null),
        read("fuse/tier-warm/seq-1m-4jobs", 4.7 * speed, null),
        read(
            "fuse/ring/seq-1m-4jobs",
            0.9 * speed,
            ("plain quinn, 4 in flight", 1.9),
        ),
        read(
            "fuse/cold/seq-1m-1job",
            0.41 * speed,
            ("16 parallel ranged GETs", 0.52),
        )
        .noted("shape s3-same-region: 20 ms to the first byte, 90 MB/s a stream"),
        ratio(
            "read",
            "fuse/cold/rand-4k-bytes",
            "amplification",
            Lower,
            &[1.0, 1.02, 1.0],
        ),
        ratio(
            "epochs",
            "shuffled/50",
            "hit-ratio",
            Higher,
            &[0.48, 0.49, 0.485],
        )
        .against_value("the best possible (Belady)", Spread::once(0.5)),
        ratio(
            "ring",
            "balance/10",
            "max-over-mean",
            Lower,
            &[1.05, 1.09, 1.04],
        ),
        ratio(
            "ring",
            "balance/100",
            "max-over-mean",
            Lower,
            &[1.12, 1.14, 1.12],
        ),
        ratio("herd", "16-clients", "bytes", Lower, &[1.0, 1.0, 1.0]),
        ratio("herd", "16-clients", "time", Lower, &[2.3, 2.6, 2.4]),
        Row::without(
            "read",
            "fuse/passthrough/seq-1m-1job",
            "throughput",
            Status::NotBuilt,
            "FUSE passthrough is not built yet",
        ),
        Row::without("memory", "64m", "rss", Status::Impossible, "no /dev/fuse"),
        Row::without(
            "faults",
            "restart",
            "seconds",
            Status::Failed,
            "node 2 did not come up",
        ),
    ]
}
