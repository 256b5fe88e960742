//! What else the machine did while it was measured.

use std::fs;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::measure::cpu;

/// More CPU than this used by others is called noise, as a share of all CPUs.
const FOREIGN: f64 = 0.10;
/// More CPU than this taken by the hypervisor is called noise.
const STOLEN: f64 = 0.03;
/// More runnable tasks than this for each CPU before the start is called noise.
const LOAD: f64 = 0.5;

/// What disturbed a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Load average of the last minute before the start.
    pub load_before: f64,
    /// Load average of the last minute at the end, which the run itself raised.
    pub load_after: f64,
    /// Share of all CPU time that was used by processes that are not the harness's.
    pub foreign_cpu: f64,
    /// Share of all CPU time that the hypervisor gave to others.
    pub stolen_cpu: f64,
    /// Whether the figures should be taken again on a quieter machine.
    pub noisy: bool,
    /// Why, for people.
    pub why: Vec<String>,
}

/// Watches from a start to an end.
#[derive(Debug)]
pub struct NoiseMeter {
    start: Instant,
    load: f64,
    before: Ticks,
}

/// CPU time of the machine and of this process and its children, in clock ticks.
#[derive(Debug, Clone, Copy, Default)]
struct Ticks {
    busy: f64,
    stolen: f64,
    ours: f64,
}

impl NoiseMeter {
    /// From now on.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            load: load(),
            before: Ticks::now(),
        }
    }

    /// What disturbed since then. Processes that the harness started count as its own once
    /// they have ended, so it must have ended them.
    pub fn so_far(&self) -> Noise {
        let after = Ticks::now();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let hertz = rustix::param::clock_ticks_per_second() as f64;
        let all = (self.start.elapsed().as_secs_f64() * cpus * hertz).max(1.0);
        let foreign = (after.busy - self.before.busy) - (after.ours - self.before.ours);
        judge(
            Noise {
                load_before: self.load,
                load_after: load(),
                foreign_cpu: (foreign / all).clamp(0.0, 1.0),
                stolen_cpu: ((after.stolen - self.before.stolen) / all).clamp(0.0, 1.0),
                ..Noise::default()
            },
            cpus,
        )
    }
}

fn judge(mut noise: Noise, cpus: f64) -> Noise {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    if noise.foreign_cpu > FOREIGN {
        let share = percent(noise.foreign_cpu);
        noise
            .why
            .push(format!("other processes used {share} of the CPU"));
    }
    if noise.stolen_cpu > STOLEN {
        let share = percent(noise.stolen_cpu);
        noise
            .why
            .push(format!("the hypervisor took {share} of the CPU"));
    }
    if noise.load_before > LOAD * cpus {
        let load = noise.load_before;
        noise.why.push(format!(
            "the load before the start was {load:.2} on {cpus} CPUs"
        ));
    }
    noise.noisy = !noise.why.is_empty();
    noise
}

impl Ticks {
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let hertz = rustix::param::clock_ticks_per_second() as f64;
        Self {
            ours: (cpu::own_seconds() + cpu::children_seconds()) * hertz,
            ..Self::parse(&stat).unwrap_or_default()
        }
    }

    /// The first line of proc_stat(5): user nice system idle iowait irq softirq steal.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu")?;
        let ticks: Vec<f64> = line
            .split_whitespace()
            .map_while(|t| t.parse().ok())
            .collect();
        let [user, nice, system, _idle, _wait, irq, soft, stolen, ..] = ticks[..] else {
            return None;
        };
        Some(Self {
            busy: user + nice + system + irq + soft,
            stolen,
            ours: 0.0,
        })
    }
}

fn load() -> f64 {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_ticks_are_read() {
        let ticks = Ticks::parse("cpu  10 1 5 100 3 2 1 7 0 0\ncpu0 1\n").unwrap();
        assert_eq!((ticks.busy, ticks.stolen), (19.0, 7.0));
        assert!(Ticks::parse("cpu 1 2").is_none());
    }

    #[test]
    fn only_what_disturbs_is_called_noise() {
        let quiet = Noise {
            load_before: 0.3,
            foreign_cpu: 0.02,
            ..Noise::default()
        };
        assert!(!judge(quiet, 2.0).noisy);
        let loud = Noise {
            load_before: 3.0,
            foreign_cpu: 0.4,
            stolen_cpu: 0.1,
            ..Noise::default()
        };
        let loud = judge(loud, 2.0);
        assert!(loud.noisy);
        assert_eq!(loud.why.len(), 3);
    }

    #[test]
    fn a_meter_sees_this_process_as_its_own() {
        let meter = NoiseMeter::start();
        let begin = cpu::own_seconds();
        while cpu::own_seconds() - begin < 0.05 {
            std::hint::black_box((0..10_000u64).sum::<u64>());
        }
        let noise = meter.so_far();
        assert!(noise.foreign_cpu <= 1.0 && noise.stolen_cpu <= 1.0);
    }
}
