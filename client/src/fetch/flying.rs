//! Ranges of pieces on their way: each byte is fetched once however many ask for it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, SetOnce};

use super::Fetched;
use crate::memory::{Extent, Look};
use crate::pieces::PieceId;

/// The ranges on their way.
///
/// Invariant: those of one piece do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Flying {
    pieces: Mutex<HashMap<PieceId, Vec<Arc<Flight>>>>,
}

/// One range on its way.
#[derive(Debug)]
pub(crate) struct Flight {
    range: Range<u32>,
    /// None if the task that was to bring it was stopped.
    outcome: SetOnce<Option<Fetched>>,
    wanted: Notify,
}

/// The duty to bring a range. Dropped without landing, it tells all who wait that the range
/// does not come.
#[derive(Debug)]
pub(crate) struct Ticket {
    flying: Arc<Flying>,
    piece: PieceId,
    flight: Arc<Flight>,
}

/// What somebody who needs a range has to wait for, and to fetch.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What is in memory.
    pub(crate) here: Vec<Arc<Extent>>,
    /// Under way: what was before, and what the tickets are for.
    pub(crate) flights: Vec<Arc<Flight>>,
    /// To be fetched by the caller.
    pub(crate) tickets: Vec<Ticket>,
}

impl Flying {
    /// Plans for a range of `piece`. `look` says what of it is in memory; it is called such
    /// that what lands meanwhile is seen there or here.
    pub(crate) fn plan(self: &Arc<Self>, piece: PieceId, look: impl FnOnce() -> Look) -> Plan {
        let mut pieces = self.pieces.lock();
        let Look { here, gaps } = look();
        let mut plan = Plan {
            here,
            flights: Vec::new(),
            tickets: Vec::new(),
        };
        if gaps.is_empty() {
            return plan;
        }
        let under_way = pieces.entry(piece).or_default();
        let known = under_way.len();
        for gap in gaps {
            let mut at = gap.start;
            while at < gap.end {
                let over = under_way.iter().find(|f| f.range.contains(&at));
                if let Some(flight) = over {
                    at = flight.range.end;
                    continue;
                }
                let later = under_way.iter().map(|f| f.range.start).filter(|s| *s > at);
                let end = later.min().unwrap_or(gap.end).min(gap.end);
                let flight = Arc::new(Flight {
                    range: at..end,
                    outcome: SetOnce::new(),
                    wanted: Notify::new(),
                });
                under_way.push(Arc::clone(&flight));
                plan.tickets.push(Ticket {
                    flying: Arc::clone(self),
                    piece,
                    flight,
                });
                at = end;
            }
            let needed = |f: &&Arc<Flight>| f.range.start < gap.end && gap.start < f.range.end;
            let joined = under_way[..known].iter().filter(needed);
            plan.flights.extend(joined.map(Arc::clone));
        }
        let own = plan.tickets.iter().map(|t| Arc::clone(&t.flight));
        plan.flights.extend(own.collect::<Vec<_>>());
        plan
    }

    /// Those under way that overlap `range` of `piece`.
    pub(crate) fn find(&self, piece: &PieceId, range: &Range<u32>) -> Vec<Arc<Flight>> {
        let pieces = self.pieces.lock();
        let under_way = pieces.get(piece).into_iter().flatten();
        let overlapping = |f: &&Arc<Flight>| f.range.start < range.end && range.start < f.range.end;
        under_way.filter(overlapping).map(Arc::clone).collect()
    }

    /// How many ranges are under way.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.pieces.lock().values().map(Vec::len).sum()
    }
}

impl Flight {
    /// Waits until the range is here; none if it will not come.
    pub(crate) async fn landed(&self) -> Option<Fetched> {
        if self.outcome.get().is_none() {
            self.wanted.notify_one();
        }
        self.outcome.wait().await.clone()
    }
}

impl Flight {
    /// The same for somebody who is in no hurry.
    pub(crate) async fn settled(&self) -> Option<Fetched> {
        self.outcome.wait().await.clone()
    }
}

impl Ticket {
    /// Where the range lies in its piece.
    pub(crate) fn range(&self) -> Range<u32> {
        self.flight.range.clone()
    }

    /// Waits until somebody waits for the range.
    pub(crate) async fn wanted(&self) {
        self.flight.wanted.notified().await;
    }

    /// Tells all who wait how it went. The range must be in memory by now, if it came.
    pub(crate) fn land(self, fetched: Fetched) {
        self.leave();
        let _ = self.flight.outcome.set(Some(fetched));
    }

    /// From now on whoever needs the range looks for it elsewhere.
    fn leave(&self) {
        let mut pieces = self.flying.pieces.lock();
        if let Some(under_way) = pieces.get_mut(&self.piece) {
            under_way.retain(|f| !Arc::ptr_eq(f, &self.flight));
            if under_way.is_empty() {
                pieces.remove(&self.piece);
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.flight.outcome.get().is_none() {
            self.leave();
            let _ = self.flight.outcome.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millpond_proto::{BlockId, FileId};
    use proptest::prelude::*;

    use super::*;
    use crate::memory::LocalMemory;
    use crate::sources::Origin;

    const PIECE: PieceId = PieceId {
        block: BlockId::new(FileId([3; 16]), 0),
        index: 0,
    };

    #[tokio::test]
    async fn a_ticket_that_is_dropped_tells_those_who_wait() {
        let (flying, memory) = (Arc::new(Flying::default()), LocalMemory::new(1 << 20));
        let plan = || flying.plan(PIECE, || memory.look_exactly(&PIECE, 0..10));
        let first = plan();
        let second = plan();
        assert!(second.tickets.is_empty());
        drop(first.tickets);
        assert!(second.flights[0].landed().await.is_none());
        assert_eq!(flying.count(), 0);
        assert_eq!(plan().tickets.len(), 1, "the next one starts anew");
    }

    proptest! {
        /// Whatever is asked for, in whatever order it lands: each byte is fetched once, and
        /// each plan covers its range with what is here, on its way, and to be fetched.
        #[test]
        fn each_byte_is_fetched_once(
            asks in proptest::collection::vec((0u32..100, 1u32..50, any::<prop::sample::Index>()), 1..60),
        ) {
            let (flying, memory) = (Arc::new(Flying::default()), LocalMemory::new(1 << 20));
            let mut fetched = [0; 150];
            let mut tickets: Vec<Ticket> = Vec::new();
            for (start, len, landing) in asks {
                let range = start..start + len;
                let plan = flying.plan(PIECE, || memory.look_exactly(&PIECE, range.clone()));
                for at in range {
                    let here = plan.here.iter().any(|e| e.range().contains(&at));
                    let coming = plan.flights.iter().filter(|f| f.range.contains(&at)).count();
                    prop_assert_eq!(usize::from(here) + coming, 1, "byte {}", at);
                }
                for ticket in &plan.tickets {
                    ticket.range().for_each(|at| fetched[at as usize] += 1);
                }
                tickets.extend(plan.tickets);
                if !tickets.is_empty() {
                    let ticket = tickets.swap_remove(landing.index(tickets.len()));
                    let range = ticket.range();
                    let data = Bytes::from(vec![0; range.len()]);
                    ticket.land(Ok(memory.insert(PIECE, range.start, data, Origin::Ufs, None)));
                }
                prop_assert_eq!(flying.count(), tickets.len());
            }
            prop_assert!(fetched.iter().all(|times| *times <= 1), "{:?}", fetched);
        }
    }
}
