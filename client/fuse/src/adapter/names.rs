//! Changes of names: mkdir, mknod, symlink, link, unlink, rmdir, rename.
//!
//! The kernel holds the locks of the directories concerned until it is answered, and takes the
//! change over by itself then: it is not told to drop anything.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use fuser::{Errno, INodeNo, RenameFlags, ReplyEmpty, ReplyEntry, Request};
use millpond_client::{Attr, Attributes, ClientError, RenameMode};
use tracing::Instrument;

use super::read_only;
use crate::control;
use crate::metrics::{Op, OpTimer, Outcome};
use crate::shared::{GENERATION, Shared, errno_logged, kernel_ttl};

/// One name that is to be made, removed or changed.
#[derive(Debug, Clone)]
struct At {
    parent: u64,
    name: String,
    path: String,
}

impl At {
    /// The name `name` in the directory `parent`.
    fn new(shared: &Shared, parent: INodeNo, name: &OsStr) -> Result<Self, Errno> {
        // Names that are not UTF-8 are in no store that Millpond reads.
        let name = name.to_str().ok_or(Errno::EILSEQ)?;
        if control::hides(parent.0, name) || control::is_control(parent) {
            return Err(Errno::EPERM);
        }
        let path = shared.inodes.lock().live_child_path(parent.0, name);
        Ok(Self {
            parent: parent.0,
            name: name.to_owned(),
            // The directory was removed.
            path: path.ok_or(Errno::ENOENT)?,
        })
    }
}

/// Whose what is made is, and what may be done with it. The kernel has taken the umask off.
pub(super) fn attributes(req: &Request, mode: u32) -> Attributes {
    Attributes {
        mode: Some(mode & PERMISSIONS),
        uid: Some(req.uid()),
        gid: Some(req.gid()),
        ..Attributes::default()
    }
}

pub(super) fn mkdir(
    shared: &Arc<Shared>,
    req: &Request,
    (parent, name): (INodeNo, &OsStr),
    mode: u32,
    reply: ReplyEntry,
) {
    let attributes = attributes(req, mode);
    make(
        shared,
        parent,
        name,
        reply,
        "mkdir",
        move |shared, at| async move { shared.fs.mkdir(&at.path, &attributes).await },
    );
}

/// Regular files alone: no store has others.
pub(super) fn mknod(
    shared: &Arc<Shared>,
    req: &Request,
    (parent, name): (INodeNo, &OsStr),
    mode: u32,
    reply: ReplyEntry,
) {
    if !shared.read_only && mode & libc::S_IFMT != libc::S_IFREG && mode & libc::S_IFMT != 0 {
        return reply.error(Errno::EPERM);
    }
    let attributes = attributes(req, mode);
    make(
        shared,
        parent,
        name,
        reply,
        "mknod",
        move |shared, at| async move { shared.fs.make_file(&at.path, &attributes).await },
    );
}

pub(super) fn symlink(
    shared: &Arc<Shared>,
    req: &Request,
    (parent, name): (INodeNo, &OsStr),
    target: &Path,
    reply: ReplyEntry,
) {
    let attributes = Attributes {
        mode: None,
        ..attributes(req, 0)
    };
    let target = target.to_str().map(str::to_owned);
    make(
        shared,
        parent,
        name,
        reply,
        "symlink",
        move |shared, at| async move {
            let target = target.ok_or_else(|| ClientError::BadPath {
                path: at.path.clone(),
                why: "what it is to point to is not UTF-8",
            })?;
            shared.fs.symlink(&at.path, &target, &attributes).await
        },
    );
}

/// Runs what makes something new, and tells the kernel of that.
fn make<F>(
    shared: &Arc<Shared>,
    parent: INodeNo,
    name: &OsStr,
    reply: ReplyEntry,
    op: &'static str,
    call: impl FnOnce(Arc<Shared>, At) -> F + Send + 'static,
) where
    F: Future<Output = Result<Attr, ClientError>> + Send,
{
    if shared.read_only {
        return read_only::refuse(shared, |errno| reply.error(errno));
    }
    let timer = shared.metrics.start(Op::Write);
    let at = match At::new(shared, parent, name) {
        Ok(at) => at,
        Err(errno) => {
            timer.finish(Outcome::Error);
            return reply.error(errno);
        }
    };
    let task = Arc::clone(shared);
    let request = async move {
        match call(Arc::clone(&task), at.clone()).await {
            Ok(attr) => entry(&task, &at, &attr, reply, timer),
            Err(error) => {
                timer.finish(Outcome::Error);
                reply.error(errno_logged(op, &error));
            }
        }
    };
    shared.run(request.instrument(tracing::debug_span!("make", op)));
}

/// Answers with what is at the name now.
fn entry(shared: &Shared, at: &At, attr: &Attr, reply: ReplyEntry, timer: OpTimer) {
    let valid = shared.fs.look_up_cached(&at.path);
    let valid = kernel_ttl(valid.map(|found| found.valid).unwrap_or_default());
    match shared.remember(at.parent, &at.name, attr) {
        Ok(attr) => {
            timer.finish(Outcome::Miss);
            reply.entry(&valid, &attr, GENERATION);
        }
        Err(errno) => {
            timer.finish(Outcome::Error);
            reply.error(errno);
        }
    }
}

