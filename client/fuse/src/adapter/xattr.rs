//! Extended attributes: what Millpond knows of a file beyond `stat`.

use std::ffi::OsStr;
use std::sync::Arc;

use bytes::Bytes;
use fuser::{Errno, INodeNo, ReplyEmpty, ReplyXattr};
use millpond_client::{Attr, AttributeChange};

use crate::control;
use crate::metrics::{Op, OpTimer, Outcome};
use crate::shared::{Shared, errno_logged};

/// The version of the object, as the store names it.
const VERSION: &str = "user.millpond.version";

/// The URI of the object in its store.
const SOURCE: &str = "user.millpond.source";

/// Where the blocks of a file belong and are, as JSON. Asks every node, so it is not listed;
/// of a large file only the first blocks are told.
pub(crate) const LOCATION: &str = "user.millpond.location";

/// Blocks that are told at most, and the most bytes of their JSON: the kernel's limit on a
/// value is 64 KiB.
const MOST_BLOCKS: u64 = 256;
const MOST_BYTES: usize = 60 << 10;

/// What no store has: access control lists and labels. `ls -l` asks for them of each entry,
/// until it hears that the file system has none at all: "no such attribute" would not tell it
/// that.
const UNSUPPORTED: [&str; 2] = ["system.posix_acl_", "security.selinux"];

/// What a store may keep for its users, and which of it is ours.
const USER: &str = "user.";
const OWN: &str = "user.millpond.";

const NAMES: [&str; 2] = [VERSION, SOURCE];

pub(super) fn get(shared: &Arc<Shared>, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
    let timer = shared.metrics.start(Op::Xattr);
    if name == LOCATION {
        return locate(shared, ino, size, reply, timer);
    }
    let is_unsupported = |name: &str| UNSUPPORTED.iter().any(|kind| name.starts_with(kind));
    if name.to_str().is_some_and(is_unsupported) {
        timer.finish(Outcome::NotFound);
        return reply.error(Errno::EOPNOTSUPP);
    }
    // The kernel asks for `security.capability` and the like often: no stat for these.
    let Some(name) = NAMES.into_iter().find(|known| name == *known) else {
        if let Some(name) = stored(name) {
            return get_stored(shared, ino, name.to_owned(), size, reply, timer);
        }
        timer.finish(Outcome::NotFound);
        return reply.error(Errno::NO_XATTR);
    };
    answer(shared, ino, size, reply, timer, move |attr| {
        value(attr, name)
    });
}

pub(super) fn list(shared: &Arc<Shared>, ino: INodeNo, size: u32, reply: ReplyXattr) {
    let timer = shared.metrics.start(Op::Xattr);
    let task = Arc::clone(shared);
    shared.run(async move {
        match names(&task, ino).await {
            Ok(names) => {
                timer.finish(Outcome::Miss);
                send(names.as_bytes(), size, reply);
            }
            Err(errno) => {
                timer.finish(Outcome::Error);
                reply.error(errno);
            }
        }
    });
}

async fn names(shared: &Shared, ino: INodeNo) -> Result<String, Errno> {
    let failed = |error| errno_logged("xattr", &error);
    let path = shared.path(ino)?;
    let attr = shared.fs.stat(&path).await.map_err(failed)?;
    let attributes = shared.fs.attributes(&path).await.map_err(failed)?;
    let own = NAMES
        .into_iter()
        .filter(|name| value(&attr, name).is_some());
    let stored = attributes.xattrs.keys().map(String::as_str);
    let all = own.chain(stored.filter(|name| stored_name(name)));
    Ok(all.flat_map(|name| [name, "\0"]).collect())
}

/// `name` if it is one that a store may have.
fn stored(name: &OsStr) -> Option<&str> {
    name.to_str().filter(|name| stored_name(name))
}

fn stored_name(name: &str) -> bool {
    name.starts_with(USER) && !name.starts_with(OWN)
}

fn get_stored(
    shared: &Arc<Shared>,
    ino: INodeNo,
    name: String,
    size: u32,
    reply: ReplyXattr,
    timer: OpTimer,
) {
    let task = Arc::clone(shared);
    shared.run(async move {
        match present(&task, ino, &name).await {
            Ok((_, Some(value))) => {
                timer.finish(Outcome::Miss);
                send(&value, size, reply);
            }
            Ok((_, None)) => {
                timer.finish(Outcome::NotFound);
                reply.error(Errno::NO_XATTR);
            }
            Err(errno) => {
                timer.finish(Outcome::Error);
                reply.error(errno);
            }
        }
    });
}

/// The path of `ino`, and the value that its attribute `name` has there.
async fn present(
    shared: &Shared,
    ino: INodeNo,
    name: &str,
) -> Result<(String, Option<Bytes>), Errno> {
    let path = shared.inodes.lock().live_path(ino.0).ok_or(Errno::ESTALE)?;
    let attributes = shared.fs.attributes(&path).await;
    let mut attributes = attributes.map_err(|error| errno_logged("xattr", &error))?;
    Ok((path, attributes.xattrs.remove(name)))
}

