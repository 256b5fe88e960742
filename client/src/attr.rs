//! What is known of a file or directory.

use std::sync::Arc;
use std::time::SystemTime;

use millpond_proto::{FileId, FileVersion, MountId};
use millpond_ufs::{Metadata, Ufs};
use serde::Serialize;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A file with bytes.
    File,
    /// A directory.
    Directory,
    /// A symbolic link (local directories only).
    Symlink,
}

impl From<millpond_ufs::FileKind> for FileKind {
    fn from(kind: millpond_ufs::FileKind) -> Self {
        match kind {
            millpond_ufs::FileKind::File => Self::File,
            millpond_ufs::FileKind::Directory => Self::Directory,
            millpond_ufs::FileKind::Symlink => Self::Symlink,
        }
    }
}

/// The attributes of a file, directory or link.
///
/// - `version` and `file_id` are set for files whenever `stat` answers; an entry of a listing
///   lacks them where the store's listing does not tell the version.
/// - `mode`, `uid`, `gid` and `nlink` are absent where the store has none: the adapter above decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes; 0 for directories, the target's length for links.
    pub size: u64,
    /// When the content changed last.
    pub mtime: Option<SystemTime>,
    /// When it was accessed last, where the store has that.
    pub atime: Option<SystemTime>,
    /// When its content or attributes changed last, where the store has that.
    pub ctime: Option<SystemTime>,
    /// Permission bits (the lower 12 of `st_mode`).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Number of hard links.
    pub nlink: Option<u32>,
    /// Which content the object has.
    pub version: Option<FileVersion>,
    /// The identity of that content: equal ids mean equal bytes.
    pub file_id: Option<FileId>,
    /// The mount that holds it; none for directories above all mounts.
    pub mount: Option<MountId>,
    /// The object's canonical URI in its store; empty for directories above all mounts.
    pub ufs_uri: Arc<str>,
}

impl Attr {
    /// A directory that no store knows of: it lies above a mount.
    pub(crate) fn virtual_directory() -> Self {
        Self {
            kind: FileKind::Directory,
            size: 0,
            mtime: None,
            atime: None,
            ctime: None,
            mode: None,
            uid: None,
            gid: None,
            nlink: None,
            version: None,
            file_id: None,
            mount: None,
            ufs_uri: Arc::from(""),
        }
    }

    /// A directory because `mount` begins there, whatever its store says.
    pub(crate) fn mount_root(mount: MountId, ufs_uri: &str) -> Self {
        Self {
            mount: Some(mount),
            ufs_uri: Arc::from(ufs_uri),
            ..Self::virtual_directory()
        }
    }

    /// What the store says of `below`, a path under `mount`.
    pub(crate) fn of(metadata: Metadata, mount: MountId, ufs: &dyn Ufs, below: &str) -> Self {
        let ufs_uri = ufs.object_uri(below);
        let file_id = metadata
            .version
            .as_ref()
            .map(|version| FileId::derive(&ufs_uri, version, metadata.size));
        Self {
            kind: metadata.kind.into(),
            size: metadata.size,
            mtime: metadata.mtime,
            atime: metadata.atime,
            ctime: metadata.ctime,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            nlink: metadata.nlink,
            version: metadata.version,
            file_id,
            mount: Some(mount),
            ufs_uri: Arc::from(ufs_uri),
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether it is a file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }
}

/// A name in a directory. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// One path component.
    pub name: Arc<str>,
    /// What it names.
    pub attr: Arc<Attr>,
}

/// Figures for `statfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StatFs {
    /// The cluster's block size in bytes.
    pub block_size: u32,
    /// Bytes that the cache nodes in service can hold together; the local tiers' capacity
    /// when there is no node.
    pub capacity: u64,
    /// Cache nodes in service.
    pub nodes: usize,
    /// Mounts.
    pub mounts: usize,
}
