//! Opendir, readdir, readdirplus.
//!
//! The offset of an entry is its place in the cursor's stream: 1 for `.`, 2 for `..`, then
//! one more for each entry. The kernel names the offset of the last entry it took.

use std::sync::Arc;
use std::time::Instant;

use fuser::{
    Errno, FileHandle, FileType, FopenFlags, INodeNo, ReplyDirectory, ReplyDirectoryPlus, ReplyOpen,
};

use crate::control;
use crate::dir::{DirCursor, DirItem};
use crate::inode::{InodeTable, ROOT};
use crate::metrics::{Op, Outcome};
use crate::shared::{GENERATION, OpenDir, Shared, errno_logged, kernel_ttl};

pub(super) fn open(shared: &Shared, ino: INodeNo, reply: ReplyOpen) {
    let timer = shared.metrics.start(Op::Opendir);
    match shared.path(ino) {
        Ok(path) => {
            let cursor = DirCursor::new(shared.fs.clone(), shared.style.clone(), path);
            let fh = shared.dirs.insert(OpenDir {
                cursor: tokio::sync::Mutex::new(cursor),
            });
            timer.finish(Outcome::Hit);
            // Not CACHE_DIR: directories of object stores have no time by which the kernel
            // could tell that its copy is old.
            reply.opened(FileHandle(fh), FopenFlags::empty());
        }
        Err(errno) => {
            timer.finish(Outcome::Error);
            reply.error(errno);
        }
    }
}

/// Fills one reply, from what is at hand if there is any.
pub(super) fn read<L: Listing>(
    shared: &Arc<Shared>,
    ino: INodeNo,
    fh: FileHandle,
    offset: u64,
    reply: L,
    op: Op,
) {
    let timer = shared.metrics.start(op);
    let Some(dir) = shared.dirs.get(fh.0) else {
        timer.finish(Outcome::Error);
        return reply.fail(Errno::EBADF);
    };
    let task = Arc::clone(shared);
    shared.run(async move {
        let mut cursor = dir.cursor.lock().await;
        if offset == 0 && cursor.has_moved() {
            cursor.rewind();
        }
        let first = entry_number(offset);
        let at_hand = cursor.is_at_hand(first);
        if let Err(error) = cursor.seek(first).await {
            timer.finish(Outcome::Error);
            return reply.fail(errno_logged("readdir", &error));
        }
        let reply = fill(&task, ino.0, offset, &cursor, reply);
        timer.finish(if at_hand { Outcome::Hit } else { Outcome::Miss });
        reply.send();
    });
}

/// The number of the entry after the one at `offset`.
fn entry_number(offset: u64) -> usize {
    usize::try_from(offset.saturating_sub(DOTS)).unwrap_or(usize::MAX)
}

fn fill<L: Listing>(shared: &Shared, ino: u64, offset: u64, cursor: &DirCursor, mut reply: L) -> L {
    let mut inodes = shared.inodes.lock();
    let parent = inodes.parent(ino).unwrap_or(ROOT);
    for (at, name, ino) in [(0, ".", ino), (1, "..", parent)] {
        if offset <= at && reply.add_dot(ino, at + 1, name) {
            return reply;
        }
    }
    let mut number = entry_number(offset);
    while let Some(item) = cursor.item(number) {
        if !control::hides(ino, &item.name)
            && reply.add(shared, &mut inodes, ino, number as u64 + DOTS + 1, item)
        {
            break;
        }
        number += 1;
    }
    shared.metrics.inodes.set(inodes.len() as i64);
    reply
}

/// The two kinds of replies.
pub(super) trait Listing: Send + 'static {
    /// Adds `.` or `..`; true when there is no room.
    fn add_dot(&mut self, ino: u64, offset: u64, name: &str) -> bool;

    /// Adds an entry of the directory `parent`; true when there is no room.
    fn add(
        &mut self,
        shared: &Shared,
        inodes: &mut InodeTable,
        parent: u64,
        offset: u64,
        item: &DirItem,
    ) -> bool;

    fn send(self);

    fn fail(self, errno: Errno);
}

impl Listing for ReplyDirectory {
    fn add_dot(&mut self, ino: u64, offset: u64, name: &str) -> bool {
        Self::add(self, INodeNo(ino), offset, FileType::Directory, name)
    }

    fn add(
        &mut self,
        _shared: &Shared,
        inodes: &mut InodeTable,
        parent: u64,
        offset: u64,
        item: &DirItem,
    ) -> bool {
        let ino = INodeNo(inodes.peek(parent, &item.name));
        Self::add(self, ino, offset, item.kind(), &*item.name)
    }

    fn send(self) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Listing for ReplyDirectoryPlus {
    fn add_dot(&mut self, ino: u64, offset: u64, name: &str) -> bool {
        // The kernel takes only number and type from these and counts no lookup.
        let attr = dot_attr(ino);
        Self::add(
            self,
            INodeNo(ino),
            offset,
            name,
            &std::time::Duration::ZERO,
            &attr,
            GENERATION,
        )
    }

    fn add(
        &mut self,
        shared: &Shared,
        inodes: &mut InodeTable,
        parent: u64,
        offset: u64,
        item: &DirItem,
    ) -> bool {
        let left = item
            .believed_until
            .saturating_duration_since(Instant::now());
        let valid = kernel_ttl(left);
        if shared.kernel_opens && item.kind() == FileType::RegularFile && item.version.is_none() {
            // Without its version it cannot have an inode yet. Number 0 is "look it up".
            let ino = INodeNo(inodes.peek(parent, &item.name));
            let name = &*item.name;
            return Self::add(self, ino, offset, name, &valid, &item.attr, GENERATION);
        }
        let Some(looked) = inodes.lookup(parent, &item.name, item.kind(), item.version) else {
            return true;
        };
        let mut attr = looked.pinned.unwrap_or(item.attr);
        attr.ino = INodeNo(looked.ino);
        inodes.keep(looked.ino, &attr);
        let full = Self::add(
            self,
            attr.ino,
            offset,
            &*item.name,
            &valid,
            &attr,
            GENERATION,
        );
        if full {
            inodes.forget(looked.ino, 1);
        }
        full
    }

    fn send(self) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

fn dot_attr(ino: u64) -> fuser::FileAttr {
    let time = std::time::SystemTime::UNIX_EPOCH;
    fuser::FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: FileType::Directory,
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// `.` and `..` come before the entries.
const DOTS: u64 = 2;
