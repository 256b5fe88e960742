//! Which bytes of an object are meant.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The strongest validator that a UFS gives for an object: two reads that carry the same
/// version return bytes of the same content, or fail with
/// [`Stale`](crate::ErrorKind::Stale).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileVersion {
    /// An object-store version id: old versions stay readable.
    Id(Arc<str>),
    /// An ETag as the store sent it, quotes included; reads carry it as `If-Match`.
    ETag(Arc<str>),
    /// A file of a local directory; compared before and after each read.
    Local {
        /// Modification time in nanoseconds since the Unix epoch.
        mtime_ns: i64,
        /// Inode change time in nanoseconds since the Unix epoch.
        ctime_ns: i64,
        /// Inode number.
        ino: u64,
    },
    /// Only a modification time, in nanoseconds since the Unix epoch: an HTTP server that
    /// sends no ETag. A change within the server's time resolution goes unseen.
    Modified(i64),
}

impl FileVersion {
    /// Feeds an unambiguous encoding of the version to `hasher`.
    pub(crate) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        let mut text = |tag: u8, s: &str| {
            hasher.update(&[tag]);
            hasher.update(&(s.len() as u64).to_le_bytes());
            hasher.update(s.as_bytes());
        };
        match self {
            Self::Id(id) => text(1, id),
            Self::ETag(tag) => text(2, tag),
            Self::Local {
                mtime_ns,
                ctime_ns,
                ino,
            } => {
                hasher.update(&[3]);
                hasher.update(&mtime_ns.to_le_bytes());
                hasher.update(&ctime_ns.to_le_bytes());
                hasher.update(&ino.to_le_bytes());
            }
            Self::Modified(mtime_ns) => {
                hasher.update(&[4]);
                hasher.update(&mtime_ns.to_le_bytes());
            }
        }
    }
}

impl fmt::Display for FileVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "version:{id}"),
            Self::ETag(tag) => write!(f, "etag:{tag}"),
            Self::Local {
                mtime_ns,
                ctime_ns,
                ino,
            } => {
                write!(f, "local:mtime={mtime_ns},ctime={ctime_ns},ino={ino}")
            }
            Self::Modified(mtime_ns) => write!(f, "modified:{mtime_ns}"),
        }
    }
}
