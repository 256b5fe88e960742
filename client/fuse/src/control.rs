//! The virtual directory `.millpond` at a mount's root: figures, settings, and hints.
//!
//! | name | kind | holds |
//! |---|---|---|
//! | `stats` | file, 0444 | what the mount did, as JSON ([`Stats`]) |
//! | `config` | file, 0444 | what it is and how it is set, as JSON ([`Config`]) |
//! | `prefetch` | pipe, 0222 | takes paths that will be read, in order |
//! | `record` | pipe, 0200 | takes `start NAME` or `stop` |
//! | `refresh` | pipe, 0222 | takes paths that changed in their store |
//! | `traces/NAME` | file, 0400 | what was opened between these, as a list for `prefetch` |
//!
//! - The directory is found by its name and never listed; whatever the store has there is
//!   hidden.
//! - A look-up of a file finds an inode of its own, with the content of that moment (for
//!   100 ms the same), so its size is right, the kernel may cache it, and it does not change under its reader.
//! - What takes text is a pipe because the mount is read-only: the kernel lets nobody open a
//!   file for writing there, but does not count what goes through a pipe as writing (see
//!   `inbox`).
//! - These requests are not counted among those of the mount.

mod apart;
mod config;
mod inbox;
mod place;
mod refresh;
mod snapshots;
mod stats;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, INodeNo, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyOpen,
};

use crate::inode::ROOT;
use crate::options::MountOptions;
use crate::shared::{GENERATION, Shared};

pub use config::{Config, ConfigMount, ConfigNode};
pub(crate) use inbox::{Inbox, serve};
pub use place::DIRECTORY;
use place::Place;
pub(crate) use place::is_control;
pub use refresh::RefreshStats;
use snapshots::Snapshots;
pub use stats::{OperationStats, Stats};

/// The control directory of one mount.
#[derive(Debug)]
pub(crate) struct Control {
    snapshots: Snapshots,
    started: Instant,
    /// Where the mount is.
    dir: PathBuf,
    /// How it was made.
    options: MountOptions,
    pub(crate) inbox: Inbox,
}

impl Control {
    pub(crate) fn new(dir: PathBuf, options: MountOptions) -> Self {
        Self {
            snapshots: Snapshots::default(),
            started: Instant::now(),
            dir,
            options,
            inbox: Inbox::default(),
        }
    }
}

/// How long the kernel believes what does not change.
const TTL: Duration = Duration::from_secs(3600);

/// How long one content of `stats` is shown: `cp` wants to open the file that it looked at.
const MOMENT: Duration = Duration::from_millis(100);

/// Whether `name` in the directory `parent` is hidden from listings.
pub(crate) fn hides(parent: u64, name: &str) -> bool {
    parent == ROOT && name == DIRECTORY
}

/// Whether a look-up of `name` in `parent` is for the control directory.
pub(crate) fn answers(parent: INodeNo, name: &str) -> bool {
    hides(parent.0, name) || is_control(parent)
}

pub(crate) fn lookup(shared: &Shared, parent: INodeNo, name: &str, reply: ReplyEntry) {
    let place = if hides(parent.0, name) {
        Some(Place::Directory)
    } else {
        let entries = entries(shared, parent).into_iter();
        entries
            .filter(|(entry, _)| **entry == *name)
            .map(|(_, place)| place)
            .next()
    };
    match place.map(|place| (enter(shared, &place), place)) {
        Some((Ok(attr), place)) => reply.entry(&entry_ttl(&place), &attr, GENERATION),
        Some((Err(errno), _)) => reply.error(errno),
        None => reply.error(Errno::ENOENT),
    }
}

pub(crate) fn forget(shared: &Shared, ino: INodeNo) {
    shared.control.snapshots.remove(ino.0);
}

pub(crate) fn getattr(shared: &Shared, ino: INodeNo, reply: ReplyAttr) {
    match attr_of(shared, ino) {
        Ok(attr) => reply.attr(&TTL, &attr),
        Err(errno) => reply.error(errno),
    }
}

pub(crate) fn open(reply: ReplyOpen) {
    // Its inode has this content and never another.
    let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
    reply.opened(FileHandle(0), flags);
}

pub(crate) fn read(shared: &Shared, ino: INodeNo, offset: u64, size: u32, reply: ReplyData) {
    match shared.control.snapshots.content(ino.0) {
        Some(content) => {
            let len = content.len();
            let start = usize::try_from(offset).unwrap_or(len).min(len);
            let end = start.saturating_add(size as usize).min(len);
            reply.data(&content[start..end]);
        }
        None => reply.error(Errno::ESTALE),
    }
}

