//! The machine that measures.

use std::fs;

use serde::{Deserialize, Serialize};

/// What the figures were measured on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// This one.
    pub fn this() -> Self {
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
}
