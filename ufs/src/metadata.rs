//! What is known of a file or directory without reading it.

use std::time::SystemTime;

use millpond_proto::FileVersion;
use millpond_proto::wire::query::{PathAttr, PathKind};

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file or an object.
    File,
    /// A directory, or a prefix that some key has.
    Directory,
    /// A symbolic link (local directories only).
    Symlink,
}

/// What is known of a file or directory without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What the path names.
    pub kind: FileKind,
    /// Length in bytes; of the target's text for a link; 0 for a directory.
    pub size: u64,
    /// Which bytes are meant. From [`Ufs::stat`](crate::Ufs::stat) always `Some` for a file;
    /// from a listing `None` where the listing does not carry it, or not yet safely: stat on
    /// open. Where both give one they give the same. Always `None` for other kinds.
    pub version: Option<FileVersion>,
    /// Last modification, where the store has one.
    pub mtime: Option<SystemTime>,
    /// Last access, where the store has one. Nodes do not pass it on.
    pub atime: Option<SystemTime>,
    /// Last change of attributes or content, where the store has one. Nodes do not pass it on.
    pub ctime: Option<SystemTime>,
    /// Permission bits (the low 12), where the store has them.
    pub mode: Option<u32>,
    /// Owner, where the store has one.
    pub uid: Option<u32>,
    /// Group, where the store has one.
    pub gid: Option<u32>,
    /// Number of hard links, where the store has it.
    pub nlink: Option<u32>,
}

impl Metadata {
    /// A file of which only this is known.
    pub fn file(size: u64, version: Option<FileVersion>, mtime: Option<SystemTime>) -> Self {
        Self {
            kind: FileKind::File,
            size,
            version,
            mtime,
            atime: None,
            ctime: None,
            mode: None,
            uid: None,
            gid: None,
            nlink: None,
        }
    }

    /// A directory of which nothing else is known.
    pub fn directory() -> Self {
        Self {
            kind: FileKind::Directory,
            size: 0,
            version: None,
            mtime: None,
            atime: None,
            ctime: None,
            mode: None,
            uid: None,
            gid: None,
            nlink: None,
        }
    }

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

impl From<Metadata> for PathAttr {
    fn from(metadata: Metadata) -> Self {
        Self {
            kind: match metadata.kind {
                FileKind::File => PathKind::File,
                FileKind::Directory => PathKind::Directory,
                FileKind::Symlink => PathKind::Symlink,
            },
            size: metadata.size,
            version: metadata.version,
            mtime: metadata.mtime.map(Self::pack_time),
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            nlink: metadata.nlink,
        }
    }
}

impl From<PathAttr> for Metadata {
    fn from(attr: PathAttr) -> Self {
        Self {
            kind: match attr.kind {
                PathKind::File => FileKind::File,
                PathKind::Directory => FileKind::Directory,
                PathKind::Symlink => FileKind::Symlink,
            },
            size: attr.size,
            version: attr.version,
            mtime: attr.mtime.and_then(PathAttr::unpack_time),
            atime: None,
            ctime: None,
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
        }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name: 1 to 255 bytes, no `/`, never `.` or `..`.
    pub name: String,
    /// What the name is.
    pub metadata: Metadata,
}
