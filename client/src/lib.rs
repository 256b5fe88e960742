//! The Millpond client: a filesystem API over a mount table, a tier of cache nodes
//! and the stores behind them. There is no FUSE in it.
//!
//! - [`FileSystem`] resolves paths, answers `stat` and `list`, and opens files.
//! - [`FileHandle`] reads one version of one file: local memory, local disk, the nodes that
//!   own its blocks, and the UFS itself, whichever answers first.
//!
//! | module | holds |
//! |---|---|
//! | `filesystem`, `file` | the API |
//! | `connect` | how a client becomes part of a cluster |
//! | `core`, `tasks`, `flights`, `budget` | shared state; tasks; single-flight; the memory limit |
//! | `snapshot`, `namespace` | the view of the moment; which mount holds a path |
//! | `names` | changes of names and attributes |
//! | `target`, `changed` | where a change takes place; who hears of it |
//! | `open`, `prefetch` | opening a file; files fetched before they are opened |
//! | `lookup`, `listing`, `metadata` | attributes, directories, and their cache |
//! | `pieces`, `readahead`, `pace` | the planner, the stream detector, the measure of a source: all pure |
//! | `fetch`, `peers` | each byte is fetched once; the race of the sources |
//! | `write` | files that are being written |
//! | `memory`, `disk` | the local tiers |
//! | `location`, `sources`, `metrics`, `stats` | where blocks are; where bytes came from; counters |
//!
//! # Invariants
//! - A read returns bytes of exactly one version of the file, or an error.
//! - Memory for data never exceeds [`ClientConfig::memory`], whatever is read.
//! - A failing node, or no node at all, costs speed and never an error: every byte can be
//!   read from the UFS directly.

mod attr;
mod budget;
mod changed;
mod config;
mod connect;
mod core;
mod detour;
mod disk;
mod error;
mod fetch;
mod file;
mod filesystem;
mod flights;
mod listing;
mod load;
mod location;
mod lookup;
mod memory;
mod metadata;
mod metrics;
mod names;
mod namespace;
mod news;
mod open;
mod owner;
mod pace;
mod peers;
mod pieces;
mod prefetch;
mod readahead;
mod snapshot;
mod sources;
mod stats;
mod target;
mod tasks;
#[cfg(test)]
mod tests;
mod write;

pub use attr::{Attr, DirEntry, FileKind, StatFs};
pub use config::ClientConfig;
pub use disk::Backing;
pub use error::ClientError;
pub use file::FileHandle;
pub use filesystem::FileSystem;
pub use listing::Page;
pub use load::Loaded;
pub use location::{BlockLocation, BlockReport, CachedAt, FileLocation, LocationReport};
pub use lookup::Found;
pub use metadata::Directory;
pub use millpond_disk::DiskError;
pub use millpond_ufs::{AttributeChange, Attributes, RenameMode, Space};
pub use news::Changes;
pub use owner::Refreshed;
pub use prefetch::{HintList, PrefetchProgress, Trace};
pub use sources::SourceBytes;
pub use stats::ClientStats;
pub use write::{Draft, Writer};