pub(crate) fn readdir(shared: &Shared, ino: INodeNo, offset: u64, mut reply: ReplyDirectory) {
    for (at, (name, place)) in listed(shared, ino).iter().enumerate().skip(offset as usize) {
        let number = INodeNo(place.number());
        if reply.add(number, at as u64 + 1, place.kind(), &**name) {
            break;
        }
    }
    reply.ok();
}

pub(crate) fn readdirplus(
    shared: &Shared,
    ino: INodeNo,
    offset: u64,
    mut reply: ReplyDirectoryPlus,
) {
    for (at, (name, place)) in listed(shared, ino).iter().enumerate().skip(offset as usize) {
        let Ok(attr) = enter(shared, place) else {
            continue;
        };
        let ttl = entry_ttl(place);
        if reply.add(attr.ino, at as u64 + 1, &**name, &ttl, &attr, GENERATION) {
            shared.control.snapshots.remove(attr.ino.0);
            break;
        }
    }
    reply.ok();
}

/// The kernel must ask again for what is another inode the next time.
fn entry_ttl(place: &Place) -> Duration {
    if place.is_fixed() { TTL } else { MOMENT }
}

/// The attributes of `place`, with its content kept if it has one.
fn enter(shared: &Shared, place: &Place) -> Result<FileAttr, Errno> {
    if place.is_fixed() {
        return Ok(shared
            .style
            .of_mount(place.number(), place.kind(), place.mode(), 0));
    }
    let content = content(shared, place)?;
    let size = content.len() as u64;
    let number = shared.control.snapshots.insert(content, place.mode());
    Ok(shared
        .style
        .of_mount(number, place.kind(), place.mode(), size))
}

fn attr_of(shared: &Shared, ino: INodeNo) -> Result<FileAttr, Errno> {
    if let Some(place) = Place::fixed(ino.0) {
        return enter(shared, &place);
    }
    let snapshot = shared.control.snapshots.size_and_mode(ino.0);
    let (size, mode) = snapshot.ok_or(Errno::ESTALE)?;
    let kind = FileType::RegularFile;
    Ok(shared.style.of_mount(ino.0, kind, mode, size))
}

/// What the directory `ino` holds.
fn entries(shared: &Shared, ino: INodeNo) -> Vec<(Arc<str>, Place)> {
    let fixed = |place: Place| (Arc::from(place.name()), place);
    match Place::fixed(ino.0) {
        Some(Place::Directory) => Place::CHILDREN.into_iter().map(fixed).collect(),
        Some(Place::Traces) => {
            let traces = shared.fs.traces().into_iter();
            traces
                .map(|t| (Arc::clone(&t.name), Place::Trace(t)))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The same with `.` and `..`.
fn listed(shared: &Shared, ino: INodeNo) -> Vec<(Arc<str>, Place)> {
    let here = Place::fixed(ino.0).unwrap_or(Place::Directory);
    let dots = [(Arc::from("."), here), (Arc::from(".."), Place::Directory)];
    dots.into_iter().chain(entries(shared, ino)).collect()
}

fn content(shared: &Shared, place: &Place) -> Result<Bytes, Errno> {
    let control = &shared.control;
    let text = match place {
        Place::Stats => json(&Stats::of(shared, control.started.elapsed()))?,
        Place::Config => json(&Config::of(shared))?,
        Place::Trace(trace) => below(&trace.list, shared.inodes.lock().root()),
        Place::Directory | Place::Traces | Place::Prefetch | Place::Record | Place::Refresh => {
            return Err(Errno::EINVAL);
        }
    };
    Ok(Bytes::from(text))
}

/// The lines of a trace that are below the mount's root, from there.
fn below(list: &str, root: &str) -> String {
    let inside = list.lines().filter_map(|line| line.strip_prefix(root));
    let inside = inside.filter_map(|line| line.strip_prefix('/'));
    inside.flat_map(|line| [line, "\n"]).collect()
}

fn json(value: &impl serde::Serialize) -> Result<String, Errno> {
    let text = serde_json::to_string_pretty(value).map_err(|_| Errno::EIO)?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_told_from_the_root_of_the_mount() {
        let list = "/data/a/b\n/other\n/data/c\n/database\n";
        assert_eq!(below(list, "/data"), "a/b\nc\n");
        assert_eq!(below("/x/y\n", ""), "x/y\n");
    }
}
