//! What is thought of the disk below a directory, and which requests go round it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millpond_disk::{Breaker, BreakerState, Trouble};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::stats::DiskCounters;

/// Errors in a row that reads bear: a bad sector is not a bad disk.
const READ_ERRORS: u32 = 3;

/// One failed write is enough: what made it fail, such as a full disk, fails the next.
const WRITE_ERRORS: u32 = 1;

/// What is done with a disk. Each fails by itself: a full disk can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Blocks are read.
    Read,
    /// Blocks are written and removed.
    Write,
}

impl Access {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The disk below a directory. Nothing here waits or touches it.
#[derive(Debug)]
pub(super) struct Device {
    dir: PathBuf,
    read: Side,
    write: Side,
    /// Operations under way, whether anybody still waits for them or not.
    running: Mutex<HashMap<u64, (Access, Instant)>>,
    next: AtomicU64,
    /// A side has left `Normal`.
    sick: Notify,
}

#[derive(Debug)]
struct Side {
    /// How long an operation may take.
    limit: Duration,
    breaker: Mutex<Breaker>,
    /// Whether the breaker admits requests, to be read without its lock.
    admits: AtomicBool,
    left_normal: Notify,
}

impl Device {
    pub(super) fn new(dir: PathBuf, read_limit: Duration, write_limit: Duration) -> Self {
        Self {
            dir,
            read: Side::new(read_limit, READ_ERRORS),
            write: Side::new(write_limit, WRITE_ERRORS),
            running: Mutex::default(),
            next: AtomicU64::new(0),
            sick: Notify::new(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    const fn side(&self, access: Access) -> &Side {
        match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        }
    }

    /// Whether requests go to the disk.
    pub(super) fn admits(&self, access: Access) -> bool {
        self.side(access).admits.load(Ordering::Acquire)
    }

    pub(super) fn state(&self, access: Access) -> BreakerState {
        self.side(access).breaker.lock().state()
    }

    /// How long an operation may take.
    pub(super) const fn limit(&self, access: Access) -> Duration {
        self.side(access).limit
    }

    /// The outcome of `waiting`, unless requests have to go round the disk before.
    pub(super) async fn unless_out<T>(
        &self,
        access: Access,
        waiting: impl Future<Output = T>,
    ) -> Option<T> {
        let side = self.side(access);
        let mut left = pin!(side.left_normal.notified());
        left.as_mut().enable();
        if !side.admits.load(Ordering::Acquire) {
            return None;
        }
        tokio::select! {
            outcome = waiting => Some(outcome),
            () = left => None,
        }
    }

    /// An operation begins.
    pub(super) fn begin(&self, access: Access) -> Running<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        self.running.lock().insert(number, (access, started));
        Running {
            device: self,
            number,
            access,
            started,
        }
    }

    /// Looks for operations that take too long.
    pub(super) fn look(&self, now: Instant, counters: &DiskCounters) {
        for access in Access::ALL {
            if self.admits(access) && self.hangs(access, now) {
                self.overdue(access, now, counters);
            }
        }
    }

    /// Whether an operation takes too long, waited for or not.
    fn hangs(&self, access: Access, now: Instant) -> bool {
        let limit = self.limit(access);
        let late = |since: &Instant| now.saturating_duration_since(*since) > limit;
        let running = self.running.lock();
        running
            .values()
            .any(|(of, since)| *of == access && late(since))
    }

    /// A request was given up because the disk did not answer in time.
    pub(super) fn overdue(&self, access: Access, now: Instant, counters: &DiskCounters) {
        counters.overdue.inc();
        let limit = self.limit(access);
        let why = format_args!("not done after {limit:?}");
        self.failed(access, Trouble::Overdue, now, &why);
    }

    /// An operation failed.
    pub(super) fn failed(
        &self,
        access: Access,
        trouble: Trouble,
        now: Instant,
        why: &dyn fmt::Display,
    ) {
        let side = self.side(access);
        let mut breaker = side.breaker.lock();
        if !breaker.failed(trouble, now) {
            return;
        }
        side.admits.store(false, Ordering::Release);
        side.left_normal.notify_waiters();
        self.sick.notify_one();
        let dir = self.dir.display();
        warn!(%dir, %access, %why, "the disk fails: requests go round it, a probe will tell");
    }

    /// When the next probe is due; none while the disk is well.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        let at = |access| self.side(access).breaker.lock().probe_at();
        Access::ALL.into_iter().filter_map(at).min()
    }

