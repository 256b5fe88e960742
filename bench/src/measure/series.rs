//! Throughput over time: bytes in slots of equal length.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Bytes of each slot of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Length of a slot in seconds.
    pub slot_seconds: f64,
    /// Bytes that arrived in each.
    pub bytes: Vec<u64>,
}

/// Records a [`Series`] from many threads without a lock.
#[derive(Debug)]
pub struct SeriesRecorder {
    start: Instant,
    slot: Duration,
    slots: Box<[AtomicU64]>,
}

impl SeriesRecorder {
    /// From now on, `slots` slots of `slot` each; what comes later counts in the last.
    pub fn new(slot: Duration, slots: usize) -> Self {
        Self {
            start: Instant::now(),
            slot: slot.max(Duration::from_millis(1)),
            slots: (0..slots.max(1)).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts bytes that arrived at `now`.
    pub fn add(&self, now: Instant, bytes: u64) {
        let since = now.saturating_duration_since(self.start).as_nanos();
        let slot = usize::try_from(since / self.slot.as_nanos()).unwrap_or(usize::MAX);
        self.slots[slot.min(self.slots.len() - 1)].fetch_add(bytes, Ordering::Relaxed);
    }

    /// The slots up to now.
    pub fn finish(&self) -> Series {
        let passed = self.start.elapsed().as_nanos() / self.slot.as_nanos();
        let used = usize::try_from(passed + 1)
            .unwrap_or(usize::MAX)
            .min(self.slots.len());
        Series {
            slot_seconds: self.slot.as_secs_f64(),
            bytes: self.slots[..used]
                .iter()
                .map(|slot| slot.load(Ordering::Relaxed))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_fall_into_the_slot_of_their_time() {
        let recorder = SeriesRecorder::new(Duration::from_millis(10), 4);
        let at = |ms| recorder.start + Duration::from_millis(ms);
        recorder.add(at(0), 1);
        recorder.add(at(9), 2);
        recorder.add(at(10), 4);
        recorder.add(at(1000), 8);
        let all: Vec<u64> = recorder
            .slots
            .iter()
            .map(|s| s.load(Ordering::Relaxed))
            .collect();
        assert_eq!(all, [3, 4, 0, 8]);
        assert_eq!(recorder.finish().slot_seconds, 0.01);
    }
}
