//! Faults on demand: delay, hold, fail, cut, answer wrongly, refuse connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The kinds of request that a fault can be narrowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// GetObject.
    Get,
    /// HeadObject and HeadBucket.
    Head,
    /// Listings.
    List,
    /// Everything that writes.
    Write,
}

/// When a request that is to fail does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before it has done anything.
    Before,
    /// After it has done what it was to do, so that the caller does not know. A request that
    /// only reads fails before.
    After,
}

/// The switchboard of a fixture. All faults are off at first; setters take effect for the
/// requests that arrive afterwards (bandwidth: for the bodies that start afterwards).
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    latency: Duration,
    bandwidth: Option<u64>,
    failures: Vec<Failure>,
    cut: Option<Cut>,
    wrong_etags: u64,
    ignore_preconditions: bool,
    refuse_connections: bool,
    gates: Vec<(Option<Op>, Arc<GateState>)>,
    plan: Option<Plan>,
}

/// Which of the requests that come fail.
#[derive(Debug)]
struct Plan {
    /// How many came.
    seen: u64,
    /// The first that fails, and how many do.
    first: u64,
    count: u64,
    when: When,
    status: u16,
}

#[derive(Debug)]
struct Failure {
    op: Option<Op>,
    left: u64,
    status: u16,
}

#[derive(Debug)]
struct Cut {
    left: u64,
    after: u64,
}

impl Faults {
    /// Delays each request by `latency` before it is looked at.
    pub fn set_latency(&self, latency: Duration) {
        self.state.lock().latency = latency;
    }

    /// Limits each body to so many bytes per second; `None` for no limit.
    pub fn set_bandwidth(&self, bytes_per_second: Option<u64>) {
        self.state.lock().bandwidth = bytes_per_second;
    }

    /// Answers the next `n` requests, of any kind, with an HTTP status.
    pub fn fail_next(&self, n: u64, status: u16) {
        self.add_failure(None, n, status);
    }

    /// Answers the next `n` requests of one kind with an HTTP status; others pass.
    pub fn fail_next_of(&self, op: Op, n: u64, status: u16) {
        self.add_failure(Some(op), n, status);
    }

    /// Answers every request with an HTTP status until [`clear`](Self::clear).
    pub fn fail_all(&self, status: u16) {
        self.add_failure(None, u64::MAX, status);
    }

    /// Answers `count` requests, of any kind, with an HTTP status, from the one on that is number
    /// `first` (from 0) of those that come from now on.
    pub fn fail_at(&self, first: u64, count: u64, when: When, status: u16) {
        self.state.lock().plan = Some(Plan {
            seen: 0,
            first,
            count,
            when,
            status,
        });
    }

    /// How many requests came since [`fail_at`](Self::fail_at).
    pub fn came(&self) -> u64 {
        self.state.lock().plan.as_ref().map_or(0, |plan| plan.seen)
    }

    /// Breaks the connection of the next `n` GetObject bodies after `bytes` bytes of each.
    /// A body that is not longer arrives whole.
    pub fn cut_next(&self, n: u64, bytes: u64) {
        self.state.lock().cut = Some(Cut {
            left: n,
            after: bytes,
        });
    }

    /// Sends the next `n` GetObject replies with an ETag that the object never had.
    pub fn wrong_etag_next(&self, n: u64) {
        self.state.lock().wrong_etags = n;
    }

    /// Whether If-Match and If-None-Match of reads are ignored, as careless stores do.
    pub fn set_ignore_preconditions(&self, ignore: bool) {
        self.state.lock().ignore_preconditions = ignore;
    }

    /// Whether connections are closed as soon as they are accepted. Those that exist are
    /// broken too.
    pub fn set_refuse_connections(&self, refuse: bool) {
        self.state.lock().refuse_connections = refuse;
    }

    /// Holds every request of one kind (or of any, with `None`) until the gate is released
    /// or dropped.
    #[must_use = "the gate opens when it is dropped"]
    pub fn hold(&self, op: Option<Op>) -> Gate {
        let state = Arc::new(GateState {
            open: watch::Sender::new(false),
            waiting: AtomicUsize::new(0),
        });
        let mut faults = self.state.lock();
        faults.gates.retain(|(_, gate)| !*gate.open.borrow());
        faults.gates.push((op, Arc::clone(&state)));
        Gate { state }
    }

    /// Turns every fault off and opens every gate.
    pub fn clear(&self) {
        let old = std::mem::take(&mut *self.state.lock());
        for (_, gate) in old.gates {
            gate.open.send_replace(true);
        }
    }

    fn add_failure(&self, op: Option<Op>, n: u64, status: u16) {
        self.state.lock().failures.push(Failure {
            op,
            left: n,
            status,
        });
    }

