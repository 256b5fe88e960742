//! So many at once, a number that may change, with a share for each kind of request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What a request is to the gate: each kind leaves the other a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Bytes of a file, which may hold their slot for as long as somebody reads on.
    Read,
    /// A question about a path.
    Metadata,
}

/// Lets so many through at once; the rest wait in the order of their coming.
///
/// - Never more slots are out than the limit, unless it was lowered meanwhile: then none is
///   given before enough came back.
/// - Of a limit of two or more neither kind of request can have all: reads whose readers
///   are slow do not keep a `stat` out, nor does a walk through a tree keep reads out.
/// - A waiter that goes away loses its place and nothing else.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
}

/// Waiters beyond this many are turned away at once.
const MOST_WAITING: usize = 16 << 10;

#[derive(Debug)]
struct State {
    limit: u32,
    held: [u32; 2],
    queues: [VecDeque<Waiter>; 2],
    tickets: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    class: Class,
    called: oneshot::Sender<Slot>,
}

/// The right to have one request under way; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Slot {
    gate: Arc<Gate>,
    class: Class,
}

/// What asking for a slot led to.
#[derive(Debug)]
pub(super) enum Entry {
    /// One was free.
    Free(Slot),
    /// This tells when one is.
    Queued(oneshot::Receiver<Slot>),
    /// Too many wait already.
    Full,
}

