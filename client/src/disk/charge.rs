//! Bytes of the disk that files of the tier take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one cached file takes of the capacity. It is given back when the last holder lets go:
/// the file's name, and everybody who has it open, because an unlinked file takes room until
/// it is closed.
#[derive(Debug)]
pub(super) struct Charge {
    bytes: AtomicU64,
    used: Arc<AtomicU64>,
}

/// The unit in which file systems give out room.
const ALLOCATION: u64 = 4096;

/// Room that `bytes` in one file take.
pub(super) const fn footprint(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALLOCATION)
}

impl Charge {
    /// Nothing yet, of what is counted in `used`.
    pub(super) const fn new(used: Arc<AtomicU64>) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            used,
        }
    }

    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives `bytes` of it back.
    pub(super) fn sub(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