pub(super) fn link(
    shared: &Arc<Shared>,
    ino: INodeNo,
    (parent, name): (INodeNo, &OsStr),
    reply: ReplyEntry,
) {
    let from = live_path(shared, ino);
    make(
        shared,
        parent,
        name,
        reply,
        "link",
        move |shared, at| async move {
            let from = from.ok_or_else(|| ClientError::NotFound {
                path: at.path.clone(),
            })?;
            let attr = shared.fs.hard_link(&from, &at.path).await?;
            shared.inodes.lock().link(ino.0, at.parent, &at.name);
            shared.forget_names(ino.0);
            Ok(attr)
        },
    );
}

/// The path of `ino`, unless what it stands for was removed.
fn live_path(shared: &Shared, ino: INodeNo) -> Option<String> {
    if control::is_control(ino) {
        return None;
    }
    shared.inodes.lock().live_path(ino.0)
}

pub(super) fn unlink(shared: &Arc<Shared>, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
    change(
        shared,
        reply,
        "unlink",
        At::new(shared, parent, name),
        |shared, at| async move {
            shared.fs.unlink(&at.path).await?;
            shared.forget_name(&at);
            Ok(())
        },
    );
}

pub(super) fn rmdir(shared: &Arc<Shared>, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
    change(
        shared,
        reply,
        "rmdir",
        At::new(shared, parent, name),
        |shared, at| async move {
            shared.fs.rmdir(&at.path).await?;
            shared.forget_name(&at);
            Ok(())
        },
    );
}

pub(super) fn rename(
    shared: &Arc<Shared>,
    (parent, name): (INodeNo, &OsStr),
    (new_parent, new_name): (INodeNo, &OsStr),
    flags: RenameFlags,
    reply: ReplyEmpty,
) {
    let mode = if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Ok(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Ok(RenameMode::Exchange)
    } else {
        // Whiteouts are for file systems below an overlay.
        Err(Errno::EINVAL)
    };
    let names = mode.and_then(|mode| {
        let from = At::new(shared, parent, name)?;
        Ok((from, At::new(shared, new_parent, new_name)?, mode))
    });
    change(
        shared,
        reply,
        "rename",
        names,
        |shared, (from, to, mode)| async move {
            shared.fs.rename(&from.path, &to.path, mode).await?;
            let mut inodes = shared.inodes.lock();
            let concerned = [(from.parent, &from.name), (to.parent, &to.name)];
            let others = concerned.map(|(parent, name)| {
                let ino = inodes.peek(parent, name);
                inodes.other_paths(ino)
            });
            match mode {
                RenameMode::Exchange => {
                    inodes.exchange((from.parent, &from.name), (to.parent, &to.name));
                }
                RenameMode::Replace | RenameMode::NoReplace => {
                    inodes.rename(from.parent, &from.name, to.parent, &to.name);
                }
            }
            drop(inodes);
            shared.fs.forget(&others.concat());
            Ok(())
        },
    );
}

/// Runs one change that is answered with nothing.
fn change<T: Send + 'static, F>(
    shared: &Arc<Shared>,
    reply: ReplyEmpty,
    op: &'static str,
    at: Result<T, Errno>,
    call: impl FnOnce(Arc<Shared>, T) -> F + Send + 'static,
) where
    F: Future<Output = Result<(), ClientError>> + Send,
{
    if shared.read_only {
        return read_only::refuse(shared, |errno| reply.error(errno));
    }
    let timer = shared.metrics.start(Op::Write);
    let at = match at {
        Ok(at) => at,
        Err(errno) => {
            timer.finish(Outcome::Error);
            return reply.error(errno);
        }
    };
    let task = Arc::clone(shared);
    let request = async move {
        match call(task, at).await {
            Ok(()) => {
                timer.finish(Outcome::Miss);
                reply.ok();
            }
            Err(error) => {
                timer.finish(Outcome::Error);
                reply.error(errno_logged(op, &error));
            }
        }
    };
    shared.run(request.instrument(tracing::debug_span!("change", op)));
}

impl Shared {
    /// The name has gone; what is known by other names of the same file is out of date.
    fn forget_name(&self, at: &At) {
        let others = {
            let mut inodes = self.inodes.lock();
            let ino = inodes.peek(at.parent, &at.name);
            let others = inodes.other_paths(ino);
            inodes.unlink(at.parent, &at.name);
            others
        };
        self.fs.forget(&others);
    }

    /// Has all names of `ino` be names of what was written through one of them. Where that
    /// fails, they are another file from now on.
    pub(super) async fn link_again(self: &Arc<Self>, ino: u64) {
        let names = self.inodes.lock().other_paths(ino);
        let Some((first, others)) = names.split_first() else {
            return;
        };
        for other in others {
            if let Err(error) = self.fs.link_again(first, other).await {
                tracing::warn!(
                    path = other,
                    written = first,
                    error = &error as &dyn std::error::Error,
                    "a hard link keeps the content from before its file was written"
                );
            }
        }
    }

    /// What is known by any name of `ino` is out of date.
    pub(super) fn forget_names(&self, ino: u64) {
        let names = self.inodes.lock().other_paths(ino);
        self.fs.forget(&names);
    }
}

/// The bits of a mode that are not the type.
const PERMISSIONS: u32 = 0o7777;