    /// What a probe at `now` would be about.
    pub(super) fn due(&self, now: Instant) -> Vec<Access> {
        let due = |access: &Access| {
            let at = self.side(*access).breaker.lock().probe_at();
            at.is_some_and(|at| at <= now)
        };
        Access::ALL.into_iter().filter(due).collect()
    }

    /// What a probe showed. A disk on which an operation still hangs is not well, whatever
    /// others it does meanwhile.
    pub(super) fn probed(&self, access: Access, outcome: &Result<(), String>, now: Instant) {
        let hangs = Err("an operation still hangs".to_owned());
        let outcome = match outcome {
            Ok(()) if self.hangs(access, now) => &hangs,
            outcome => outcome,
        };
        let side = self.side(access);
        let mut breaker = side.breaker.lock();
        if !breaker.probed(outcome.is_ok(), now) {
            return;
        }
        let well = breaker.state() == BreakerState::Normal;
        side.admits.store(well, Ordering::Release);
        let dir = self.dir.display();
        match outcome {
            Ok(()) => info!(%dir, %access, "the disk works again: requests go to it"),
            Err(why) => warn!(%dir, %access, %why, "the disk is out until a probe goes well"),
        }
    }

    /// Waits until the disk fails. The one waiter misses nothing between two calls.
    pub(super) async fn sick(&self) {
        self.sick.notified().await;
    }

    /// Operations under way.
    #[cfg(test)]
    fn running(&self) -> usize {
        self.running.lock().len()
    }
}

impl Side {
    const fn new(limit: Duration, tolerance: u32) -> Self {
        Self {
            limit,
            breaker: Mutex::new(Breaker::new(tolerance)),
            admits: AtomicBool::new(true),
            left_normal: Notify::const_new(),
        }
    }
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Running<'a> {
    device: &'a Device,
    number: u64,
    access: Access,
    started: Instant,
}

impl Running<'_> {
    /// It went well, if in time.
    pub(super) fn succeeded(self) {
        let side = self.device.side(self.access);
        if self.started.elapsed() <= side.limit {
            side.breaker.lock().succeeded();
        }
    }

    /// It failed.
    pub(super) fn failed(self, error: &io::Error) {
        let now = Instant::now();
        self.device.failed(self.access, Trouble::Error, now, error);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.device.running.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        let limits = (Duration::from_secs(2), Duration::from_secs(5));
        Device::new(PathBuf::from("/nowhere"), limits.0, limits.1)
    }

    #[test]
    fn reads_and_writes_fail_by_themselves() {
        let device = device();
        let error = io::Error::from(io::ErrorKind::StorageFull);
        device.begin(Access::Write).failed(&error);
        assert!(device.admits(Access::Read) && !device.admits(Access::Write));
        let now = Instant::now();
        assert_eq!(device.due(now), [Access::Write]);
        device.probed(Access::Write, &Ok(()), now);
        assert!(device.admits(Access::Write));
        assert_eq!((device.probe_at(), device.running()), (None, 0));
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_found_overdue() {
        let (device, counters) = (device(), DiskCounters::default());
        let read = device.begin(Access::Read);
        let now = Instant::now();
        device.look(now, &counters);
        assert!(device.admits(Access::Read));
        device.look(now + Duration::from_secs(3), &counters);
        assert!(!device.admits(Access::Read) && device.admits(Access::Write));
        assert_eq!(counters.overdue.value(), 1);
        read.succeeded();
        assert_eq!(device.state(Access::Read), BreakerState::Probing);
        device.look(now + Duration::from_secs(9), &counters);
        assert_eq!(counters.overdue.value(), 1, "known already");
    }

    #[tokio::test]
    async fn who_waits_is_told_when_the_disk_fails() {
        let device = device();
        let waiting = device.unless_out(Access::Read, std::future::pending::<()>());
        let failing = async {
            device.overdue(Access::Read, Instant::now(), &DiskCounters::default());
        };
        let (outcome, ()) = tokio::join!(biased; waiting, failing);
        assert_eq!(outcome, None);
        let late = device.unless_out(Access::Read, async { 1 }).await;
        assert_eq!(late, None);
        assert_eq!(device.unless_out(Access::Write, async { 1 }).await, Some(1));
    }
}
