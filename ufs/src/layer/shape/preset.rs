//! Shapes of stores that exist, and where their figures come from.
//!
//! | preset | median, p99 | a stream | in total | requests |
//! |---|---|---|---|---|
//! | `none` | | | | |
//! | `s3-same-region` | 30 ms, 200 ms | 85 MB/s | 1.25 GB/s | 5,500/s |
//! | `s3-cross-region` | 100 ms, 300 ms | 40 MB/s | 625 MB/s | 5,500/s |
//! | `s3-express` | 5 ms, 10 ms | 85 MB/s | 1.25 GB/s | 2,000,000/s |
//!
//! - Latency of S3 Standard: "roughly 100–200 milliseconds" is what AWS tells applications to
//!   expect of small objects and of first bytes
//!   (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html>).
//!   Those who measured found that in the tail only: J. Snyder 15 ms to the first byte
//!   (<https://josnyder.com/blog/2023/s3_observations.html>), turbopuffer a median of 63 ms for
//!   a GET (<https://turbopuffer.com/docs/architecture>), Durner, Leis and Neumann less than one
//!   first byte in 20 after more than 200 ms (Exploiting Cloud Object Storage for
//!   High-Performance Analytics, PVLDB 16(11), 2023,
//!   <https://www.vldb.org/pvldb/vol16/p2769-durner.pdf>). Hence 30 ms for the median, the
//!   geometric middle of the two, and the upper end of what AWS says for the 99th percentile.
//!   Latencies of object stores are about log-normal
//!   (<https://spiraldb.com/post/so-you-want-to-use-object-storage>).
//! - Across regions: that plus a round trip, 60 ms to 90 ms between the east and the west of
//!   the United States (88 ms: <https://edge-cloud.net/2013/06/28/tcp-throughput-amazon-aws-regions/>).
//! - S3 Express One Zone: "consistent single-digit millisecond" first bytes
//!   (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-express-performance.html>);
//!   AWS names no percentile.
//! - A stream: AWS advises "one concurrent request for each 85–90 MB/s of desired network
//!   throughput"
//!   (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-design-patterns.html>);
//!   the paper above measured 25 MiB/s to 95 MiB/s. For S3 Express AWS gives no other figure.
//!   Across regions a stream has half a receive window of 6 MiB (Linux's `tcp_rmem`) per round
//!   trip of 80 ms.
//! - In total: S3 has no limit, the network of an instance has: 10 Gbit/s for a common one, and
//!   5 Gbit/s to other regions below 32 vCPUs
//!   (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-network-bandwidth.html>).
//! - Requests: "at least 5,500 GET/HEAD requests per second per partitioned prefix" (the first
//!   page above); the whole store counts as one prefix. S3 Express: "up to 2 million reads" per
//!   second (its page above).

use std::time::Duration;

use super::figures::Shape;

const PRESETS: &[(&str, Shape)] = &[
    ("none", Shape::NONE),
    (
        "s3-same-region",
        Shape {
            latency: Duration::from_millis(30),
            latency_p99: Duration::from_millis(200),
            stream_bandwidth: Some(85_000_000),
            total_bandwidth: Some(1_250_000_000),
            request_rate: Some(5_500),
            ..Shape::NONE
        },
    ),
    (
        "s3-cross-region",
        Shape {
            latency: Duration::from_millis(100),
            latency_p99: Duration::from_millis(300),
            stream_bandwidth: Some(40_000_000),
            total_bandwidth: Some(625_000_000),
            request_rate: Some(5_500),
            ..Shape::NONE
        },
    ),
    (
        "s3-express",
        Shape {
            latency: Duration::from_millis(5),
            latency_p99: Duration::from_millis(10),
            stream_bandwidth: Some(85_000_000),
            total_bandwidth: Some(1_250_000_000),
            request_rate: Some(2_000_000),
            ..Shape::NONE
        },
    ),
];

/// The preset of that name.
pub(super) fn named(name: &str) -> Option<Shape> {
    let found = PRESETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, shape)| *shape)
}

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}
