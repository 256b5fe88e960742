//! Reading one version of a file.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use millpond_proto::{ErrorKind, FileVersion};
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Op, UfsError};
use crate::local::blocking;
use crate::local::failure::failure;
use crate::local::inode;
use crate::local::root::Root;
use crate::ufs::ByteStream;

/// The bytes `range` of the file at `path` in `version`, in pieces of [`PIECE`] bytes.
pub(super) async fn read(
    root: Arc<Root>,
    path: String,
    version: FileVersion,
    range: Range<u64>,
) -> Result<ByteStream, UfsError> {
    let uri = root.uri_of(&path);
    let at = uri.clone();
    let end = range.end;
    let file = blocking(Op::Read, &uri, move || {
        OpenFile::open(&root, &path, at, version, end)
    })
    .await?;
    let state = (Arc::new(file), range);
    Ok(
        futures::stream::try_unfold(state, |(file, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let len = PIECE.min(range.end - range.start);
            let (reader, start) = (Arc::clone(&file), range.start);
            let piece = blocking(Op::Read, &file.uri, move || reader.piece(start, len)).await?;
            Ok(Some((piece, (file, range.start + len..range.end))))
        })
        .boxed(),
    )
}

/// An open file and the version in which it must stay.
struct OpenFile {
    fd: OwnedFd,
    uri: String,
    version: FileVersion,
}

impl OpenFile {
    fn open(
        root: &Root,
        path: &str,
        uri: String,
        version: FileVersion,
        end: u64,
    ) -> Result<Self, UfsError> {
        // O_NONBLOCK: opening a pipe must not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = root.open_below(Op::Read, path, flags)?;
        let file = Self { fd, uri, version };
        let stat = file.check()?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if end > size {
            return Err(file.error(
                ErrorKind::Invalid,
                &format!("byte {end} is beyond its {size} bytes"),
            ));
        }
        Ok(file)
    }

    fn piece(&self, start: u64, len: u64) -> Result<Bytes, UfsError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut piece: Vec<u8> = Vec::with_capacity(len);
        while piece.len() < len {
            let offset = start + piece.len() as u64;
            match rustix::io::pread(&self.fd, spare_capacity(&mut piece), offset) {
                Ok(0) => {
                    // Shorter than it was: changed, and if not, then broken.
                    self.check()?;
                    return Err(self.error(ErrorKind::Unavailable, "the file ended too early"));
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failure(errno, Op::Read, self.uri.clone())),
            }
        }
        // The buffer may have more room than was asked for.
        piece.truncate(len);
        self.check()?;
        Ok(piece.into())
    }

    /// That this is still the file and version that was asked for.
    fn check(&self) -> Result<Stat, UfsError> {
        let stat = rustix::fs::fstat(&self.fd)
            .map_err(|errno| failure(errno, Op::Read, self.uri.clone()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.error(ErrorKind::Invalid, "it is not a regular file"));
        }
        if inode::version(&stat) != self.version {
            return Err(self.error(ErrorKind::Stale, "the file changed"));
        }
        Ok(stat)
    }

    fn error(&self, kind: ErrorKind, cause: &str) -> UfsError {
        UfsError::new(kind, Op::Read, &self.uri, cause)
    }
}

/// Large enough to reach the speed of the page cache, small enough to hand on early.
const PIECE: u64 = 1 << 20;
