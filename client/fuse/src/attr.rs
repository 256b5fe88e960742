//! From the client's attributes to the kernel's.

use std::time::SystemTime;

use fuser::{FileAttr, FileType, INodeNo};
use millpond_client::{Attr, FileKind};

use crate::options::MountOptions;

/// Fills in what stores lack.
#[derive(Debug, Clone)]
pub(crate) struct AttrStyle {
    uid: u32,
    gid: u32,
    file_mode: u32,
    dir_mode: u32,
    /// The time of things that have none: when the mount was made.
    epoch: SystemTime,
}

impl AttrStyle {
    pub(crate) fn new(options: &MountOptions, now: SystemTime) -> Self {
        Self {
            uid: options.uid,
            gid: options.gid,
            file_mode: options.file_mode & !options.umask & PERMISSIONS,
            dir_mode: options.dir_mode & !options.umask & PERMISSIONS,
            epoch: now,
        }
    }

    pub(crate) fn file_attr(&self, ino: u64, attr: &Attr) -> FileAttr {
        let kind = file_type(attr.kind);
        let mode = attr.mode.unwrap_or(match kind {
            FileType::Directory => self.dir_mode,
            FileType::Symlink => 0o777,
            _ => self.file_mode,
        });
        let time = attr.mtime.unwrap_or(self.epoch);
        FileAttr {
            ino: INodeNo(ino),
            size: attr.size,
            blocks: attr.size.div_ceil(512),
            atime: attr.atime.unwrap_or(time),
            mtime: time,
            ctime: attr.ctime.unwrap_or(time),
            crtime: time,
            kind,
            perm: (mode & PERMISSIONS) as u16,
            // One, also for directories, where the store has no number: 2 would tell old
            // `find`s that there is no subdirectory.
            nlink: attr.nlink.unwrap_or(1),
            uid: attr.uid.unwrap_or(self.uid),
            gid: attr.gid.unwrap_or(self.gid),
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }

    /// The attributes of something of the mount's own.
    pub(crate) fn of_mount(&self, ino: u64, kind: FileType, perm: u16, size: u64) -> FileAttr {
        FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: self.epoch,
            mtime: self.epoch,
            ctime: self.epoch,
            crtime: self.epoch,
            kind,
            perm,
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }
}

/// The attributes of one version of a file, in little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    size: u64,
    atime: SystemTime,
    mtime: SystemTime,
    ctime: SystemTime,
    nlink: u32,
    uid: u32,
    gid: u32,
    perm: u16,
}

impl Kept {
    /// Of what [`AttrStyle::file_attr`] made of a file.
    pub(crate) const fn of(attr: &FileAttr) -> Self {
        Self {
            size: attr.size,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            perm: attr.perm,
        }
    }

    /// What it was made of, with the number `ino`.
    pub(crate) const fn attr(self, ino: u64) -> FileAttr {
        FileAttr {
            ino: INodeNo(ino),
            size: self.size,
            blocks: self.size.div_ceil(512),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            crtime: self.mtime,
            kind: FileType::RegularFile,
            perm: self.perm,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }
}

pub(crate) const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
    }
}

const PERMISSIONS: u32 = 0o7777;

/// `st_blksize`: what buffered readers use as their buffer's size.
const BLOCK_SIZE: u32 = 128 << 10;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn attr(kind: FileKind, size: u64) -> Attr {
        Attr {
            kind,
            size,
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

    fn style() -> AttrStyle {
        let options = MountOptions {
            uid: 7,
            gid: 8,
            file_mode: 0o666,
            dir_mode: 0o777,
            umask: 0o027,
            ..MountOptions::default()
        };
        AttrStyle::new(&options, SystemTime::UNIX_EPOCH + Duration::from_secs(5))
    }

    #[test]
    fn what_the_store_lacks_comes_from_the_options() {
        let file = style().file_attr(9, &attr(FileKind::File, 1025));
        assert_eq!((file.ino, file.uid, file.gid), (INodeNo(9), 7, 8));
        assert_eq!(file.perm, 0o640);
        assert_eq!((file.size, file.blocks), (1025, 3));
        assert_eq!(file.mtime, SystemTime::UNIX_EPOCH + Duration::from_secs(5));
        let dir = style().file_attr(9, &attr(FileKind::Directory, 0));
        assert_eq!((dir.kind, dir.perm), (FileType::Directory, 0o750));
    }

    #[test]
    fn kept_attributes_are_those_that_were_given() {
        let mut real = attr(FileKind::File, 12_345);
        real.mode = Some(0o4755);
        real.mtime = Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_891));
        real.nlink = Some(3);
        let given = style().file_attr(9, &real);
        assert_eq!(Kept::of(&given).attr(9), given);
    }

    #[test]
    fn what_the_store_has_wins() {
        let mut real = attr(FileKind::File, 1);
        real.mode = Some(0o104_755);
        real.uid = Some(0);
        real.gid = Some(1);
        real.mtime = Some(SystemTime::UNIX_EPOCH);
        let file = style().file_attr(9, &real);
        assert_eq!((file.perm, file.uid, file.gid), (0o4755, 0, 1));
        assert_eq!(file.mtime, SystemTime::UNIX_EPOCH);
    }
}
