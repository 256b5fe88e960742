//! What can fail when a store is opened, and what becomes of an insert.

use std::io;
use std::path::PathBuf;

use millpond_proto::ErrorKind;

/// A store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the directory.
    #[error(
        "block directory {path} is in use by another process; give each process its own",
        path = path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds the blocks of another cluster.
    #[error(
        "block directory {path} belongs to cluster {found}, this process to {expected}; \
         name another directory or empty this one",
        path = path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose blocks it holds.
        found: String,
        /// Who wants to use it.
        expected: String,
    },
    /// The directory was written by an unknown release.
    #[error(
        "block directory {path} has format {found}, this release reads {expected}; \
         name another directory or empty this one",
        path = path.display()
    )]
    Format {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format of this release.
        expected: u32,
    },
    /// The directory is somebody else's.
    #[error(
        "{path} is not a block directory and not empty ({entry:?} is in it); \
         name an empty or new directory",
        path = path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Something that is in it.
        entry: String,
    },
    /// A file or directory could not be used.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl StoreError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::Busy,
            Self::OtherCluster { .. } | Self::Format { .. } | Self::NotOurs { .. } => {
                ErrorKind::Invalid
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::Denied
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            },
        }
    }
}

/// What became of an insert. Never an error: a cache may always decline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// At least one tier took the block, or is about to.
    Accepted,
    /// The block was there already.
    Present,
    /// No tier took it.
    Refused(Refusal),
}

/// Why a block was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is larger than the whole tier.
    TooLarge,
    /// Too much is being written at the moment.
    Busy,
    /// The disk failed or is full.
    Disk,
    /// The store is shutting down.
    Closed,
}
