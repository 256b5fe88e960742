//! The memory of a node: how `--memory` is shared out, and how the allocator is told to give
//! memory back.
#![allow(
    unsafe_code,
    reason = "glibc's allocator is tuned through a C function"
)]

use millpond_process::{Size, UsageError};
use millpond_proto::BlockSize;

/// The smallest `--memory`.
pub const MIN_MEMORY: Size = Size::mib(64);

/// How many blocks of the cluster's size must fit into `--memory`.
pub const MIN_BLOCKS: u64 = 16;

/// What a node's process uses at most beside `--memory`: code, stacks, connection windows,
/// packet buffers, metrics, and the index of a disk tier of up to 100,000 blocks.
pub const OVERHEAD: Size = Size::mib(96);

/// `--memory`, shared out: every byte of block data and metadata is in one of these
/// accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Bytes of the memory tier.
    pub tier: u64,
    /// Bytes of blocks that are being filled.
    pub fills: u64,
    /// Bytes of blocks that wait to be written to disk.
    pub writes: u64,
    /// Bytes of blocks on their way to clients and nodes.
    pub replies: u64,
    /// Bytes of attributes and listings.
    pub metadata: u64,
}

impl MemoryPlan {
    /// A quarter for fills, a sixteenth each for writes and replies, a thirty-second for
    /// metadata, up to what keeps a fast network and disk busy; the rest for the tier.
    pub fn of(memory: Size) -> Self {
        let fills = (memory.0 / 4).min(512 << 20);
        let writes = (memory.0 / 16).min(128 << 20);
        let replies = (memory.0 / 16).min(256 << 20);
        let metadata = (memory.0 / 32).min(128 << 20);
        Self {
            tier: memory.0 - fills - writes - replies - metadata,
            fills,
            writes,
            replies,
            metadata,
        }
    }

    /// Checks that blocks of `block_size` fit each account.
    ///
    /// # Errors
    /// [`UsageError`] that names the smallest memory that would do.
    pub fn check(memory: Size, block_size: BlockSize) -> Result<(), UsageError> {
        let least = Size(block_size.bytes() * MIN_BLOCKS).max(MIN_MEMORY);
        if memory >= least {
            return Ok(());
        }
        Err(UsageError::new(format!(
            "memory of {memory} is too little for blocks of {block_size}: it must be at least \
             {least}; raise --memory"
        )))
    }
}

/// Makes freed blocks go back to the system at once, so that the process's memory follows
/// what it holds. Call it first, before other threads exist.
///
/// - Every allocation of 256 KiB or more gets a mapping of its own. By default glibc raises
///   this limit to the size of the first freed block, and block-sized holes in its arenas
///   then pile up.
/// - Two arenas instead of eight per core: a task's small allocations are freed on whichever
///   thread runs it, and each arena keeps its own holes.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, 256 << 10),
        (libc::M_ARENA_MAX, 2),
        (libc::M_TRIM_THRESHOLD, 1 << 20),
    ] {
        // SAFETY: mallopt only stores numbers of the allocator's own, under its own lock; it
        // has no other preconditions. A refused value (0) leaves the default.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Physical memory that the process may use, in bytes: that of the machine, or of its
/// control group where that is less; none where neither can be read.
pub fn usable_memory() -> Option<u64> {
    let machine = nix::unistd::sysconf(nix::unistd::SysconfVar::_PHYS_PAGES);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let machine = match (machine, page) {
        (Ok(Some(pages)), Ok(Some(page))) => Some((pages as u64).saturating_mul(page as u64)),
        _ => None,
    };
    let group = ["/sys/fs/cgroup/memory.max"].into_iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse::<u64>().ok()
    });
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_add_up_to_the_limit() {
        for memory in [MIN_MEMORY, Size::gib(1), Size(123_456_789)] {
            let plan = MemoryPlan::of(memory);
            let sum = plan.tier + plan.fills + plan.writes + plan.replies + plan.metadata;
            assert_eq!(sum, memory.0);
            assert!(plan.tier >= memory.0 / 2);
        }
    }

    #[test]
    fn every_account_holds_a_block_of_every_accepted_size() {
        for bits in 16..=26 {
            let block_size = BlockSize::new(1 << bits).unwrap();
            let least = Size(block_size.bytes() * MIN_BLOCKS).max(MIN_MEMORY);
            assert!(MemoryPlan::check(least, block_size).is_ok());
            let plan = MemoryPlan::of(least);
            assert!(plan.replies.min(plan.writes) >= block_size.bytes());
            let error = MemoryPlan::check(Size(least.0 - 1), block_size).unwrap_err();
            assert!(error.to_string().contains(&least.to_string()), "{error}");
        }
    }
}
