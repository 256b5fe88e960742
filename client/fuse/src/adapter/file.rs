//! Open, read, release.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{Errno, FileHandle, INodeNo, OpenAccMode, OpenFlags, ReplyData, ReplyEmpty, ReplyOpen};
use millpond_client::{Draft, Writer};
use tracing::Instrument;

use super::writing;
use crate::closers::Closers;
use crate::inode::{Opened, Replaced};
use crate::metrics::{Op, Outcome};
use crate::session;
use crate::shared::{OpenFile, Shared, errno_logged};

/// Opens the version that the file has now, or what is being written of it here.
///
/// The kernel's pages are kept when they are of this version. When another version is still
/// open on this inode, the answer is ESTALE: the kernel then looks the name up again, gets a
/// new inode, and opens that, all within the one `open` call of the application.
pub(super) fn open(
    shared: &Arc<Shared>,
    ino: INodeNo,
    flags: OpenFlags,
    pid: u32,
    reply: ReplyOpen,
) {
    let writes = flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0;
    if writes && shared.read_only {
        return super::read_only::refuse(shared, |errno| reply.error(errno));
    }
    if shared.kernel_opens {
        // The kernel does not ask again.
        return reply.error(Errno::ENOSYS);
    }
    let timer = shared.metrics.start(Op::Open);
    let task = Arc::clone(shared);
    let request = async move {
        let opened = match writes {
            true => writing::open_file(&task, ino, flags).await,
            false => open_file(&task, ino).await,
        };
        match opened {
            Ok(mut opened) => {
                if opened.writer.is_some() {
                    opened.closers = Closers::opened_by(pid);
                }
                timer.finish(Outcome::Miss);
                answer(&task, opened, flags, reply);
            }
            Err(errno) => {
                timer.finish(Outcome::Error);
                reply.error(errno);
            }
        }
    };
    shared.run(request.instrument(tracing::debug_span!("open", ino = ino.0)));
}

/// Answers an open with what the kernel is to do for the reads that follow.
fn answer(shared: &Arc<Shared>, opened: OpenFile, flags: OpenFlags, reply: ReplyOpen) {
    let keep_pages = !opened.unsettled.load(Ordering::Relaxed);
    let (ino, writes) = (opened.ino, opened.writer.is_some());
    let passed = shared.passing.enter(
        ino,
        // What is written is nowhere but here.
        || {
            opened
                .file
                .as_ref()
                .filter(|_| opened.draft().is_none())?
                .backing()
        },
        |file| reply.open_backing(file),
    );
    if passed.is_some() && opened.draft().is_some() {
        // Those who have it open read it from the tier, and go on to: the kernel asks again,
        // for an inode of its own.
        shared.inodes.lock().detach(ino);
        leave(shared, opened);
        return reply.error(Errno::ESTALE);
    }
    let fh = FileHandle(shared.files.insert(opened));
    shared.metrics.open_files.set(shared.files.len() as i64);
    match passed {
        Some(passed) => {
            shared.metrics.passthrough_opens.inc();
            let direct = flags.0 & libc::O_DIRECT != 0;
            reply.opened_passthrough(fh, session::passed_flags(direct), &passed.id);
        }
        None => {
            shared.metrics.show_passthrough(shared.passing.state());
            reply.opened(fh, session::open_flags(keep_pages, writes));
        }
    }
}

async fn open_file(shared: &Shared, ino: INodeNo) -> Result<OpenFile, Errno> {
    let path = shared.path(ino)?;
    let written = shared.inodes.lock().draft(ino.0);
    let written = written.filter(|draft| draft.is_changed());
    if let Some(draft) = written.or_else(|| shared.fs.draft(&path)) {
        return open_draft(shared, ino, draft, None);
    }
    let file = shared
        .fs
        .open(&path)
        .await
        .map_err(|error| errno_logged("open", &error))?;
    let attr = shared.style.file_attr(ino.0, file.attr());
    let (opened, live) = {
        let mut inodes = shared.inodes.lock();
        let opened = inodes.open(ino.0, file.file_id(), attr);
        (opened, inodes.live(ino.0))
    };
    let opened = opened.map_err(|Replaced| Errno::ESTALE)?;
    Ok(OpenFile {
        ino: ino.0,
        file: Some(file),
        draft: None,
        writer: None,
        closers: Closers::default(),
        live,
        unsettled: unsettled(shared, ino, opened),
    })
}