impl Gate {
    /// `limit` is at least 1.
    pub(crate) fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                limit: limit.max(1),
                held: [0; 2],
                queues: [VecDeque::new(), VecDeque::new()],
                tickets: 0,
            }),
        })
    }

    /// Slots that are out.
    #[cfg(test)]
    pub(super) fn held(&self) -> u32 {
        self.state.lock().held.iter().sum()
    }

    /// Whether anybody waits for a slot.
    pub(super) fn someone_waits(&self) -> bool {
        let state = self.state.lock();
        let mut waiting = state.queues.iter().flatten();
        waiting.any(|waiter| !waiter.called.is_closed())
    }

    /// Lets `limit` through from now on, at least 1.
    pub(super) fn set_limit(self: &Arc<Self>, limit: u32) {
        let called = {
            let mut state = self.state.lock();
            state.limit = limit.max(1);
            state.call()
        };
        self.wake(called);
    }

    /// A slot, or a place in the queue.
    pub(super) fn enter(self: &Arc<Self>, class: Class) -> Entry {
        let mut state = self.state.lock();
        if state.admits(class) {
            state.held[class as usize] += 1;
            return Entry::Free(self.slot(class));
        }
        if state.waiting() >= MOST_WAITING {
            state.forget_the_gone();
            if state.waiting() >= MOST_WAITING {
                return Entry::Full;
            }
        }
        let (called, turn) = oneshot::channel();
        let ticket = state.tickets;
        state.tickets += 1;
        state.queues[class as usize].push_back(Waiter {
            ticket,
            class,
            called,
        });
        Entry::Queued(turn)
    }

    /// A slot, waited for no longer than `patience`.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing.
    pub(super) async fn slot_within(
        self: &Arc<Self>,
        class: Class,
        patience: Duration,
    ) -> Option<Slot> {
        match self.enter(class) {
            Entry::Free(slot) => Some(slot),
            Entry::Queued(turn) => tokio::time::timeout(patience, turn).await.ok()?.ok(),
            Entry::Full => None,
        }
    }

    fn slot(self: &Arc<Self>, class: Class) -> Slot {
        Slot {
            gate: Arc::clone(self),
            class,
        }
    }

    /// Hands the called their slots, whose count was taken already. One who left in this very
    /// moment gives it back by dropping it, outside the lock.
    fn wake(self: &Arc<Self>, called: Vec<Waiter>) {
        for waiter in called {
            let _ = waiter.called.send(self.slot(waiter.class));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let called = {
            let mut state = self.gate.state.lock();
            state.held[self.class as usize] -= 1;
            state.call()
        };
        self.gate.wake(called);
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    fn forget_the_gone(&mut self) {
        for queue in &mut self.queues {
            queue.retain(|waiter| !waiter.called.is_closed());
        }
    }

    /// What one kind of request may have of the limit.
    const fn share(&self) -> u32 {
        match self.limit {
            0 | 1 => 1,
            limit if limit < 16 => limit - 1,
            limit => limit - limit / 8,
        }
    }

    fn admits(&self, class: Class) -> bool {
        self.held.iter().sum::<u32>() < self.limit && self.held[class as usize] < self.share()
    }

    /// Takes slots for those who may go, first come first, and gives their places in the queue.
    fn call(&mut self) -> Vec<Waiter> {
        let mut called = Vec::new();
        for queue in &mut self.queues {
            while queue.front().is_some_and(|w| w.called.is_closed()) {
                queue.pop_front();
            }
        }
        loop {
            let first = [Class::Read, Class::Metadata]
                .into_iter()
                .filter(|class| self.admits(*class))
                .filter_map(|class| Some((self.queues[class as usize].front()?.ticket, class)))
                .min_by_key(|(ticket, _)| *ticket);
            let Some((_, class)) = first else {
                return called;
            };
            if let Some(waiter) = self.queues[class as usize].pop_front()
                && !waiter.called.is_closed()
            {
                self.held[class as usize] += 1;
                called.push(waiter);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn free(gate: &Arc<Gate>, class: Class) -> Slot {
        match gate.enter(class) {
            Entry::Free(slot) => slot,
            other => panic!("no slot is free: {other:?}"),
        }
    }

    fn queued(gate: &Arc<Gate>, class: Class) -> oneshot::Receiver<Slot> {
        match gate.enter(class) {
            Entry::Queued(turn) => turn,
            other => panic!("not queued: {other:?}"),
        }
    }

    #[test]
    fn slow_reads_leave_room_for_a_question_and_questions_for_a_read() {
        for (first, other) in [
            (Class::Read, Class::Metadata),
            (Class::Metadata, Class::Read),
        ] {
            let gate = Gate::new(4);
            let _held: Vec<_> = (0..3).map(|_| free(&gate, first)).collect();
            let mut waits = queued(&gate, first);
            let slot = free(&gate, other);
            assert!(waits.try_recv().is_err());
            drop(slot);
            // It was the other kind's: the first has its share.
            assert!(waits.try_recv().is_err());
        }
    }

    #[test]
    fn a_limit_of_one_is_one_of_either_kind() {
        let gate = Gate::new(1);
        let slot = free(&gate, Class::Read);
        let mut waits = queued(&gate, Class::Metadata);
        drop(slot);
        assert!(waits.try_recv().is_ok());
    }

    #[test]
    fn who_left_is_passed_over() {
        let gate = Gate::new(1);
        let slot = free(&gate, Class::Read);
        let gone = queued(&gate, Class::Read);
        let mut stays = queued(&gate, Class::Read);
        drop(gone);
        drop(slot);
        let slot = stays.try_recv().expect("its turn");
        assert_eq!(gate.held(), 1);
        drop(slot);
        assert_eq!(gate.held(), 0);
    }

    #[test]
    fn a_slot_that_came_too_late_goes_on_to_the_next() {
        let gate = Gate::new(1);
        let slot = free(&gate, Class::Read);
        let turn = queued(&gate, Class::Read);
        let mut next = queued(&gate, Class::Read);
        drop(slot);
        // The slot lies in the channel of one who never takes it.
        drop(turn);
        assert!(next.try_recv().is_ok());
    }

    #[test]
    fn a_lowered_limit_holds_once_enough_came_back() {
        let gate = Gate::new(8);
        let mut held: Vec<_> = (0..7).map(|_| free(&gate, Class::Read)).collect();
        gate.set_limit(2);
        let mut waits = queued(&gate, Class::Read);
        while held.len() > 1 {
            held.pop();
            assert!(waits.try_recv().is_err(), "{} are out", held.len());
        }
        held.pop();
        let _slot = waits.try_recv().expect("enough came back");
        let mut more = queued(&gate, Class::Read);
        gate.set_limit(3);
        assert!(more.try_recv().is_ok());
    }

    #[derive(Debug, Clone, Copy)]
    enum Act {
        Enter(bool),
        Leave(usize),
        GiveUp(usize),
        Limit(u32),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => any::<bool>().prop_map(Act::Enter),
            3 => any::<usize>().prop_map(Act::Leave),
            1 => any::<usize>().prop_map(Act::GiveUp),
            1 => (1u32..40).prop_map(Act::Limit),
        ]
    }

    proptest! {
        /// Whoever comes, leaves or gives up: the slots that are counted are those that are
        /// out, no more are given than the limit, and nobody waits who could go.
        #[test]
        fn slots_are_neither_lost_nor_made(acts in prop::collection::vec(act(), 1..300)) {
            let gate = Gate::new(5);
            let mut held: Vec<Slot> = Vec::new();
            let mut turns: Vec<oneshot::Receiver<Slot>> = Vec::new();
            let mut limit = 5;
            for act in acts {
                let before = gate.held();
                match act {
                    Act::Enter(read) => {
                        let class = if read { Class::Read } else { Class::Metadata };
                        match gate.enter(class) {
                            Entry::Free(slot) => held.push(slot),
                            Entry::Queued(turn) => turns.push(turn),
                            Entry::Full => prop_assert!(false, "not that many wait"),
                        }
                    }
                    Act::Leave(n) if !held.is_empty() => {
                        held.swap_remove(n % held.len());
                    }
                    Act::GiveUp(n) if !turns.is_empty() => {
                        turns.swap_remove(n % turns.len());
                    }
                    Act::Limit(new) => {
                        limit = new;
                        gate.set_limit(new);
                    }
                    Act::Leave(_) | Act::GiveUp(_) => {}
                }
                turns.retain_mut(|turn| match turn.try_recv() {
                    Ok(slot) => {
                        held.push(slot);
                        false
                    }
                    Err(_) => true,
                });
                prop_assert_eq!(gate.held(), held.len() as u32);
                prop_assert!(gate.held() <= limit.max(before));
                let state = gate.state.lock();
                for class in [Class::Read, Class::Metadata] {
                    let waits = state.queues[class as usize].iter();
                    let mut waits = waits.filter(|waiter| !waiter.called.is_closed());
                    prop_assert!(!state.admits(class) || waits.next().is_none());
                }
            }
            drop(turns);
            drop(held);
            prop_assert_eq!(gate.held(), 0);
        }
    }
}
