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

const NAMES: [&str; 2] = [VERSION, SOURCE];

pub(super) fn get(shared: &Arc<Shared>, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
    let timer = shared.metrics.start(Op::Xattr);
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
        match size as usize {
            0 => reply.size(value.len() as u32),
            room if value.len() <= room => reply.data(value.as_bytes()),
            _ => reply.error(Errno::ERANGE),
        }
    });
}
