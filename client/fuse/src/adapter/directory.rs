//! Opendir, readdir, readdirplus.
//!
//! The offset of an entry is its place in the cursor's stream: 1 for `.`, 2 for `..`, then
//! one more for each entry. The kernel names the offset of the last entry it took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::{
    Errno, FileHandle, FileType, INodeNo, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyOpen,
};
use millpond_client::{ClientError, Directory};

use crate::control;
use crate::dir::{DirCursor, Shown, is_listable};
use crate::inode::{InodeTable, ROOT};
use crate::kernel_dirs::Caching;
use crate::metrics::{Op, Outcome};
use crate::session;
use crate::shared::{GENERATION, OpenDir, Shared, errno_logged, kernel_ttl};
use crate::whole_dir::WholeDir;

/// A listing that is at hand is what the handle reads, and the kernel may keep it; else the
/// directory streams from the store.
pub(super) fn open(shared: &Shared, ino: INodeNo, reply: ReplyOpen) {
    let timer = shared.metrics.start(Op::Opendir);
    match shared.path(ino) {
        Ok(path) => {
            let whole = shared.fs.list_cached(&path);
            let (dir, caching) = match whole {
                Some(listing) => {
                    // What is made here must show at the next rewind of any handle.
                    let may_cache = shared.read_only;
                    let (whole, caching) =
                        WholeDir::open(&shared.kernel_dirs, ino.0, listing, may_cache);
                    (OpenDir::Whole(whole), caching)
                }
                None => {
                    let cursor = DirCursor::new(shared.fs.clone(), shared.style.clone(), path);
                    let cursor = tokio::sync::Mutex::new(cursor);
                    (OpenDir::Stream(cursor), Caching::No)
                }
            };
            let fh = shared.dirs.insert(dir);
            timer.finish(Outcome::Hit);
            reply.opened(FileHandle(fh), session::open_dir_flags(caching));
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
    if let OpenDir::Whole(whole) = &*dir
        && offset > 0
    {
        let listing = whole.listing(&shared.kernel_dirs);
        let reply = fill_whole(shared, ino.0, offset, &listing, reply);
        timer.finish(Outcome::Hit);
        return reply.send();
    }
    let task = Arc::clone(shared);
    shared.run(async move {
        let filled = match &*dir {
            OpenDir::Stream(cursor) => stream(&task, ino.0, offset, cursor, reply).await,
            OpenDir::Whole(whole) => begin(&task, ino, whole, reply).await,
        };
        match filled {
            Ok((reply, at_hand)) => {
                timer.finish(if at_hand { Outcome::Hit } else { Outcome::Miss });
                reply.send();
            }
            Err((reply, error)) => {
                timer.finish(Outcome::Error);
                reply.fail(errno_logged("readdir", &error));
            }
        }
    });
}

/// The reply, and whether it was at hand; or the reply that is to tell the error.
type Filled<L> = Result<(L, bool), (L, ClientError)>;

async fn stream<L: Listing>(
    shared: &Shared,
    ino: u64,
    offset: u64,
    cursor: &tokio::sync::Mutex<DirCursor>,
    reply: L,
) -> Filled<L> {
    let mut cursor = cursor.lock().await;
    if offset == 0 && cursor.has_moved() {
        cursor.rewind();
    }
    let first = entry_number(offset);
    let at_hand = cursor.is_at_hand(first);
    if let Err(error) = cursor.seek(first).await {
        return Err((reply, error));
    }
    Ok((fill(shared, ino, offset, &cursor, reply), at_hand))
}

/// The beginning of a whole listing: of a new one, where the old one is over.
async fn begin<L: Listing>(shared: &Shared, ino: INodeNo, whole: &WholeDir, reply: L) -> Filled<L> {
    let Ok(path) = shared.path(ino) else {
        // Nothing can be newer; an open handle keeps its inode known, so this is rare.
        let listing = whole.listing(&shared.kernel_dirs);
        return Ok((fill_whole(shared, ino.0, 0, &listing, reply), true));
    };
    match whole.begin(&shared.kernel_dirs, &shared.fs, &path).await {
        Ok((listing, at_hand)) => {
            let reply = fill_whole(shared, ino.0, 0, &listing, reply);
            Ok((reply, at_hand))
        }
        Err(error) => Err((reply, error)),
    }
}

pub(super) fn release(shared: &Shared, fh: FileHandle, reply: ReplyEmpty) {
    if let Some(dir) = shared.dirs.remove(fh.0)
        && let OpenDir::Whole(whole) = &*dir
    {
        whole.release(&shared.kernel_dirs);
    }
    reply.ok();
}

/// The number of the entry after the one at `offset`.
fn entry_number(offset: u64) -> usize {
    usize::try_from(offset.saturating_sub(DOTS)).unwrap_or(usize::MAX)
}

fn fill<L: Listing>(shared: &Shared, ino: u64, offset: u64, cursor: &DirCursor, reply: L) -> L {
    let first = entry_number(offset);
    let items = (first..).map_while(|number| Some((number, cursor.item(number)?)));
    let now = Instant::now();
    let shown = items.map(|(number, item)| (number, item.shown(now)));
    fill_with(shared, ino, offset, shown, reply)
}

fn fill_whole<L: Listing>(
    shared: &Shared,
    ino: u64,
    offset: u64,
    listing: &Directory,
    reply: L,
) -> L {
    let first = entry_number(offset);
    let valid = listing.valid(Instant::now());
    let entries = listing.entries().iter().enumerate().skip(first);
    let listable = entries.filter(|(_, entry)| is_listable(&entry.name));
    let shown = listable.map(|(number, entry)| {
        let shown = Shown {
            name: &entry.name,
            attr: shared.style.file_attr(0, &entry.attr),
            version: entry.attr.file_id,
            valid,
        };
        (number, shown)
    });
    fill_with(shared, ino, offset, shown, reply)
}

/// Adds as many of the numbered entries as there is room for.
fn fill_with<'a, L: Listing>(
    shared: &Shared,
    ino: u64,
    offset: u64,
    entries: impl Iterator<Item = (usize, Shown<'a>)>,
    mut reply: L,
) -> L {
    let mut inodes = shared.inodes.lock();
    let parent = inodes.parent(ino).unwrap_or(ROOT);
    for (at, name, ino) in [(0, ".", ino), (1, "..", parent)] {
        if offset <= at && reply.add_dot(ino, at + 1, name) {
            return reply;
        }
    }
    for (number, shown) in entries {
        if !control::hides(ino, shown.name)
            && reply.add(shared, &mut inodes, ino, number as u64 + DOTS + 1, &shown)
        {
            break;
        }
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
        item: &Shown<'_>,
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
        item: &Shown<'_>,
    ) -> bool {
        let ino = INodeNo(inodes.peek(parent, item.name));
        Self::add(self, ino, offset, item.attr.kind, item.name)
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
            &Duration::ZERO,
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
        item: &Shown<'_>,
    ) -> bool {
        let mut valid = kernel_ttl(item.valid);
        if shared.kernel_opens && item.attr.kind == FileType::RegularFile && item.version.is_none()
        {
            // Of which version its inode is, only a look-up tells: the kernel makes one before
            // it uses the name. Leaving the inode out (number 0) is no way to say so: C
            // libraries take an entry without a number for a deleted one.
            valid = Duration::ZERO;
        }
        let Some(looked) = inodes.lookup(parent, item.name, item.attr.kind, item.version) else {
            return true;
        };
        let mut attr = looked.pinned.unwrap_or(item.attr);
        attr.ino = INodeNo(looked.ino);
        inodes.keep(looked.ino, &attr);
        let full = Self::add(self, attr.ino, offset, item.name, &valid, &attr, GENERATION);
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
