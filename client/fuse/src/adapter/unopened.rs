//! Reads of files that the kernel opened by itself.
//!
//! The inode says which version is read: it stands for one, for good. The name may hold
//! another by now; then what is read is that version or ESTALE, and the kernel is told to look
//! the name up again.

use std::sync::Arc;

use bytes::Bytes;
use fuser::{Errno, FileHandle, INodeNo, ReplyData};
use millpond_client::{ClientError, FileHandle as ClientFile};
use millpond_proto::ErrorKind;
use tracing::Instrument;

use crate::metrics::{Op, OpTimer, Outcome};
use crate::shared::{Shared, errno_logged};

/// The handle that the kernel names where it was given none; ours begin at 1.
pub(super) const HANDLE: FileHandle = FileHandle(0);

/// A hit is answered on this thread, also where the file is not held yet.
pub(super) fn read(shared: &Arc<Shared>, ino: INodeNo, offset: u64, size: u32, reply: ReplyData) {
    let read = Read {
        shared: Arc::clone(shared),
        timer: shared.metrics.start(Op::Read),
        reply,
        ino: ino.0,
        offset,
        size,
    };
    let Some(file) = shared.held.get(ino.0) else {
        return shared.run(read.first().instrument(span(offset, size)));
    };
    match file.try_read(offset, size) {
        Some(data) => read.succeed(&file, &data, Outcome::Hit),
        None => shared.spawn(read.fetch(file).instrument(span(offset, size))),
    }
}

fn span(offset: u64, size: u32) -> tracing::Span {
    tracing::debug_span!("read", offset, bytes = size)
}

/// One read under way.
struct Read {
    shared: Arc<Shared>,
    timer: OpTimer,
    reply: ReplyData,
    ino: u64,
    offset: u64,
    size: u32,
}

impl Read {
    /// Reads of a file that is not held.
    async fn first(self) {
        let file = match hold(&self.shared, self.ino, self.size).await {
            Ok(file) => file,
            Err(errno) => return self.fail(errno),
        };
        match file.try_read(self.offset, self.size) {
            Some(data) => self.succeed(&file, &data, Outcome::Hit),
            None => self.fetch(file).await,
        }
    }

    async fn fetch(self, file: Arc<ClientFile>) {
        match file.read(self.offset, self.size).await {
            Ok(data) => self.succeed(&file, &data, Outcome::Miss),
            Err(error) => {
                if error.kind() == ErrorKind::Stale {
                    self.shared.held.remove(self.ino);
                    self.shared.expire(self.ino);
                }
                self.fail(errno_logged("read", &error));
            }
        }
    }

    fn succeed(self, file: &ClientFile, data: &Bytes, outcome: Outcome) {
        self.shared.metrics.add_read_bytes(data.len());
        if self.offset + u64::from(self.size) >= file.attr().size {
            // Whoever reads to the end is mostly done.
            self.shared.held.remove(self.ino);
        }
        self.timer.finish(outcome);
        self.reply.data(data);
    }

    fn fail(self, errno: Errno) {
        self.timer.finish(Outcome::Error);
        self.reply.error(errno);
    }
}

/// The version that `ino` stands for, opened; held for the reads that follow, if one read of
/// `size` bytes is not all of it.
async fn hold(shared: &Arc<Shared>, ino: u64, size: u32) -> Result<Arc<ClientFile>, Errno> {
    let (path, version) = {
        let inodes = shared.inodes.lock();
        (inodes.path(ino), inodes.version(ino))
    };
    let (Some(path), Some(version)) = (path, version) else {
        return Err(Errno::ESTALE);
    };
    let opened = shared.fs.open(&path).await;
    match opened {
        Ok(file) if file.file_id() == version => {
            if file.attr().size <= u64::from(size) {
                return Ok(file);
            }
            Ok(shared.held.insert(ino, file))
        }
        Ok(_) => {
            shared.expire(ino);
            tracing::info!(path, "file changed while it was open");
            Err(Errno::ESTALE)
        }
        Err(error) => Err(open_failed(shared, ino, &error)),
    }
}

/// A file that is gone is stale to those who have it open.
fn open_failed(shared: &Arc<Shared>, ino: u64, error: &ClientError) -> Errno {
    let errno = errno_logged("open", error);
    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) {
        shared.expire(ino);
        return Errno::ESTALE;
    }
    errno
}
