//! The kernel adapter: FUSE requests in, replies out, errno. Nothing else.
//!
//! Everything that knows about blocks, caches, peers and stores is behind
//! [`millpond_client::FileSystem`]. This package keeps what the kernel makes a file system
//! keep: inode numbers with their lookup counts, open handles, directory cursors and which
//! version's pages the kernel may hold.
//!
//! | module | holds |
//! |---|---|
//! | [`mounted`] | [`MountedFs`]: one live mount, from checks to unmount |
//! | [`options`] | [`MountOptions`] |
//! | [`preflight`] | what is checked before a mount, each with an error that says what to do |
//! | [`session`] | what the kernel is asked for, the same for every mount |
//! | [`unmount`] | taking a mount away: clean, lazy or forced |
//! | [`dead`] | mounts whose process has ended |
//! | [`mountinfo`] | the kernel's list of mounts |
//! | [`errno`] | the one table from error kind to errno |
//! | [`metrics`] | [`FuseMetrics`] |
//! | [`control`] | the virtual directory `.millpond`: figures, settings, hints |
//! | `latency` | how long requests took |
//! | `adapter` | the kernel calls, one short function each |
//! | `inode` | inode numbers, lookup counts, which version an inode stands for |
//! | `dir` | directory cursors with bounded memory |
//! | `whole_dir` | directories whose listing is in memory |
//! | `kernel_dirs` | which listings the kernel may keep |
//! | `invalidation` | has the kernel drop what changed |
//! | `held` | files that are read without having been opened |
//! | `passthrough` | files that the kernel reads itself |
//!
//! Invariants about what is absent: no path is stored twice (an inode knows its parent and
//! its own name), no request waits on a fuser thread for anything slower than memory, no
//! lock is held across an await, no handler sends a page invalidation.

mod adapter;
mod attr;
mod closers;
pub mod control;
pub mod dead;
mod dir;
pub mod errno;
mod handles;
mod held;
mod inode;
mod invalidation;
mod kernel;
mod kernel_dirs;
mod latency;
pub mod metrics;
pub mod mounted;
pub mod mountinfo;
pub mod options;
mod passthrough;
pub mod preflight;
pub mod session;
mod shared;
pub mod unmount;
mod whole_dir;

/// The extended attribute of a file that tells where its blocks are, as JSON of a
/// [`LocationReport`](millpond_client::LocationReport).
pub const LOCATION_XATTR: &str = adapter::LOCATION;

pub use latency::LatencyCounts;
pub use metrics::FuseMetrics;
pub use mounted::{MountError, MountStats, MountedFs, Unmounted};
pub use options::MountOptions;
pub use passthrough::Passthrough;
