//! What a mount did, as `.millpond/stats` tells it.

use std::collections::BTreeMap;
use std::time::Duration;

use millpond_client::ClientStats;
use serde::{Deserialize, Serialize};

use super::refresh::RefreshStats;
use crate::latency::LatencyCounts;
use crate::shared::Shared;

/// What a mount did since it was made. All counters only grow.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// How long it is mounted.
    pub uptime_seconds: f64,
    /// Requests from the kernel, of all kinds.
    pub requests: u64,
    /// Bytes of file data given to the kernel.
    pub read_bytes: u64,
    /// Reads that took 100 ms or more.
    pub stalls: u64,
    /// The part of the bytes read that came from local memory or disk, 0 to 1.
    pub local_share: Option<f64>,
    /// Inodes that the kernel knows.
    pub inodes: u64,
    /// Files that are open, as far as the kernel tells; where it opens files by itself, those
    /// that were read lately.
    pub open_files: u64,
    /// Directories that are open.
    pub open_directories: u64,
    /// Memory of the whole process.
    pub resident_bytes: u64,
    /// What the client library counts: sources of bytes, prefetching, memory for data.
    pub client: ClientStats,
    /// What was written to `refresh`.
    pub refreshed: RefreshStats,
    /// Requests by kind.
    pub operations: BTreeMap<String, OperationStats>,
}

/// Requests of one kind.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperationStats {
    /// How many.
    pub requests: u64,
    /// How many failed.
    pub errors: u64,
    /// The time that half of them stayed below.
    pub p50_us: Option<u64>,
    /// The time that 99 of 100 stayed below.
    pub p99_us: Option<u64>,
    /// How many took how long.
    pub latency_us: LatencyCounts,
}

impl Stats {
    pub(super) fn of(shared: &Shared, uptime: Duration) -> Self {
        let client = shared.fs.stats();
        let bytes = client.read_bytes;
        let local = bytes.memory + bytes.disk;
        Self {
            uptime_seconds: uptime.as_secs_f64(),
            requests: shared.metrics.requests(),
            read_bytes: shared.metrics.read_bytes(),
            stalls: shared.metrics.stalls(),
            local_share: (bytes.total() > 0).then(|| local as f64 / bytes.total() as f64),
            inodes: shared.inodes.lock().len() as u64,
            open_files: (shared.files.len() + shared.held.len()) as u64,
            open_directories: shared.dirs.len() as u64,
            resident_bytes: resident().unwrap_or_default(),
            client,
            refreshed: shared.control.inbox.refreshed.stats(),
            operations: shared.metrics.operations(),
        }
    }
}

/// Memory of this process in bytes.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
