//! Create, open for writing, write, flush, and what else concerns the bytes of a file that is
//! written.

use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fuser::{
    Errno, FileHandle, INodeNo, OpenFlags, ReplyCreate, ReplyData, ReplyEmpty, ReplyLseek,
    ReplyWrite, Request, WriteFlags,
};
use millpond_client::{Attributes, ClientError, Draft, Writer};
use tracing::Instrument;

use super::file;
use crate::closers::Closers;
use crate::metrics::{Op, OpTimer, Outcome};
use crate::session;
use crate::shared::{GENERATION, OpenFile, Shared, errno_logged};

/// What a new file is made with.
#[derive(Debug)]
pub(super) struct Creation {
    parent: INodeNo,
    name: String,
    attributes: Attributes,
    flags: i32,
    pid: u32,
}

impl Creation {
    pub(super) fn new(
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Result<Self, Errno> {
        Ok(Self {
            parent,
            name: name.to_str().ok_or(Errno::EILSEQ)?.to_owned(),
            attributes: Attributes {
                mode: Some(mode & 0o7777),
                uid: Some(request.uid()),
                gid: Some(request.gid()),
                ..Attributes::default()
            },
            flags,
            pid: request.pid(),
        })
    }
}

pub(super) fn create(shared: &Arc<Shared>, creation: Creation, reply: ReplyCreate) {
    let timer = shared.metrics.start(Op::Open);
    let task = Arc::clone(shared);
    let request = async move {
        let pid = creation.pid;
        match create_file(&task, creation).await {
            Ok((attr, mut opened)) => {
                opened.closers = Closers::opened_by(pid);
                timer.finish(Outcome::Miss);
                let fh = FileHandle(task.files.insert(opened));
                task.metrics.open_files.set(task.files.len() as i64);
                let flags = session::open_flags(false, true);
                // What is written changes: nobody believes it for any time.
                reply.created(&Default::default(), &attr, GENERATION, fh, flags);
            }
            Err(errno) => {
                timer.finish(Outcome::Error);
                reply.error(errno);
            }
        }
    };
    shared.run(request.instrument(tracing::debug_span!("create")));
}

async fn create_file(
    shared: &Shared,
    creation: Creation,
) -> Result<(fuser::FileAttr, OpenFile), Errno> {
    let Creation {
        parent,
        name,
        attributes,
        flags,
        pid: _,
    } = creation;
    let path = shared.inodes.lock().child_path(parent.0, &name);
    let path = path.ok_or(Errno::ESTALE)?;
    let exclusive = flags & libc::O_EXCL != 0;
    let created = shared.fs.create(&path, attributes, exclusive).await;
    let writer = created.map_err(|error| errno_logged("create", &error))?;
    if flags & libc::O_TRUNC != 0 {
        let emptied = writer.truncate(0).await;
        emptied.map_err(|error| errno_logged("create", &error))?;
    }
    let draft = Arc::clone(writer.draft());
    // Another version may be open under the name: the second inode is this file's own.
    let mut writer = Some(writer);
    for _ in 0..2 {
        let attr = shared.remember(parent.0, &name, &draft.attr())?;
        let ino = attr.ino;
        if let Ok(opened) = file::open_draft(shared, ino, Arc::clone(&draft), writer.take()) {
            if shared
                .passing
                .enter(ino.0, || None, |_| Err(std::io::ErrorKind::Other.into()))
                .is_none()
            {
                return Ok((attr, opened));
            }
            writer = Some(Writer::again(&draft));
            shared.inodes.lock().detach(ino.0);
            file::leave(shared, opened);
        } else {
            writer = Some(Writer::again(&draft));
        }
        shared.inodes.lock().forget(ino.0, 1);
    }
    Err(Errno::ESTALE)
}

/// Opens a file that is there for writing; with `O_TRUNC` it is empty from now on.
pub(super) async fn open_file(
    shared: &Shared,
    ino: INodeNo,
    flags: OpenFlags,
) -> Result<OpenFile, Errno> {
    let truncate = flags.0 & libc::O_TRUNC != 0;
    let failed = |error: ClientError| errno_logged("open", &error);
    let writer = writer_of(shared, ino).await?;
    let opened = file::open_draft(shared, ino, Arc::clone(writer.draft()), None)?;
    if truncate && let Err(error) = writer.truncate(0).await {
        shared.inodes.lock().release(ino.0);
        return Err(failed(error));
    }
    Ok(OpenFile {
        writer: Some(writer),
        ..opened
    })
}

/// A handle that may write what is open on `ino`, or what its name holds.
async fn writer_of(shared: &Shared, ino: INodeNo) -> Result<Writer, Errno> {
    let (path, open) = {
        let inodes = shared.inodes.lock();
        (inodes.path(ino.0), inodes.draft(ino.0))
    };
    // What was removed or replaced while it is open is written all the same.
    if let Some(draft) = open.filter(|draft| draft.is_changed() || draft.path().is_none()) {
        return Ok(Writer::again(&draft));
    }
    let path = path.ok_or(Errno::ESTALE)?;
    let opened = shared.fs.open_for_writing(&path, false).await;
    opened.map_err(|error| errno_logged("open", &error))
}

/// Cuts the file `ino`, or makes it longer with zeros: through the handle `fh` if there is one.
/// Without one, and if nobody has it open for writing, the store has it so when this returns.
pub(super) async fn truncate(
    shared: &Arc<Shared>,
    ino: INodeNo,
    fh: Option<FileHandle>,
    size: u64,
) -> Result<Arc<Draft>, Errno> {
    let failed = |error: ClientError| errno_logged("truncate", &error);
    let open = fh.and_then(|fh| shared.files.get(fh.0));
    if let Some(open) = &open
        && let Some(writer) = &open.writer
    {
        writer.truncate(size).await.map_err(failed)?;
        return Ok(Arc::clone(writer.draft()));
    }
    let writer = writer_of(shared, ino).await?;
    shared.inodes.lock().join_draft(ino.0, writer.draft());
    let draft = Arc::clone(writer.draft());
    writer.truncate(size).await.map_err(failed)?;
    if !writer.is_shared() {
        writer.close().await.map_err(failed)?;
        shared.link_again(ino.0).await;
    }
    Ok(draft)
}

/// Reads of a file that is written.
pub(super) fn read(
    shared: &Arc<Shared>,
    draft: Arc<Draft>,
    offset: u64,
    size: u32,
    timer: OpTimer,
    reply: ReplyData,
) {
    if let Some(data) = draft.try_read(offset, size) {
        shared.metrics.add_read_bytes(data.len());
        timer.finish(Outcome::Hit);
        return reply.data(&data);
    }
    let task = Arc::clone(shared);
    let request = async move {
        match draft.read(offset, size).await {
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

/// A few bytes are taken on this thread; more have to wait for a disk.
pub(super) fn write(
    shared: &Arc<Shared>,
    fh: FileHandle,
    offset: u64,
    data: &[u8],
    how: (WriteFlags, OpenFlags),
    pid: u32,
    reply: ReplyWrite,
) {
    let timer = shared.metrics.start(Op::Write);
    let open = shared.files.get(fh.0);
    let Some(open) = open.filter(|open| open.writer.is_some()) else {
        timer.finish(Outcome::Error);
        return reply.error(Errno::EBADF);
    };
    file::settle(shared, &open);
    open.closers.writes(pid);
    let (write_flags, flags) = how;
    // Pages that were mapped know their place.
    let appends =
        flags.0 & libc::O_APPEND != 0 && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
    let written = data.len() as u32;
    if let Some(writer) = &open.writer
        && !(appends && writer.size() != offset)
        && writer.try_write(offset, data).is_some()
    {
        shared.metrics.add_written_bytes(data.len());
        timer.finish(Outcome::Hit);
        return reply.written(written);
    }
    let data = Bytes::copy_from_slice(data);
    let task = Arc::clone(shared);
    let request = async move {
        let Some(writer) = &open.writer else { return };
        let done = match appends {
            true => writer.append(data).await.map(|at| at != offset),
            false => writer.write(offset, data).await.map(|()| false),
        };
        match done {
            Ok(elsewhere) => {
                if elsewhere {
                    task.drop_pages(open.ino);
                }
                task.metrics.add_written_bytes(written as usize);
                timer.finish(Outcome::Miss);
                reply.written(written);
            }
            Err(error) => {
                timer.finish(Outcome::Error);
                reply.error(errno_logged("write", &error));
            }
        }
    };
    shared.spawn(request.instrument(tracing::debug_span!("write", offset, bytes = written)));
}

/// A descriptor is closed: the store has all that was written when this is answered, unless it
/// is one of a process that has nothing to do with it.
pub(super) fn close(shared: &Arc<Shared>, fh: FileHandle, pid: u32, reply: ReplyEmpty) {
    let open = shared.files.get(fh.0);
    if open.is_some_and(|open| open.writer.is_some() && !open.closers.count(pid)) {
        return reply.ok();
    }
    flush(shared, fh, "close", reply);
}

/// The store has all that was written when this is answered.
pub(super) fn flush(shared: &Arc<Shared>, fh: FileHandle, op: &'static str, reply: ReplyEmpty) {
    let Some(open) = shared.files.get(fh.0) else {
        return reply.ok();
    };
    let Some(draft) = written(shared, fh) else {
        return reply.ok();
    };
    let task = Arc::clone(shared);
    change(shared, op, reply, async move {
        let is_sent = draft.is_changed();
        draft.flush().await?;
        if is_sent {
            task.link_again(open.ino).await;
        }
        Ok(())
    });
}

/// What `fallocate` can do to a file: all but what moves its bytes.
pub(super) fn allocate(
    shared: &Arc<Shared>,
    fh: FileHandle,
    range: Range<u64>,
    mode: i32,
    reply: ReplyEmpty,
) {
    let Some(draft) = written(shared, fh) else {
        return reply.error(Errno::EBADF);
    };
    let keeps_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    let zeros = match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => false,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE => true,
        _ => return reply.error(Errno::EOPNOTSUPP),
    };
    let work = async move {
        if !keeps_size {
            draft.extend(range.end).await?;
        }
        match zeros {
            true => draft.punch(range).await,
            false => Ok(()),
        }
    };
    change(shared, "fallocate", reply, work);
}

/// Has `work` done as a task, and answers with how it ended.
fn change(
    shared: &Shared,
    op: &'static str,
    reply: ReplyEmpty,
    work: impl Future<Output = Result<(), ClientError>> + Send + 'static,
) {
    let timer = shared.metrics.start(Op::Write);
    let request = async move {
        match work.await {
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

/// The draft that the handle `fh` may write.
fn written(shared: &Shared, fh: FileHandle) -> Option<Arc<Draft>> {
    let open = shared.files.get(fh.0)?;
    Some(Arc::clone(open.writer.as_ref()?.draft()))
}

/// Where data or a hole begins.
pub(super) fn seek(shared: &Shared, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
    let Some(open) = shared.files.get(fh.0) else {
        return reply.error(Errno::EBADF);
    };
    let Ok(offset) = u64::try_from(offset) else {
        return reply.error(Errno::ENXIO);
    };
    // A version of a store has no holes, and one at its end.
    let size = open.file.as_ref().map_or(0, |file| file.attr().size);
    let found = match (whence, open.draft()) {
        (libc::SEEK_DATA, Some(draft)) => draft.seek_data(offset),
        (libc::SEEK_HOLE, Some(draft)) => draft.seek_hole(offset),
        (libc::SEEK_DATA, None) => (offset < size).then_some(offset),
        (libc::SEEK_HOLE, None) => (offset < size).then_some(size),
        _ => return reply.error(Errno::EINVAL),
    };
    match found.and_then(|at| i64::try_from(at).ok()) {
        Some(at) => reply.offset(at),
        None => reply.error(Errno::ENXIO),
    }
}
