//! `millpond stats`: what a mount does, second by second.

use std::path::PathBuf;
use std::time::Duration;

use millpond_client::SourceBytes;
use millpond_fuse::LatencyCounts;
use millpond_fuse::control::Stats;
use serde::Serialize;

use crate::mounted::OurMount;
use crate::output::{self, human};

/// Shows what a mount does: one line for each second.
///
/// ops/s are requests from the kernel; what the kernel answers from its own pages is not among
/// them. The shares are of the bytes read in that second: from the mount's memory and disk,
/// from cache nodes, from the store. p99 is of reads; a stall is a read of 100 ms or more;
/// ahead is what was fetched for a hint list and not read yet.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond stats /mnt/data
  millpond stats /mnt/data --count 10 --json")]
pub(crate) struct StatsArgs {
    /// A mount, or a path in it
    dir: PathBuf,
    /// Print one JSON object for each second
    #[arg(long)]
    json: bool,
    /// End after so many lines
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// One second of a mount.
#[derive(Debug, Serialize)]
struct Second {
    /// How long it really was.
    seconds: f64,
    operations_per_second: f64,
    bytes_per_second: f64,
    /// Of the bytes read, by where they came from; none if nothing was read.
    share: Option<Shares>,
    read_p50_us: Option<u64>,
    read_p99_us: Option<u64>,
    stalls: u64,
    prefetch_bytes_ahead: u64,
    prefetch_errors: u64,
    resident_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Shares {
    memory: f64,
    disk: f64,
    peer: f64,
    ufs: f64,
}

/// Lines between two headers.
const HEADER_EVERY: u64 = 20;

pub(crate) async fn run(args: StatsArgs) -> anyhow::Result<()> {
    let mount = OurMount::around(&args.dir)?;
    let mut before = mount.stats()?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    for line in 0..args.count.unwrap_or(u64::MAX) {
        ticks.tick().await;
        let now = mount.stats()?;
        let second = Second::between(&before, &now);
        if args.json {
            output::line(serde_json::to_string(&second)?)?;
        } else {
            if line % HEADER_EVERY == 0 {
                output::line(HEADER)?;
            }
            output::line(second.line())?;
        }
        before = now;
    }
    Ok(())
}

const HEADER: &str =
    "    ops/s      read/s  memory   disk   peer  store       p99  stalls      ahead   resident";

impl Second {
    fn between(before: &Stats, now: &Stats) -> Self {
        let seconds = (now.uptime_seconds - before.uptime_seconds).max(1e-3);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let reads = |stats: &Stats| {
            let reads = stats.operations.get("read");
            reads.map_or_else(LatencyCounts::default, |read| read.latency_us.clone())
        };
        let latency = reads(now).since(&reads(before));
        Self {
            seconds,
            operations_per_second: rate(now.requests, before.requests),
            bytes_per_second: rate(now.read_bytes, before.read_bytes),
            share: Shares::between(before.client.read_bytes, now.client.read_bytes),
            read_p50_us: latency.quantile(0.5),
            read_p99_us: latency.quantile(0.99),
            stalls: now.stalls.saturating_sub(before.stalls),
            prefetch_bytes_ahead: now.client.prefetch.bytes_ahead,
            prefetch_errors: now
                .client
                .prefetch
                .errors
                .saturating_sub(before.client.prefetch.errors),
            resident_bytes: now.resident_bytes,
        }
    }

    fn line(&self) -> String {
        let share = |of: fn(&Shares) -> f64| {
            let share = self.share.as_ref().map(of);
            share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0))
        };
        format!(
            "{:>9.0} {:>11} {:>7} {:>6} {:>6} {:>6} {:>9} {:>7} {:>10} {:>10}",
            self.operations_per_second,
            human(self.bytes_per_second as u64),
            share(|s| s.memory),
            share(|s| s.disk),
            share(|s| s.peer),
            share(|s| s.ufs),
            self.read_p99_us.map_or_else(|| "-".to_owned(), time),
            self.stalls,
            human(self.prefetch_bytes_ahead),
            human(self.resident_bytes),
        )
    }
}

impl Shares {
    fn between(before: SourceBytes, now: SourceBytes) -> Option<Self> {
        let total = now.total().saturating_sub(before.total());
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 / total as f64;
        (total > 0).then(|| Self {
            memory: share(now.memory, before.memory),
            disk: share(now.disk, before.disk),
            peer: share(now.peer, before.peer),
            ufs: share(now.ufs, before.ufs),
        })
    }
}

/// Microseconds for people.
fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use millpond_fuse::control::OperationStats;

    use super::*;

    fn stats(uptime: f64, bytes: u64, reads: u64) -> Stats {
        let mut stats = Stats {
            uptime_seconds: uptime,
            requests: reads * 2,
            read_bytes: bytes,
            stalls: reads / 100,
            ..Stats::default()
        };
        stats.client.read_bytes.memory = bytes / 4;
        stats.client.read_bytes.ufs = bytes - bytes / 4;
        let read = OperationStats {
            latency_us: LatencyCounts(vec![(100, reads)]),
            ..OperationStats::default()
        };
        stats.operations.insert("read".to_owned(), read);
        stats
    }

    #[test]
    fn a_line_is_what_happened_in_between() {
        let second = Second::between(&stats(1.0, 1000, 100), &stats(3.0, 9000, 300));
        assert_eq!(
            (second.operations_per_second, second.bytes_per_second),
            (200.0, 4000.0)
        );
        assert_eq!((second.read_p99_us, second.stalls), (Some(100), 2));
        let share = second.share.as_ref().unwrap();
        assert_eq!((share.memory, share.ufs, share.disk), (0.25, 0.75, 0.0));
        let line = second.line();
        assert!(line.contains("25 %") && line.contains("100 us"), "{line}");
        assert_eq!(line.len(), HEADER.len(), "{line}");
    }

    #[test]
    fn a_quiet_second_has_no_shares() {
        let second = Second::between(&stats(1.0, 5, 1), &stats(2.0, 5, 1));
        assert!(second.share.is_none() && second.read_p99_us.is_none());
        assert_eq!(second.line().len(), HEADER.len());
    }
}
