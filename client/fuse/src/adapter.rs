//! The kernel's calls, one short function each: what is at hand is answered here, the rest
//! becomes a task that owns its reply.

mod directory;
mod file;
mod names;
mod read_only;
mod set_attributes;
mod statfs;
mod unopened;
mod writing;
mod xattr;

pub(crate) use xattr::LOCATION;

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use millpond_client::AttributeChange;

use crate::control;
use crate::metrics::{Op, Outcome};
use crate::session;
use crate::shared::{Shared, errno_logged, kernel_ttl};

/// Translates between the kernel and the client's file system.
#[derive(Debug)]
pub(crate) struct Adapter {
    shared: Arc<Shared>,
}

impl Adapter {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        session::negotiate(config);
        let shared = &self.shared;
        shared.passing.negotiate(config);
        shared.metrics.show_passthrough(shared.passing.state());
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if let Some(name) = name.to_str()
            && control::answers(parent, name)
        {
            return control::lookup(&self.shared, parent, name, reply);
        }
        let shared = Arc::clone(&self.shared);
        let timer = shared.metrics.start(Op::Lookup);
        let path = name.to_str().ok_or(Errno::ENOENT).and_then(|name| {
            let inodes = shared.inodes.lock();
            let path = inodes.child_path(parent.0, name).ok_or(Errno::ESTALE)?;
            if inodes.is_shared(parent.0, name) {
                // What is known of it may be from before a change by another name.
                shared.fs.forget(std::slice::from_ref(&path));
            }
            Ok((name, path))
        });
        let (name, path) = match path {
            Ok(path) => path,
            Err(errno) => {
                timer.finish(Outcome::Error);
                return reply.error(errno);
            }
        };
        if let Some(found) = shared.fs.look_up_cached(&path) {
            return shared.reply_entry(parent.0, name, Ok(found), reply, timer, Outcome::Hit);
        }
        let name = name.to_owned();
        let task = Arc::clone(&shared);
        shared.run(async move {
            let found = task.fs.look_up(&path).await;
            task.reply_entry(parent.0, &name, found, reply, timer, Outcome::Miss);
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        if control::is_control(ino) {
            return control::forget(&self.shared, ino);
        }
        let timer = self.shared.metrics.start(Op::Forget);
        let mut inodes = self.shared.inodes.lock();
        let gone = inodes.forget(ino.0, nlookup);
        self.shared.metrics.inodes.set(inodes.len() as i64);
        drop(inodes);
        if gone {
            self.shared.held.remove(ino.0);
            self.shared.kernel_dirs.forget(ino.0);
        }
        timer.finish(Outcome::Hit);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        if control::is_control(ino) {
            return control::getattr(&self.shared, ino, reply);
        }
        let shared = Arc::clone(&self.shared);
        let timer = shared.metrics.start(Op::Getattr);
        let (pinned, draft) = {
            let inodes = shared.inodes.lock();
            (inodes.pinned(ino.0), inodes.draft(ino.0))
        };
        if let Some(attr) = pinned {
            timer.finish(Outcome::Hit);
            return reply.attr(&shared.ttl, &attr);
        }
        if let Some(draft) = draft {
            timer.finish(Outcome::Hit);
            let attr = shared.style.file_attr(ino.0, &draft.attr());
            return reply.attr(&Default::default(), &attr);
        }
        let path = match shared.path(ino) {
            Ok(path) => path,
            Err(errno) => {
                timer.finish(Outcome::Error);
                return reply.error(errno);
            }
        };
        let cached = shared.fs.look_up_cached(&path);
        let task = Arc::clone(&shared);
        let answer = async move {
            let (found, outcome) = match cached {
                Some(found) => (Ok(found), Outcome::Hit),
                None => (task.fs.look_up(&path).await, Outcome::Miss),
            };
            let found = found
                .map_err(|error| errno_logged("getattr", &error))
                .and_then(|found| {
                    let attr = found.attr.ok_or(Errno::ENOENT)?;
                    Ok((task.attributes(ino.0, &attr)?, found.valid))
                });
            match found {
                Ok((attr, valid)) => {
                    timer.finish(outcome);
                    reply.attr(&kernel_ttl(valid), &attr);
                }
                Err(errno) => {
                    timer.finish(Outcome::Error);
                    reply.error(errno);
                }
            }
        };
        shared.run(answer);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let shared = Arc::clone(&self.shared);
        let timer = shared.metrics.start(Op::Readlink);
        let task = Arc::clone(&shared);
        shared.run(async move {
            let target = match task.path(ino) {
                Ok(path) => task.fs.read_link(&path).await,
                Err(errno) => {
                    timer.finish(Outcome::Error);
                    return reply.error(errno);
                }
            };
            match target {
                Ok(target) => {
                    timer.finish(Outcome::Miss);
                    reply.data(target.as_bytes());
                }
                Err(error) => {
                    timer.finish(Outcome::Error);
                    reply.error(errno_logged("readlink", &error));
                }
            }
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if control::is_control(ino) && flags.acc_mode() == OpenAccMode::O_RDONLY {
            return control::open(reply);
        }
        file::open(&self.shared, ino, flags, req.pid(), reply);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if fh == unopened::HANDLE {
            if control::is_control(ino) {
                return control::read(&self.shared, ino, offset, size, reply);
            }
            return unopened::read(&self.shared, ino, offset, size, reply);
        }
        file::read(&self.shared, fh, offset, size, reply);
    }

    fn flush(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        if self.shared.read_only {
            // Nothing is ever dirty; the kernel does not ask again.
            return reply.error(Errno::ENOSYS);
        }
        writing::close(&self.shared, fh, req.pid(), reply);
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if control::is_control(ino) {
            return reply.ok();
        }
        file::release(&self.shared, fh, reply);
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        writing::flush(&self.shared, fh, "fsync", reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if control::is_control(ino) {
            return reply.opened(FileHandle(0), FopenFlags::empty());
        }
        directory::open(&self.shared, ino, reply);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        if control::is_control(ino) {
            return control::readdir(&self.shared, ino, offset, reply);
        }
        directory::read(&self.shared, ino, fh, offset, reply, Op::Readdir);
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        if control::is_control(ino) {
            return control::readdirplus(&self.shared, ino, offset, reply);
        }
        directory::read(&self.shared, ino, fh, offset, reply, Op::Readdirplus);
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        directory::release(&self.shared, fh, reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        statfs::statfs(&self.shared, ino, reply);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if control::is_control(ino) {
            return reply.error(Errno::NO_XATTR);
        }
        xattr::get(&self.shared, ino, name, size, reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if control::is_control(ino) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        xattr::list(&self.shared, ino, size, reply);
    }

    /// Not called while `default_permissions` lets the kernel check modes itself.
    fn access(&self, _req: &Request, _ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if self.shared.read_only && mask.contains(AccessFlags::W_OK) {
            return reply.error(Errno::EROFS);
        }
        reply.ok();
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        if self.shared.read_only {
            // The kernel then treats files as having no holes.
            return reply.error(Errno::ENOSYS);
        }
        writing::seek(&self.shared, fh, offset, whence, reply);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let asked = set_attributes::Asked {
            size,
            attributes: AttributeChange {
                mode: mode.map(|mode| mode & 0o7777),
                uid,
                gid,
                atime: atime.map(set_attributes::time),
                mtime: mtime.map(set_attributes::time),
                ..AttributeChange::default()
            },
        };
        set_attributes::set(&self.shared, ino, fh, asked, reply);
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        names::mknod(&self.shared, req, (parent, name), mode, reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        names::mkdir(&self.shared, req, (parent, name), mode, reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        names::unlink(&self.shared, parent, name, reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        names::rmdir(&self.shared, parent, name, reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        names::symlink(&self.shared, req, (parent, link_name), target, reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent, name), (newparent, newname));
        names::rename(&self.shared, from, to, flags, reply);
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        names::link(&self.shared, ino, (newparent, newname), reply);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if self.shared.read_only {
            return read_only::refuse(&self.shared, |errno| reply.error(errno));
        }
        if name
            .to_str()
            .is_some_and(|name| control::answers(parent, name))
        {
            return reply.error(Errno::EACCES);
        }
        match writing::Creation::new(req, parent, name, mode, flags) {
            Ok(creation) => writing::create(&self.shared, creation, reply),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if self.shared.read_only {
            return read_only::refuse(&self.shared, |errno| reply.error(errno));
        }
        let how = (write_flags, flags);
        writing::write(&self.shared, fh, offset, data, how, req.pid(), reply);
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let how = xattr::How::of(flags);
        xattr::change(&self.shared, ino, name, Some(value), how, reply);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        xattr::change(&self.shared, ino, name, None, xattr::How::Replace, reply);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if self.shared.read_only {
            return read_only::refuse(&self.shared, |errno| reply.error(errno));
        }
        match offset.checked_add(length) {
            Some(end) => writing::allocate(&self.shared, fh, offset..end, mode, reply),
            None => reply.error(Errno::EFBIG),
        }
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if self.shared.read_only {
            return read_only::refuse(&self.shared, |errno| reply.error(errno));
        }
        // The kernel then reads and writes itself, and does not ask again.
        reply.error(Errno::ENOSYS);
    }
}
