//! Why a directory cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use millpond_proto::ErrorKind;

use crate::dir::DirKind;

/// A directory of a cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has the directory.
    #[error(
        "{kind} {path} is in use by another process; give each process its own",
        path = path.display()
    )]
    InUse {
        /// What the directory is for.
        kind: DirKind,
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds what belongs to another cluster.
    #[error(
        "{kind} {path} belongs to cluster {found}, this process to {expected}; \
         name another directory or empty this one",
        path = path.display()
    )]
    OtherCluster {
        /// What the directory is for.
        kind: DirKind,
        /// The directory.
        path: PathBuf,
        /// Whose data it holds.
        found: String,
        /// Who wants to use it.
        expected: String,
    },
    /// The directory was written by an unknown release.
    #[error(
        "{kind} {path} has format {found}, this release reads {expected}; \
         name another directory or empty this one",
        path = path.display()
    )]
    Format {
        /// What the directory is for.
        kind: DirKind,
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format of this release.
        expected: u32,
    },
    /// The directory is one of ours, for something else.
    #[error(
        "{path} is a {found}, not a {wanted}; name another directory, or empty this one if \
         nothing else uses it",
        path = path.display()
    )]
    OtherKind {
        /// The directory.
        path: PathBuf,
        /// What it is for.
        found: DirKind,
        /// What it was to be for.
        wanted: DirKind,
    },
    /// The directory is somebody else's.
    #[error(
        "{path} is not a {kind} and not empty ({entry:?} is in it); \
         name an empty or new directory",
        path = path.display()
    )]
    NotOurs {
        /// What the directory was to be for.
        kind: DirKind,
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

impl DiskError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::Busy,
            Self::OtherCluster { .. }
            | Self::Format { .. }
            | Self::OtherKind { .. }
            | Self::NotOurs { .. } => ErrorKind::Invalid,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::Denied
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            },
        }
    }

    /// [`DiskError::Io`].
    pub fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}