/// Opens what is being written on `ino`: by `writer`, or to be read only.
pub(super) fn open_draft(
    shared: &Shared,
    ino: INodeNo,
    draft: Arc<Draft>,
    writer: Option<Writer>,
) -> Result<OpenFile, Errno> {
    let (opened, live) = {
        let mut inodes = shared.inodes.lock();
        let opened = inodes.open_draft(ino.0, &draft);
        (opened, inodes.live(ino.0))
    };
    let opened = opened.map_err(|Replaced| Errno::ESTALE)?;
    Ok(OpenFile {
        ino: ino.0,
        file: None,
        draft: Some(draft),
        writer,
        closers: Closers::default(),
        live,
        unsettled: unsettled(shared, ino, opened),
    })
}

/// Has the kernel forget the attributes of another version; says whether the pages of earlier
/// ones may still be there.
fn unsettled(shared: &Shared, ino: INodeNo, opened: Opened) -> AtomicBool {
    let Opened {
        keep_pages,
        refresh_attributes,
    } = opened;
    if refresh_attributes && let Some(notifier) = shared.notifier.get() {
        // Offset -1 is "attributes only": unlike the invalidation of pages it takes no page
        // lock, so it cannot wait for a reader that waits for us.
        if let Err(error) = notifier.inval_inode(ino, -1, 0) {
            tracing::debug!(%error, "the kernel did not drop attributes");
        }
    }
    AtomicBool::new(!keep_pages)
}

/// Notes that the kernel has handled the answer to the open of `open`: it asks for more.
pub(super) fn settle(shared: &Shared, open: &OpenFile) {
    if open.unsettled.load(Ordering::Relaxed) && open.unsettled.swap(false, Ordering::Relaxed) {
        let version = open.file.as_ref().map(|file| file.file_id());
        shared.inodes.lock().settle(open.ino, version);
    }
}

/// A hit is answered on this thread: a hop to another costs more than the copy.
pub(super) fn read(shared: &Arc<Shared>, fh: FileHandle, offset: u64, size: u32, reply: ReplyData) {
    let timer = shared.metrics.start(Op::Read);
    let Some(open) = shared.files.get(fh.0) else {
        timer.finish(Outcome::Error);
        return reply.error(Errno::EBADF);
    };
    settle(shared, &open);
    if let Some(draft) = open.draft() {
        return writing::read(shared, draft, offset, size, timer, reply);
    }
    let Some(file) = open.file.as_ref().map(Arc::clone) else {
        timer.finish(Outcome::Error);
        return reply.error(Errno::EBADF);
    };
    if let Some(data) = file.try_read(offset, size) {
        shared.metrics.add_read_bytes(data.len());
        timer.finish(Outcome::Hit);
        return reply.data(&data);
    }
    let task = Arc::clone(shared);
    let request = async move {
        let read = file.read(offset, size).await;
        // Who began to read before it was written may be answered with either; who is told that
        // the version is gone reads what is there now.
        let read = match (read, open.live.draft()) {
            (Err(_), Some(draft)) => draft.read(offset, size).await,
            (read, _) => read,
        };
        match read {
            Ok(data) => {
                task.metrics.add_read_bytes(data.len());
                timer.finish(Outcome::Miss);
                reply.data(&data);
            }
            Err(error) => {
                timer.finish(Outcome::Error);
                reply.error(errno_logged("read", &error));
            }
        }
    };
    shared.spawn(request.instrument(tracing::debug_span!("read", offset, bytes = size)));
}

/// What was not sent yet is sent in the background: `close` has done so, and told of failure,
/// except for what was written through a mapping afterwards.
pub(super) fn release(shared: &Shared, fh: FileHandle, reply: ReplyEmpty) {
    let timer = shared.metrics.start(Op::Release);
    if let Some(open) = shared.files.remove(fh.0) {
        let ino = open.ino;
        // In the order opposite to that of opening: an inode has one way of being open while it
        // has one version.
        shared.passing.leave(ino);
        shared.inodes.lock().release(ino);
        drop(open);
        shared.metrics.open_files.set(shared.files.len() as i64);
    }
    timer.finish(Outcome::Hit);
    reply.ok();
}

/// Takes back an open that was counted and is not answered.
pub(super) fn leave(shared: &Shared, open: OpenFile) {
    shared.passing.leave(open.ino);
    shared.inodes.lock().release(open.ino);
}
