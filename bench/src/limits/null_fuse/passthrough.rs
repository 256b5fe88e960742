//! One local file, passed through.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use fuser::{
    BackingId, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    Request,
};
use millpond_fuse::session;
use parking_lot::Mutex;

use super::filesystem::attr;

/// The kernel reads the backing file itself: a read that gets here is an error.
#[derive(Debug)]
pub(super) struct Passthrough {
    backing: File,
    size: u64,
    owner: (u32, u32),
    able: bool,
    /// Of the first open, for all others too: an inode has one.
    id: Mutex<Option<BackingId>>,
}

const FILE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(1);

impl Passthrough {
    pub(super) fn new(backing: &Path, size: u64, owner: (u32, u32)) -> Result<Self> {
        let file = File::open(backing);
        Ok(Self {
            backing: file.with_context(|| format!("cannot open {}", backing.display()))?,
            size,
            owner,
            able: false,
            id: Mutex::new(None),
        })
    }
}

impl Filesystem for Passthrough {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        session::negotiate(config);
        self.able = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        // One file system below this one, which is not itself stacked.
        self.able &= config.set_max_stack_depth(1).is_ok();
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == "0" {
            reply.entry(&TTL, &attr(FILE.0, self.size, self.owner), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino.0, self.size, self.owner));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if !self.able {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let mut id = self.id.lock();
        if id.is_none() {
            match reply.open_backing(&self.backing) {
                Ok(opened) => *id = Some(opened),
                Err(error) => return reply.error(error.into()),
            }
        }
        match &*id {
            Some(id) => reply.opened_passthrough(FileHandle(0), FopenFlags::FOPEN_NOFLUSH, id),
            None => reply.error(Errno::EIO),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.error(Errno::EIO);
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
}
