//! Where a process keeps blocks: a memory tier, a disk tier, and both behind one [`Store`].
//!
//! Blocks are immutable: an id never stands for two contents, so nothing is ever
//! invalidated, and losing a block costs a refill and nothing else. Every tier has a limit
//! in bytes that holds at all times.
//!
//! | module | holds |
//! |---|---|
//! | [`block`] | [`Block`] and [`Hit`]: bytes with a checksum per page |
//! | [`memory`] | [`MemoryTier`]: whole blocks in memory, weighed in bytes |
//! | [`disk`] | [`DiskTier`]: one plain file per block, in one directory |
//! | [`policy`] | [`Policy`]: what a full tier does with a block |
//! | [`store`] | [`Store`]: memory, then the directories of the disk tier |
//! | [`stats`] | what a store counts |

mod admission;
pub mod block;
pub mod disk;
mod disks;
mod hold;
pub mod memory;
pub mod policy;
pub mod stats;
pub mod store;

pub use admission::{Admission, Inserted, Refusal};
pub use block::{Block, Hit};
pub use disk::{Access, DiskConfig, DiskTier, Scrub, SharedFile};
pub use memory::MemoryTier;
pub use millpond_disk::{BreakerState, DiskError};
pub use policy::Policy;
pub use stats::{DiskHealth, StoreStats};
pub use store::{Store, StoreConfig};
