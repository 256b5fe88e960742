//! The null file system's answers.

use std::ffi::OsStr;
use std::io;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, Request,
};
use millpond_fuse::session;

use super::NullFuseSettings;
use crate::limits::content::Content;

/// Files of equal content in one directory, answered from one buffer.
#[derive(Debug)]
pub(super) struct NullFiles {
    /// The content's period, and once more its beginning, so that no answer crosses the end.
    buffer: Vec<u8>,
    period: u64,
    files: u64,
    size: u64,
    ttl: Duration,
    owner: (u32, u32),
    flags: FopenFlags,
}

/// Inode 1 is the root, 2 is file 0.
const FIRST: u64 = 2;
/// The offsets of `.` and `..`.
const DOTS: u64 = 2;

impl NullFiles {
    pub(super) fn new(
        size: u64,
        content: &Content,
        period: u64,
        settings: &NullFuseSettings,
    ) -> Self {
        let options = settings.mount_options();
        let len = period + u64::from(session::MAX_REQUEST);
        let mut flags = session::open_flags(true, false);
        if settings.direct_io {
            flags |= FopenFlags::FOPEN_DIRECT_IO;
        }
        Self {
            buffer: content.bytes(0, len as usize),
            period,
            files: settings.files,
            size,
            ttl: settings.metadata_ttl.unwrap_or(Duration::from_secs(1)),
            owner: (options.uid, options.gid),
            flags,
        }
    }

    /// The inode of a name.
    fn find(&self, parent: INodeNo, name: &OsStr) -> Option<u64> {
        let index: u64 = name.to_str()?.parse().ok()?;
        (parent == INodeNo::ROOT && index < self.files).then_some(index + FIRST)
    }

    fn attr(&self, ino: u64) -> FileAttr {
        attr(ino, self.size, self.owner)
    }

    /// Inode, type and name of the entry at `offset`.
    fn entry(&self, offset: u64) -> Option<(u64, FileType, String)> {
        match offset {
            0 => Some((1, FileType::Directory, ".".to_owned())),
            1 => Some((1, FileType::Directory, "..".to_owned())),
            _ => {
                let index = offset - DOTS;
                let name = (index < self.files).then(|| index.to_string())?;
                Some((index + FIRST, FileType::RegularFile, name))
            }
        }
    }
}

impl Filesystem for NullFiles {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        session::negotiate(config);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name) {
            Some(ino) => reply.entry(&self.ttl, &self.attr(ino), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&self.ttl, &self.attr(ino.0));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), self.flags);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = self.size.saturating_sub(offset).min(u64::from(size)) as usize;
        let start = (offset % self.period) as usize;
        match self.buffer.get(start..start + len) {
            Some(data) => reply.data(data),
            None => reply.error(Errno::EINVAL),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for at in offset.. {
            let Some((ino, kind, name)) = self.entry(at) else {
                break;
            };
            if reply.add(INodeNo(ino), at + 1, kind, &name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        for at in offset.. {
            let Some((ino, _, name)) = self.entry(at) else {
                break;
            };
            let (ino_no, attr) = (INodeNo(ino), self.attr(ino));
            if reply.add(ino_no, at + 1, &name, &self.ttl, &attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}

/// The root for inode 1, else a file of `size` bytes.
pub(super) fn attr(ino: u64, size: u64, owner: (u32, u32)) -> FileAttr {
    let root = ino == INodeNo::ROOT.0;
    let time = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ino),
        size: if root { 0 } else { size },
        blocks: if root { 0 } else { size.div_ceil(512) },
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: if root {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: if root { 0o755 } else { 0o644 },
        nlink: 1,
        uid: owner.0,
        gid: owner.1,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
