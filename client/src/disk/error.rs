//! Why the local disk tier cannot be opened.

use std::io;
use std::path::{Path, PathBuf};

use millpond_proto::ErrorKind;

/// The cache directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has the directory.
    #[error(
        "cache directory {path} is in use by another mount; give each mount its own",
        path = path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to a mount of another cluster.
    #[error(
        "cache directory {path} belongs to a mount of cluster {found}, this mount is of \
         {expected}; name another directory or empty this one",
        path = path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose files it holds.
        found: String,
        /// Who wants to use it.
        expected: String,
    },
    /// The directory was written by an unknown release.
    #[error(
        "cache directory {path} has format {found}, this release reads {expected}; \
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
    /// The directory holds blocks.
    #[error(
        "{path} holds blocks, one file each, of a cache node or of a mount of an earlier \
         release; name another directory, or empty this one if no cache node uses it",
        path = path.display()
    )]
    Blocks {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is somebody else's.
    #[error(
        "{path} is not a cache directory and not empty ({entry:?} is in it); \
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

impl DiskError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::Busy,
            Self::OtherCluster { .. }
            | Self::Format { .. }
            | Self::Blocks { .. }
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

    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}
