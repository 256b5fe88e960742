//! The Millpond client: a read-only filesystem API over a mount table, a tier of cache nodes
//! and the stores behind them. There is no FUSE in it.
//!
//! - [`FileSystem`] resolves paths, answers `stat` and `list`, and opens files.
//! - [`FileHandle`] reads one version of one file: local memory, local disk, the nodes that
//!   own its blocks, and the UFS itself, whichever answers first.
//!
//! # Invariants
//! - A read returns bytes of exactly one version of the file, or an error.
//! - Memory for data never exceeds [`ClientConfig::memory`], whatever is read.
//! - A failing node, or no node at all, costs speed and never an error: every byte can be
//!   read from the UFS directly.

mod attr;
mod config;
mod error;
mod file;
mod filesystem;
mod location;
mod sources;

pub use attr::{Attr, DirEntry, FileKind, StatFs};
pub use config::ClientConfig;
pub use error::ClientError;
pub use file::FileHandle;
pub use filesystem::FileSystem;
pub use location::{BlockLocation, FileLocation};
pub use sources::SourceBytes;