/// What must hold for an attribute to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Nothing.
    Set,
    /// It is not there.
    Create,
    /// It is there.
    Replace,
}

impl How {
    /// As `setxattr(2)` says it.
    pub(super) const fn of(flags: i32) -> Self {
        if flags & libc::XATTR_CREATE != 0 {
            Self::Create
        } else if flags & libc::XATTR_REPLACE != 0 {
            Self::Replace
        } else {
            Self::Set
        }
    }
}

/// Sets the attribute `name`, or removes it.
pub(super) fn change(
    shared: &Arc<Shared>,
    ino: INodeNo,
    name: &OsStr,
    value: Option<&[u8]>,
    how: How,
    reply: ReplyEmpty,
) {
    if shared.read_only {
        return super::read_only::refuse(shared, |errno| reply.error(errno));
    }
    let Some(name) = stored(name).filter(|_| !control::is_control(ino)) else {
        let own = name.to_str().is_some_and(|name| name.starts_with(OWN));
        return reply.error(if own { Errno::EPERM } else { Errno::EOPNOTSUPP });
    };
    let timer = shared.metrics.start(Op::Write);
    let (name, value) = (name.to_owned(), value.map(Bytes::copy_from_slice));
    let task = Arc::clone(shared);
    shared.run(async move {
        match change_stored(&task, ino, name, value, how).await {
            Ok(()) => {
                timer.finish(Outcome::Miss);
                reply.ok();
            }
            Err(errno) => {
                timer.finish(Outcome::Error);
                reply.error(errno);
            }
        }
    });
}

async fn change_stored(
    shared: &Shared,
    ino: INodeNo,
    name: String,
    value: Option<Bytes>,
    how: How,
) -> Result<(), Errno> {
    let (path, present) = present(shared, ino, &name).await?;
    match (how, present.is_some()) {
        (How::Create, true) => return Err(Errno::EEXIST),
        (How::Replace, false) => return Err(Errno::NO_XATTR),
        _ => {}
    }
    let mut change = AttributeChange::default();
    change.xattrs.insert(name, value);
    let set = shared.fs.set_attributes(&path, &change).await;
    set.map_err(|error| errno_logged("xattr", &error))?;
    shared.forget_names(ino.0);
    Ok(())
}

fn locate(shared: &Arc<Shared>, ino: INodeNo, size: u32, reply: ReplyXattr, timer: OpTimer) {
    let task = Arc::clone(shared);
    shared.run(async move {
        let located = match task.path(ino) {
            Ok(path) => location(&task, &path).await,
            Err(errno) => Err(errno),
        };
        match located {
            Ok(value) => {
                timer.finish(Outcome::Miss);
                send(&value, size, reply);
            }
            Err(errno) => {
                timer.finish(Outcome::Error);
                reply.error(errno);
            }
        }
    });
}

async fn location(shared: &Shared, path: &str) -> Result<Vec<u8>, Errno> {
    let report = shared.fs.location_report(path, 0..MOST_BLOCKS).await;
    let mut report = report.map_err(|error| errno_logged("xattr", &error))?;
    loop {
        let value = serde_json::to_vec(&report).map_err(|_| Errno::EIO)?;
        if value.len() <= MOST_BYTES || report.blocks.is_empty() {
            return Ok(value);
        }
        report.blocks.truncate(report.blocks.len() / 2);
    }
}

fn send(value: &[u8], size: u32, reply: ReplyXattr) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        room if value.len() <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

fn value(attr: &Attr, name: &str) -> Option<String> {
    match name {
        VERSION => attr.version.as_ref().map(ToString::to_string),
        SOURCE => Some(attr.ufs_uri.to_string()).filter(|uri| !uri.is_empty()),
        _ => None,
    }
}

fn answer(
    shared: &Arc<Shared>,
    ino: INodeNo,
    size: u32,
    reply: ReplyXattr,
    timer: OpTimer,
    value: impl FnOnce(&Attr) -> Option<String> + Send + 'static,
) {
    let task = Arc::clone(shared);
    shared.run(async move {
        let found = match task.path(ino) {
            Ok(path) => task.fs.stat(&path).await,
            Err(errno) => {
                timer.finish(Outcome::Error);
                return reply.error(errno);
            }
        };
        let attr = match found {
            Ok(attr) => attr,
            Err(error) => {
                timer.finish(Outcome::Error);
                return reply.error(errno_logged("xattr", &error));
            }
        };
        let Some(value) = value(&attr) else {
            timer.finish(Outcome::NotFound);
            return reply.error(Errno::NO_XATTR);
        };
        timer.finish(Outcome::Miss);
        send(value.as_bytes(), size, reply);
    });
}