    /// Waits as told, then says whether the request fails, and with which status: at once, or
    /// when it is done.
    pub(crate) async fn enter(&self, op: Op) -> Result<Option<u16>, u16> {
        let latency = self.state.lock().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let gates: Vec<_> = {
            let state = self.state.lock();
            let matching = state
                .gates
                .iter()
                .filter(|(of, _)| of.is_none_or(|of| of == op));
            matching.map(|(_, gate)| Arc::clone(gate)).collect()
        };
        for gate in gates {
            gate.pass().await;
        }
        match self.take_failure(op) {
            Some(status) => Err(status),
            None => self.take_planned(op),
        }
    }

    fn take_planned(&self, op: Op) -> Result<Option<u16>, u16> {
        let mut state = self.state.lock();
        let Some(plan) = &mut state.plan else {
            return Ok(None);
        };
        let number = plan.seen;
        plan.seen += 1;
        let is_due = number >= plan.first && number - plan.first < plan.count;
        match plan.when {
            _ if !is_due => Ok(None),
            When::After if op == Op::Write => Ok(Some(plan.status)),
            When::Before | When::After => Err(plan.status),
        }
    }

    fn take_failure(&self, op: Op) -> Option<u16> {
        let mut state = self.state.lock();
        let failure = state
            .failures
            .iter_mut()
            .find(|failure| failure.left > 0 && failure.op.is_none_or(|of| of == op))?;
        failure.left -= u64::from(failure.left != u64::MAX);
        let status = failure.status;
        state.failures.retain(|failure| failure.left > 0);
        Some(status)
    }

    /// Where to cut a body of `len` bytes, if at all.
    pub(crate) fn take_cut(&self, len: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let cut = state.cut.as_mut()?;
        if cut.left == 0 || cut.after >= len {
            return None;
        }
        cut.left -= u64::from(cut.left != u64::MAX);
        Some(cut.after)
    }

    pub(crate) fn take_wrong_etag(&self) -> bool {
        let mut state = self.state.lock();
        let wrong = state.wrong_etags > 0;
        state.wrong_etags -= u64::from(wrong);
        wrong
    }

    pub(crate) fn bandwidth(&self) -> Option<u64> {
        self.state.lock().bandwidth
    }

    pub(crate) fn ignores_preconditions(&self) -> bool {
        self.state.lock().ignore_preconditions
    }

    pub(crate) fn refuses_connections(&self) -> bool {
        self.state.lock().refuse_connections
    }
}

/// Requests wait here until it is released or dropped.
#[derive(Debug)]
pub struct Gate {
    state: Arc<GateState>,
}

impl Gate {
    /// How many requests are waiting now.
    pub fn waiting(&self) -> usize {
        self.state.waiting.load(Ordering::SeqCst)
    }

    /// Lets everything pass.
    pub fn release(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.state.open.send_replace(true);
    }
}

#[derive(Debug)]
struct GateState {
    open: watch::Sender<bool>,
    waiting: AtomicUsize,
}

impl GateState {
    async fn pass(&self) {
        /// Counts itself out also when the request is cancelled.
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }

        let mut open = self.open.subscribe();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        // The sender lives in `self`, so waiting can only end by the gate opening.
        let _ = open.wait_for(|open| *open).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_are_used_up_by_matching_requests_only() {
        let faults = Faults::default();
        faults.fail_next_of(Op::Get, 2, 503);
        assert_eq!(faults.enter(Op::Head).await, Ok(None));
        assert_eq!(faults.enter(Op::Get).await, Err(503));
        assert_eq!(faults.enter(Op::Get).await, Err(503));
        assert_eq!(faults.enter(Op::Get).await, Ok(None));
        faults.fail_all(500);
        for _ in 0..10 {
            assert_eq!(faults.enter(Op::List).await, Err(500));
        }
        faults.clear();
        assert_eq!(faults.enter(Op::List).await, Ok(None));
    }

    #[tokio::test]
    async fn planned_failures_come_when_their_number_does() {
        let faults = Faults::default();
        faults.fail_at(1, 2, When::After, 500);
        assert_eq!(faults.enter(Op::Write).await, Ok(None));
        assert_eq!(faults.enter(Op::Write).await, Ok(Some(500)));
        assert_eq!(faults.enter(Op::List).await, Err(500));
        assert_eq!(faults.enter(Op::Write).await, Ok(None));
        assert_eq!(faults.came(), 4);
    }

    #[tokio::test]
    async fn a_gate_holds_until_it_is_dropped() {
        let faults = Arc::new(Faults::default());
        let gate = faults.hold(Some(Op::Get));
        assert_eq!(faults.enter(Op::Head).await, Ok(None));
        let mut held = std::pin::pin!(faults.enter(Op::Get));
        assert!(futures::poll!(held.as_mut()).is_pending());
        assert_eq!(gate.waiting(), 1);
        gate.release();
        assert_eq!(held.await, Ok(None));
        assert_eq!(faults.enter(Op::Get).await, Ok(None));
    }

    #[test]
    fn a_cut_spares_bodies_that_are_short_enough() {
        let faults = Faults::default();
        faults.cut_next(1, 100);
        assert_eq!(faults.take_cut(100), None);
        assert_eq!(faults.take_cut(101), Some(100));
        assert_eq!(faults.take_cut(101), None);
    }
}
