//! Ranges of pieces on their way: each byte is fetched once however many ask for it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, SetOnce};

use super::Fetched;
use crate::memory::{Extent, Holder, Look};
use crate::pieces::PieceId;

/// The ranges on their way.
///
/// Invariant: those of one piece do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Flying {
    pieces: Mutex<HashMap<PieceId, Vec<UnderWay>>>,
}

#[derive(Debug)]
struct UnderWay {
    flight: Arc<Flight>,
    /// The stream that it is fetched ahead of, as long as nobody else needs it.
    only_for: Option<Holder>,
}

/// Who plans.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planner {
    /// The stream that the range is for.
    pub(crate) holder: Option<Holder>,
    /// Whether nobody waits for it yet.
    pub(crate) ahead: bool,
}

/// One range on its way.
#[derive(Debug)]
pub(crate) struct Flight {
    range: Range<u32>,
    /// None if the task that was to bring it was stopped, or is to stop.
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
    /// Plans for a range of `piece`, for `by`. `look` says what of it is in memory; it is called such
    /// that what lands meanwhile is seen there or here.
    pub(crate) fn plan(
        self: &Arc<Self>,
        piece: PieceId,
        by: Planner,
        look: impl FnOnce() -> Look,
    ) -> Plan {
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
                let over = under_way.iter().find(|u| u.flight.range.contains(&at));
                if let Some(over) = over {
                    at = over.flight.range.end;
                    continue;
                }
                let starts = under_way.iter().map(|u| u.flight.range.start);
                let later = starts.filter(|s| *s > at);
                let end = later.min().unwrap_or(gap.end).min(gap.end);
                let flight = Arc::new(Flight {
                    range: at..end,
                    outcome: SetOnce::new(),
                    wanted: Notify::new(),
                });
                under_way.push(UnderWay {
                    flight: Arc::clone(&flight),
                    only_for: by.holder.filter(|_| by.ahead),
                });
                plan.tickets.push(Ticket {
                    flying: Arc::clone(self),
                    piece,
                    flight,
                });
                at = end;
            }
            for joined in under_way[..known].iter_mut().filter(|u| u.overlaps(&gap)) {
                // What a stream's own reader waits for is recalled with the rest of it: the
                // reader is gone by then.
                if joined.only_for != by.holder {
                    joined.only_for = None;
                }
                plan.flights.push(Arc::clone(&joined.flight));
            }
        }
        let own = plan.tickets.iter().map(|t| Arc::clone(&t.flight));
        plan.flights.extend(own.collect::<Vec<_>>());
        plan
    }

    /// Those under way that overlap `range` of `piece`.
    pub(crate) fn find(&self, piece: &PieceId, range: &Range<u32>) -> Vec<Arc<Flight>> {
        let pieces = self.pieces.lock();
        let under_way = pieces.get(piece).into_iter().flatten();
        let overlapping = under_way.filter(|u| u.overlaps(range));
        overlapping.map(|u| Arc::clone(&u.flight)).collect()
    }

    /// Has nobody bring any more what is on its way for these streams alone: their readers
    /// are gone. Says how many bytes that are.
    pub(crate) fn recall(&self, holders: &[Holder]) -> u64 {
        let mut recalled = Vec::new();
        self.pieces.lock().retain(|_, under_way| {
            let is_useless = |u: &UnderWay| u.only_for.is_some_and(|h| holders.contains(&h));
            let useless = under_way.iter().filter(|u| is_useless(u));
            recalled.extend(useless.map(|u| Arc::clone(&u.flight)));
            under_way.retain(|u| !is_useless(u));
            !under_way.is_empty()
        });
        for flight in &recalled {
            let _ = flight.outcome.set(None);
        }
        let len = |f: &Arc<Flight>| u64::from(f.range.end - f.range.start);
        recalled.iter().map(len).sum()
    }

    /// How many ranges are under way.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.pieces.lock().values().map(Vec::len).sum()
    }
}

impl UnderWay {
    fn overlaps(&self, range: &Range<u32>) -> bool {
        self.flight.range.start < range.end && range.start < self.flight.range.end
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

    /// What is under way.
    pub(crate) fn flight(&self) -> Arc<Flight> {
        Arc::clone(&self.flight)
    }

    /// Ends when nobody needs the range any more; not if it lands.
    pub(crate) async fn recalled(&self) {
        if self.flight.settled().await.is_some() {
            std::future::pending().await
        }
    }

    /// Whether nobody needs it any more.
    pub(crate) fn is_recalled(&self) -> bool {
        matches!(self.flight.outcome.get(), Some(None))
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
            under_way.retain(|u| !Arc::ptr_eq(&u.flight, &self.flight));
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

    const READER: Planner = Planner {
        holder: None,
        ahead: false,
    };

    const fn ahead(stream: u64) -> Planner {
        Planner {
            holder: Some(Holder(stream)),
            ahead: true,
        }
    }

    #[tokio::test]
    async fn what_is_for_one_stream_alone_is_recalled_with_it() {
        let (flying, memory) = (Arc::new(Flying::default()), LocalMemory::new(1 << 20));
        let plan = |by, range| flying.plan(PIECE, by, || memory.look_exactly(&PIECE, range));
        let own = plan(ahead(1), 0..10);
        let shared = plan(ahead(1), 10..20);
        let waited = plan(ahead(1), 20..30);
        let demand = plan(
            Planner {
                ahead: false,
                ..ahead(1)
            },
            30..40,
        );
        assert!(plan(ahead(2), 10..12).tickets.is_empty());
        assert!(plan(READER, 29..30).tickets.is_empty());
        // Its own reader was there too, and went.
        assert!(plan(ahead(1), 0..40).tickets.is_empty());
        assert_eq!(flying.recall(&[Holder(2)]), 0);
        assert_eq!(flying.recall(&[Holder(1)]), 10);
        assert!(own.tickets[0].is_recalled());
        own.tickets[0].recalled().await;
        for kept in [&shared, &waited, &demand] {
            assert!(!kept.tickets[0].is_recalled());
        }
        assert_eq!(flying.count(), 3);
        assert_eq!(plan(READER, 0..10).tickets.len(), 1, "it starts anew");
        drop(own);
        assert_eq!(flying.count(), 3);
    }

    #[tokio::test]
    async fn a_ticket_that_is_dropped_tells_those_who_wait() {
        let (flying, memory) = (Arc::new(Flying::default()), LocalMemory::new(1 << 20));
        let plan = || flying.plan(PIECE, READER, || memory.look_exactly(&PIECE, 0..10));
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
                let look = || memory.look_exactly(&PIECE, range.clone());
                let plan = flying.plan(PIECE, READER, look);
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
