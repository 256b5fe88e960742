//! CPU time of this process and of others.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// CPU time that this process and some others use from a moment on, in user space and in the
/// kernel.
#[derive(Debug, Clone)]
pub struct CpuMeter {
    others: Vec<u32>,
    start: f64,
}

impl CpuMeter {
    /// Starts to count for this process and the processes `others`.
    pub fn start(others: &[u32]) -> Self {
        let mut meter = Self {
            others: others.to_vec(),
            start: 0.0,
        };
        meter.start = meter.total();
        meter
    }

    /// Seconds since the start. A process that ended in between counts for nothing.
    pub fn seconds(&self) -> f64 {
        (self.total() - self.start).max(0.0)
    }

    fn total(&self) -> f64 {
        own_seconds()
            + self
                .others
                .iter()
                .filter_map(|pid| seconds_of(*pid))
                .sum::<f64>()
    }
}

/// CPU time of this process so far.
pub fn own_seconds() -> f64 {
    usage(UsageWho::RUSAGE_SELF)
}

/// CPU time of the children that have ended and were waited for.
pub fn children_seconds() -> f64 {
    usage(UsageWho::RUSAGE_CHILDREN)
}

fn usage(who: UsageWho) -> f64 {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(who)
        .map(|usage| seconds(usage.user_time()) + seconds(usage.system_time()))
        .unwrap_or_default()
}

/// CPU time of another process so far, to within a clock tick (10 ms); `None` once it is gone.
pub fn seconds_of(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    ticks(&stat).map(|ticks| ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Fields 14 and 15 of proc_pid_stat(5). The name before them may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(number(11)? + number(12)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_grows_with_work() {
        let meter = CpuMeter::start(&[]);
        while meter.seconds() < 0.02 {
            std::hint::black_box((0..10_000u64).sum::<u64>());
        }
    }

    #[test]
    fn another_process_is_read_whatever_its_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 21 12 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(33));
        assert!(seconds_of(std::process::id()).is_some());
        assert_eq!(seconds_of(u32::MAX), None);
    }
}
