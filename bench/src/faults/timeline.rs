//! Every read of a run with its time, and what that says about a fault.

use std::time::Duration;

use crate::measure::{Histogram, Series};

/// Over which time throughput and p99 are judged.
const WINDOW: Duration = Duration::from_secs(1);
/// How far windows begin apart.
const STEP: Duration = Duration::from_millis(100);
/// Within this factor of before is as good as before.
const GOOD: f64 = 1.2;
/// Length of a slot of the plot.
const SLOT: Duration = Duration::from_millis(100);

/// One read. Times are since the beginning of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    /// When it ended.
    pub(crate) end: Duration,
    /// How long it took.
    pub(crate) took: Duration,
    /// The bytes that it brought; none if it failed.
    pub(crate) bytes: u32,
}

/// The reads of a run, and when the fault was.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeline {
    reads: Vec<Read>,
    fault: Duration,
    heal: Duration,
    end: Duration,
}

/// Throughput and p99 of a time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct State {
    bytes: u64,
    p99: Duration,
}

impl Timeline {
    /// The reads of all workers; a fault from `fault` to `heal`, watched from 0 to `end`.
    pub(super) fn new(
        mut reads: Vec<Read>,
        fault: Duration,
        heal: Duration,
        end: Duration,
    ) -> Self {
        reads.sort_unstable_by_key(|read| read.end);
        Self {
            reads,
            fault,
            heal: heal.max(fault),
            end: end.max(heal),
        }
    }

    /// Latencies of the reads that ended before the fault.
    pub(super) fn before(&self) -> Histogram {
        latencies(self.reads.iter().filter(|read| read.end < self.fault))
    }

    /// Latencies of the reads that were under way at any moment of the fault.
    pub(super) fn during(&self) -> Histogram {
        let meets = |read: &&Read| read.end >= self.fault && read.end - read.took < self.heal;
        latencies(self.reads.iter().filter(meets))
    }

    /// The longest read of those that ended after the fault began.
    pub(super) fn stall(&self) -> Duration {
        let after = self.reads.iter().filter(|read| read.end >= self.fault);
        after.map(|read| read.took).max().unwrap_or_default()
    }

    /// Bytes per second during the fault over bytes per second before it.
    pub(super) fn throughput_kept(&self) -> f64 {
        let rate = |from: Duration, to: Duration| {
            self.state(from, to).bytes as f64 / (to - from).as_secs_f64()
        };
        rate(self.fault, self.heal) / rate(Duration::ZERO, self.fault)
    }

    /// How long after `since` begins the first whole second in which throughput and p99 are
    /// within a factor of 1.2 of the worst second before the fault; none if there is none.
    ///
    /// Seconds of the same length are compared because the p99 of few reads is a maximum: it
    /// varies from second to second where nothing happens.
    fn recovery(&self, since: Duration) -> Option<Duration> {
        let before: Vec<State> = windows(Duration::ZERO, self.fault)
            .map(|(from, to)| self.state(from, to))
            .collect();
        let least = before.iter().map(|state| state.bytes).min()? as f64 / GOOD;
        let most = before.iter().map(|state| state.p99).max()?.mul_f64(GOOD);
        let good = |state: State| state.bytes as f64 >= least && state.p99 <= most;
        windows(since, self.end)
            .find(|(from, to)| good(self.state(*from, *to)))
            .map(|(from, _)| from - since)
    }

    /// How long the fault was felt, whether it went on or not.
    pub(super) fn recovered_after(&self) -> Option<Duration> {
        self.recovery(self.fault)
    }

    /// How long the end of the fault was felt.
    pub(super) fn recovered_after_heal(&self) -> Option<Duration> {
        self.recovery(self.heal)
    }

    /// How long it was watched from the fault on.
    pub(super) fn watched(&self) -> Duration {
        self.end - self.fault.min(self.end)
    }

    /// Bytes over time, for a plot.
    pub(super) fn series(&self) -> Series {
        let slots = self.end.as_nanos().div_ceil(SLOT.as_nanos()).max(1);
        let mut bytes = vec![0; usize::try_from(slots).unwrap_or(1)];
        for read in &self.reads {
            let slot = usize::try_from(read.end.as_nanos() / SLOT.as_nanos()).unwrap_or(usize::MAX);
            if let Some(slot) = bytes.get_mut(slot) {
                *slot += u64::from(read.bytes);
            }
        }
        Series {
            slot_seconds: SLOT.as_secs_f64(),
            bytes,
        }
    }

    /// Bytes that arrived within a time, and the p99 of the reads that were under way in it: a
    /// read that hangs through the whole time counts.
    fn state(&self, from: Duration, to: Duration) -> State {
        let first = self.reads.partition_point(|read| read.end < from);
        let rest = &self.reads[first..];
        let ended = rest.partition_point(|read| read.end < to);
        let bytes = rest[..ended].iter().map(|read| u64::from(read.bytes));
        let under_way = rest.iter().filter(|read| read.end - read.took < to);
        State {
            bytes: bytes.sum(),
            p99: p99(under_way.map(|read| read.took).collect()),
        }
    }
}

/// All windows from a time to a time.
fn windows(from: Duration, to: Duration) -> impl Iterator<Item = (Duration, Duration)> {
    let starts = (0..).map(move |n| from + STEP * n);
    starts
        .map(|start| (start, start + WINDOW))
        .take_while(move |(_, end)| *end <= to)
}

fn latencies<'a>(reads: impl Iterator<Item = &'a Read>) -> Histogram {
    let mut histogram = Histogram::new();
    for read in reads {
        histogram.record(read.took);
    }
    histogram
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    let rank = (took.len() * 99).div_ceil(100).saturating_sub(1);
    took.get(rank).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
