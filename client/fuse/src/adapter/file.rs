//! Open, read, release.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{Errno, FileHandle, INodeNo, OpenAccMode, OpenFlags, ReplyData, ReplyEmpty, ReplyOpen};
use tracing::Instrument;

use crate::inode::{Opened, Replaced};
use crate::metrics::{Op, Outcome};
use crate::session;
use crate::shared::{OpenFile, Shared, errno_logged};

/// Opens the version that the file has now.
///
/// The kernel's pages are kept when they are of this version. When another version is still
/// open on this inode, the answer is ESTALE: the kernel then looks the name up again, gets a
/// new inode, and opens that, all within the one `open` call of the application.
pub(super) fn open(shared: &Arc<Shared>, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
    if flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0 {
        return super::read_only::refuse(shared, |errno| reply.error(errno));
    }
    if shared.kernel_opens {
        // The kernel does not ask again.
        return reply.error(Errno::ENOSYS);
    }
    let timer = shared.metrics.start(Op::Open);
    let task = Arc::clone(shared);
    let request = async move {
        match open_file(&task, ino).await {
            Ok(opened) => {
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
fn answer(shared: &Shared, opened: OpenFile, flags: OpenFlags, reply: ReplyOpen) {
    let keep_pages = !opened.unsettled.load(Ordering::Relaxed);
    let passed = shared.passing.enter(
        opened.ino,
        || opened.file.backing(),
        |file| reply.open_backing(file),
    );
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
            reply.opened(fh, session::open_flags(keep_pages));
        }
    }
}

async fn open_file(shared: &Shared, ino: INodeNo) -> Result<OpenFile, Errno> {
    let path = shared.path(ino)?;
    let file = shared
        .fs
        .open(&path)
        .await
        .map_err(|error| errno_logged("open", &error))?;
    let attr = shared.style.file_attr(ino.0, file.attr());
    let opened = shared.inodes.lock().open(ino.0, file.file_id(), attr);
    let Opened {
        keep_pages,
        refresh_attributes,
    } = opened.map_err(|Replaced| Errno::ESTALE)?;
    if refresh_attributes && let Some(notifier) = shared.notifier.get() {
        // Offset -1 is "attributes only": unlike the invalidation of pages it takes no page
        // lock, so it cannot wait for a reader that waits for us.
        if let Err(error) = notifier.inval_inode(ino, -1, 0) {
            tracing::debug!(%error, "the kernel did not drop attributes");
        }
    }
    Ok(OpenFile {
        ino: ino.0,
        file,
        unsettled: AtomicBool::new(!keep_pages),
    })
}

/// A hit is answered on this thread: a hop to another costs more than the copy.
pub(super) fn read(shared: &Arc<Shared>, fh: FileHandle, offset: u64, size: u32, reply: ReplyData) {
    let timer = shared.metrics.start(Op::Read);
    let Some(open) = shared.files.get(fh.0) else {
        timer.finish(Outcome::Error);
        return reply.error(Errno::EBADF);
    };
    if open.unsettled.load(Ordering::Relaxed) && open.unsettled.swap(false, Ordering::Relaxed) {
        shared.inodes.lock().settle(open.ino, open.file.file_id());
    }
    if let Some(data) = open.file.try_read(offset, size) {
        shared.metrics.add_read_bytes(data.len());
        timer.finish(Outcome::Hit);
        return reply.data(&data);
    }
    let task = Arc::clone(shared);
    let request = async move {
        match open.file.read(offset, size).await {
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

pub(super) fn release(shared: &Shared, fh: FileHandle, reply: ReplyEmpty) {
    let timer = shared.metrics.start(Op::Release);
    if let Some(open) = shared.files.remove(fh.0) {
        // In the order opposite to that of opening: an inode has one way of being open while it
        // has one version.
        shared.passing.leave(open.ino);
        shared.inodes.lock().release(open.ino);
        shared.metrics.open_files.set(shared.files.len() as i64);
    }
    timer.finish(Outcome::Hit);
    reply.ok();
}
