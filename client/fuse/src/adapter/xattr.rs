//! Extended attributes: what Millpond knows of a file beyond `stat`.

use std::ffi::OsStr;
use std::sync::Arc;

use fuser::{Errno, INodeNo, ReplyXattr};
use millpond_client::Attr;

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
        timer.finish(Outcome::NotFound);
        return reply.error(Errno::NO_XATTR);
    };
    answer(shared, ino, size, reply, timer, move |attr| {
        value(attr, name)
    });
}

pub(super) fn list(shared: &Arc<Shared>, ino: INodeNo, size: u32, reply: ReplyXattr) {
    let timer = shared.metrics.start(Op::Xattr);
    answer(shared, ino, size, reply, timer, |attr| {
        let present = NAMES.into_iter().filter(|name| value(attr, name).is_some());
        Some(present.flat_map(|name| [name, "\0"]).collect())
    });
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
