//! The memory budget: how the one limit is divided, and permits for data in flight.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pieces::TRANSFER;

/// Bytes of memory that one transfer or copy may use until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _held: OwnedSemaphorePermit,
}

/// Memory for data, divided. The parts add up to the client's limit.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes for the local memory tier.
    pub(crate) tier: u64,
    /// For transfers that a reader waits for. What no reader waits for yet has its room in
    /// the tier.
    demand: Arc<Semaphore>,
    /// For a second transfer of a piece beside a slow first one.
    hedge: Arc<Semaphore>,
    /// For what waits to be written to the local disk tier.
    spill: Arc<Semaphore>,
}

/// More than this waiting for the disk gains nothing: it cannot keep up.
const MOST_SPILLED: u64 = 64 << 20;

/// More than this in flight gains nothing: it is a 10 Gbit/s link with 100 ms to the store.
const MOST_IN_FLIGHT: u64 = 128 << 20;

impl Budget {
    /// Divides `memory` bytes; `disk` says whether there is a disk tier.
    ///
    /// A quarter is for transfers (at least 4 MiB), an eighth (at most 64 MiB) for what waits
    /// for the disk, the rest is the tier.
    ///
    /// # Errors
    /// The least memory that would do, if `memory` is less.
    pub(crate) fn divide(memory: u64, disk: bool) -> Result<Self, u64> {
        let in_flight = (memory / 4).clamp(4 * TRANSFER, MOST_IN_FLIGHT);
        let spill = if disk {
            (memory / 8).clamp(TRANSFER, MOST_SPILLED)
        } else {
            0
        };
        let least = 8 * TRANSFER;
        if memory < least {
            return Err(least);
        }
        let hedge = in_flight / 4;
        let demand = in_flight - hedge;
        let permits = |bytes: u64| {
            let most = Semaphore::MAX_PERMITS as u64;
            Arc::new(Semaphore::new(bytes.min(most) as usize))
        };
        Ok(Self {
            tier: memory - in_flight - spill,
            demand: permits(demand),
            hedge: permits(hedge),
            spill: permits(spill),
        })
    }

    /// Memory for `bytes` (at most a piece) that a reader waits for, as soon as there is some.
    pub(crate) async fn demand(&self, bytes: u32) -> Permit {
        wait(&self.demand, bytes).await
    }

    /// Memory for `bytes` of a hedge, if there is some now.
    pub(crate) fn try_hedge(&self, bytes: u32) -> Option<Permit> {
        try_now(&self.hedge, bytes)
    }

    /// Memory for `bytes` (at most a piece) that are to be written, if there is some now.
    pub(crate) fn try_spill(&self, bytes: u32) -> Option<Permit> {
        try_now(&self.spill, bytes)
    }

    /// The same, as soon as there is some.
    pub(crate) async fn spill(&self, bytes: u32) -> Permit {
        wait(&self.spill, bytes).await
    }
}

fn try_now(pool: &Arc<Semaphore>, bytes: u32) -> Option<Permit> {
    let held = Arc::clone(pool).try_acquire_many_owned(bytes).ok()?;
    Some(Permit { _held: held })
}

async fn wait(pool: &Arc<Semaphore>, bytes: u32) -> Permit {
    let held = Arc::clone(pool).acquire_many_owned(bytes).await;
    Permit {
        _held: held.expect("the semaphores of a budget are never closed"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The parts are the whole, each can hold what it is for, and the tier is no sliver.
        #[test]
        fn the_parts_add_up(mib in 1u64..4096, disk in any::<bool>()) {
            let memory = mib << 20;
            match Budget::divide(memory, disk) {
                Ok(budget) => {
                    let free = |s: &Semaphore| s.available_permits() as u64;
                    let parts = budget.tier
                        + free(&budget.demand)
                        + free(&budget.hedge)
                        + free(&budget.spill);
                    prop_assert_eq!(parts, memory);
                    prop_assert!(budget.tier >= memory / 4);
                    prop_assert!(free(&budget.demand) >= TRANSFER);
                    prop_assert!(free(&budget.hedge) >= TRANSFER);
                    prop_assert!(free(&budget.spill) >= u64::from(disk) * TRANSFER);
                }
                Err(least) => prop_assert!(least > memory),
            }
        }
    }

    #[tokio::test]
    async fn a_second_transfer_needs_memory_of_its_own() {
        let budget = Budget::divide(8 << 20, false).unwrap();
        let mib = TRANSFER as u32;
        let hedge = budget.try_hedge(mib);
        assert!(hedge.is_some());
        assert!(budget.try_hedge(mib).is_none());
        let readers = [budget.demand(mib).await, budget.demand(mib).await];
        drop(hedge);
        assert!(budget.try_hedge(mib).is_some());
        drop(readers);
    }
}
