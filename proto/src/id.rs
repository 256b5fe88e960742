//! Identifiers. Each is a newtype, so that two of them cannot be swapped by accident.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::version::FileVersion;

/// One immutable version of one object: 128 bits of BLAKE3 over the canonical UFS URI of
/// the object, its [`FileVersion`] and its size in bytes.
///
/// - A changed object has a new id, so cached blocks never need to be invalidated.
/// - Two mounts of the same bucket give the same id to the same object and share blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId(pub [u8; 16]);

impl FileId {
    /// Derives the id of the object at `uri` (canonical, as the UFS prints it) in `version`
    /// with `size` bytes. The input is length-prefixed, so no two inputs collide by layout.
    pub fn derive(uri: &str, version: &FileVersion, size: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"millpond file v1\0");
        hasher.update(&(uri.len() as u64).to_le_bytes());
        hasher.update(uri.as_bytes());
        version.hash_into(&mut hasher);
        hasher.update(&size.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FileId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let mut id = [0; 16];
        hex::decode_to_slice(s, &mut id).map_err(|_| ParseIdError("32 hexadecimal digits"))?;
        Ok(Self(id))
    }
}

/// A fixed-size piece of one file version: the unit of placement, caching and fill.
///
/// Block `index` holds bytes `[index * block_size, (index + 1) * block_size)` of the file;
/// the last block is short. Prints as `<file id>.<index>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockId {
    /// The file version that the block belongs to.
    pub file: FileId,
    /// The number of the block in the file, from 0.
    pub index: u64,
}

impl BlockId {
    /// Block number `index` of `file`.
    pub const fn new(file: FileId, index: u64) -> Self {
        Self { file, index }
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.file, self.index)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlockId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let wrong = ParseIdError("<32 hexadecimal digits>.<index>");
        let (file, index) = s.split_once('.').ok_or(wrong)?;
        Ok(Self {
            file: file.parse()?,
            index: index.parse().map_err(|_| wrong)?,
        })
    }
}

/// The text was not an identifier of the expected form, which the message gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed identifier, expected {0}")]
pub struct ParseIdError(&'static str);

/// A cache node, numbered by the coordinator from 1 in the order of first join and kept by
/// the node in its data directory. Prints as `node-7`, which is also its TLS name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        s.strip_prefix("node-")
            .unwrap_or(s)
            .parse()
            .map(Self)
            .map_err(|_| ParseIdError("node-<number>"))
    }
}

/// A mount-table entry. Numbered by the coordinator from 1 and never reused, so a removed
/// and re-added mount is a new one. 0 is the only mount of a standalone client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MountId(pub u64);

impl fmt::Display for MountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The version of membership and ring. Advances with every change of membership or weight.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A cluster, drawn at random when its coordinator first starts. Data directories carry it,
/// so that a node never serves the blocks of one cluster to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClusterId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let mut id = [0; 16];
        hex::decode_to_slice(s, &mut id).map_err(|_| ParseIdError("32 hexadecimal digits"))?;
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id is written into block file names and certificates: it may never change.
    #[test]
    fn golden_file_ids_are_stable() {
        let etag = FileVersion::ETag("\"9b2cf5\"".into());
        let id = FileId::derive("s3://bucket/a/b.bin", &etag, 4096);
        assert_eq!(id.to_string(), "024fd37f734edf134dd057dfe539e034");
        let local = FileVersion::Local {
            mtime_ns: -1,
            ctime_ns: 7,
            ino: 42,
        };
        assert_eq!(
            FileId::derive("file:///x", &local, 0).to_string(),
            "907e0b8ff63ef96c9ad3315679496c02"
        );
    }

    #[test]
    fn every_part_of_the_identity_changes_the_id() {
        let v = |tag: &str| FileVersion::ETag(tag.into());
        let base = FileId::derive("s3://b/k", &v("1"), 1);
        assert_ne!(base, FileId::derive("s3://b/l", &v("1"), 1));
        assert_ne!(base, FileId::derive("s3://b/k", &v("2"), 1));
        assert_ne!(base, FileId::derive("s3://b/k", &v("1"), 2));
        assert_ne!(
            base,
            FileId::derive("s3://b/k", &FileVersion::Id("1".into()), 1)
        );
    }

    #[test]
    fn ids_print_and_parse_back() {
        let block = BlockId::new(FileId([0xab; 16]), 17);
        assert_eq!(block.to_string().parse(), Ok(block));
        assert_eq!("node-12".parse(), Ok(NodeId(12)));
        assert!("nope".parse::<BlockId>().is_err());
        assert!("node-".parse::<NodeId>().is_err());
    }
}
