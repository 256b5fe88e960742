//! The machine that measures.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;

/// CPU time of this process so far, in user space and in the kernel.
pub(super) fn cpu_seconds() -> f64 {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| seconds(usage.user_time()) + seconds(usage.system_time()))
        .unwrap_or_default()
}

/// What the figures were measured on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cpus: usize,
    /// The processor's name.
    pub cpu: String,
    /// The kernel's release.
    pub kernel: String,
    /// Bytes of memory.
    pub memory: u64,
}

impl Machine {
    pub(super) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'))
                .map(|value| value.trim().to_owned())
        };
        let meminfo = read("/proc/meminfo");
        let memory = field(&meminfo, "MemTotal")
            .and_then(|value| value.strip_suffix(" kB")?.parse::<u64>().ok());
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory: memory.unwrap_or_default() * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let machine = Machine::this();
        assert!(machine.cpus >= 1 && machine.memory > 1 << 20, "{machine:?}");
        assert!(!machine.kernel.is_empty());
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let before = cpu_seconds();
        while cpu_seconds() - before < 0.02 {
            std::hint::black_box((0..10_000u64).sum::<u64>());
        }
    }
}
