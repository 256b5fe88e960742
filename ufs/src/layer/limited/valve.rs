//! How much of a mount goes to its store at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond_proto::ErrorKind;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::controller::Controller;
use super::gate::{Class, Entry, Gate, Slot};
use crate::context::InFlight;
use crate::metrics::UfsMetrics;

/// The slots of one mount in this process, as many as its [`Controller`] finds right.
///
/// The layer that hands them out tells it how requests went; the drivers of stores over the
/// network tell it of each attempt that was refused, for they repeat those by themselves and
/// the layer would never hear of them.
#[derive(Debug)]
pub(crate) struct Valve {
    gate: Arc<Gate>,
    process: Arc<Gate>,
    controller: Mutex<Controller>,
    /// What the store has done so far: bytes, and as many more for each request.
    work: AtomicU64,
    metrics: Arc<UfsMetrics>,
}

/// What a request counts for beside its bytes, so that questions about paths count as well.
const REQUEST_WORK: u64 = 64 << 10;

impl Valve {
    /// Of at most `most` requests; those of all mounts together are bounded by `process`.
    pub(crate) fn new(most: u32, process: &InFlight, metrics: Arc<UfsMetrics>) -> Arc<Self> {
        let controller = Controller::new(most, rand::random(), Instant::now());
        let limit = controller.limit();
        metrics.limit_changed(i64::from(limit));
        Arc::new(Self {
            gate: Gate::new(limit),
            process: process.gate(),
            controller: Mutex::new(controller),
            work: AtomicU64::new(0),
            metrics,
        })
    }

    /// The store refused an attempt that was sent at `sent` (429, 503), or left it unanswered.
    pub(crate) fn attempt_refused(&self, sent: Instant) {
        self.metrics.attempt_refused();
        self.refused(sent);
    }

    /// Waits for a slot; none if there was none within `patience`.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing.
    pub(super) async fn enter(self: &Arc<Self>, class: Class, patience: Duration) -> Option<Pass> {
        let give_up = Instant::now() + patience;
        let slot = match self.gate.enter(class) {
            Entry::Free(slot) => slot,
            Entry::Queued(turn) => {
                self.controller.lock().someone_waits();
                tokio::time::timeout_at(give_up, turn).await.ok()?.ok()?
            }
            Entry::Full => return None,
        };
        let left = give_up.saturating_duration_since(Instant::now());
        let of_process = self.process.slot_within(class, left).await?;
        self.metrics.in_flight_changed(1);
        Some(Pass {
            valve: Arc::clone(self),
            sent: Instant::now(),
            _slots: [slot, of_process],
        })
    }

    fn refused(&self, sent: Instant) {
        let work = self.work.load(Ordering::Relaxed);
        self.change(|controller| {
            let before = controller.limit();
            if controller.refused(Instant::now(), sent, work) {
                self.metrics.backed_off();
                tracing::debug!(
                    from = before,
                    to = controller.limit(),
                    "backs off from a store"
                );
            }
        });
    }

    /// Lets the controller find out, and does as it says.
    fn change(&self, event: impl FnOnce(&mut Controller)) {
        let mut controller = self.controller.lock();
        let before = controller.limit();
        event(&mut controller);
        let after = controller.limit();
        if after != before {
            // Under the lock, so that the gate never ends up with the older of two limits.
            self.gate.set_limit(after);
            self.metrics
                .limit_changed(i64::from(after) - i64::from(before));
        }
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        let limit = self.controller.get_mut().limit();
        self.metrics.limit_changed(-i64::from(limit));
    }
}

/// The right to have one request at the store; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Pass {
    valve: Arc<Valve>,
    sent: Instant,
    _slots: [Slot; 2],
}

impl Pass {
    /// The request goes out now.
    pub(super) fn sends(&mut self) {
        self.sent = Instant::now();
    }

    /// The store sent so many bytes.
    pub(super) fn came(&self, bytes: u64) {
        self.valve.work.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The request was answered to the end.
    pub(super) fn served(&self) {
        self.came(REQUEST_WORK);
        let took = self.sent.elapsed();
        self.valve.controller.lock().served(took);
    }

    /// It failed like this.
    pub(super) fn failed(&self, kind: ErrorKind) {
        if matches!(kind, ErrorKind::Busy | ErrorKind::Timeout) {
            self.valve.refused(self.sent);
        }
    }

    /// How it ended.
    pub(super) fn ended<T>(&self, result: &Result<T, crate::error::UfsError>) {
        match result {
            Ok(_) => self.served(),
            Err(error) => self.failed(error.kind()),
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let valve = &self.valve;
        valve.metrics.in_flight_changed(-1);
        let work = valve.work.load(Ordering::Relaxed);
        let someone_waits = valve.gate.someone_waits();
        valve.change(|controller| {
            if someone_waits {
                controller.someone_waits();
            }
            controller.tick(Instant::now(), work);
        });
    }
}
