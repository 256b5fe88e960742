//! Uploads in parts, and copies, into a local directory.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_proto::{ErrorKind, FileVersion};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::error::{Op, UfsError};
use crate::local::attributes;
use crate::local::failure::change_failure;
use crate::local::root::Root;
use crate::local::unfinished::{Passing, UnfinishedFile};
use crate::local::{blocking, inode};
use crate::metadata::Metadata;
use crate::write::{Attributes, Condition, Upload};

/// Makes `data` the file at `path`.
pub(super) async fn put(
    root: Arc<Root>,
    path: String,
    data: Bytes,
    given: Attributes,
    condition: Condition,
) -> Result<Metadata, UfsError> {
    let (uri, whole, at) = (root.uri_of(&path), Arc::clone(&root), path.clone());
    let known = blocking(Op::Put, &uri, move || {
        let file = Arc::new(UnfinishedFile::create(&whole, Op::Put, &at)?);
        let passing = Passing::new(&file);
        file.write(0, &data)?;
        let known = file.finish(&whole, &given, &condition)?;
        passing.keep();
        Ok(known)
    });
    described(known.await?, root, Op::Put, path).await
}

/// Copies the file `from` with its attributes.
pub(super) async fn copy(
    root: Arc<Root>,
    from: String,
    to: String,
    condition: Condition,
) -> Result<Metadata, UfsError> {
    let (uri, whole, at) = (root.uri_of(&from), Arc::clone(&root), to.clone());
    let known = blocking(Op::Copy, &uri, move || {
        let source = Source::open(&whole, Op::Copy, &from, OFlags::NOFOLLOW)?;
        let size = u64::try_from(source.stat.st_size).unwrap_or(0);
        let file = Arc::new(UnfinishedFile::create(&whole, Op::Copy, &at)?);
        let passing = Passing::new(&file);
        // Shares the blocks where the file system can.
        if rustix::fs::ioctl_ficlone(file.fd(), &source.fd).is_err() {
            source.copy_to(&file, 0..size, 0)?;
        }
        source.check()?;
        let given = attributes::read(&whole, &from)?;
        let known = file.finish(&whole, &given, &condition)?;
        passing.keep();
        Ok(known)
    });
    described(known.await?, root, Op::Copy, to).await
}

/// What was known when the file was put into its place; otherwise what is there now.
async fn described(
    known: Option<Metadata>,
    root: Arc<Root>,
    op: Op,
    path: String,
) -> Result<Metadata, UfsError> {
    match known {
        Some(metadata) => Ok(metadata),
        None => inode::settled(root, op, path).await,
    }
}

/// A file that is written in parts, in any order.
#[derive(Debug)]
pub(super) struct LocalUpload {
    root: Arc<Root>,
    path: String,
    file: Arc<UnfinishedFile>,
    given: Attributes,
}

impl LocalUpload {
    pub(super) async fn begin(
        root: Arc<Root>,
        path: String,
        given: Attributes,
    ) -> Result<Self, UfsError> {
        let (uri, whole, at) = (root.uri_of(&path), Arc::clone(&root), path.clone());
        let file = blocking(Op::Upload, &uri, move || {
            UnfinishedFile::create(&whole, Op::Upload, &at)
        });
        Ok(Self {
            file: Arc::new(file.await?),
            root,
            path,
            given,
        })
    }
}

#[async_trait]
impl Upload for LocalUpload {
    fn id(&self) -> &str {
        self.file.id()
    }

    async fn part(&self, _: u32, offset: u64, data: Bytes) -> Result<(), UfsError> {
        let file = Arc::clone(&self.file);
        blocking(Op::Upload, self.file.uri(), move || {
            file.write(offset, &data)
        })
        .await
    }

    async fn copy_part(
        &self,
        _: u32,
        offset: u64,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<(), UfsError> {
        let (root, path, version) = (Arc::clone(&self.root), path.to_owned(), version.clone());
        let file = Arc::clone(&self.file);
        blocking(Op::Upload, self.file.uri(), move || {
            let source = Source::open(&root, Op::Upload, &path, OFlags::empty())?;
            if inode::version(&source.stat) != version {
                return Err(source.error(ErrorKind::Stale, "the file changed"));
            }
            if range.end > u64::try_from(source.stat.st_size).unwrap_or(0) {
                return Err(source.error(ErrorKind::Invalid, "the bytes are beyond its end"));
            }
            source.copy_to(&file, range, offset)?;
            source.check()
        })
        .await
    }

    async fn complete(&self, size: u64, condition: &Condition) -> Result<Metadata, UfsError> {
        let (root, file) = (Arc::clone(&self.root), Arc::clone(&self.file));
        let (given, condition) = (self.given.clone(), condition.clone());
        let known = blocking(Op::Upload, self.file.uri(), move || {
            file.cut(size)?;
            file.finish(&root, &given, &condition)
        });
        let root = Arc::clone(&self.root);
        described(known.await?, root, Op::Upload, self.path.clone()).await
    }

    async fn abort(&self) -> Result<(), UfsError> {
        let file = Arc::clone(&self.file);
        blocking(Op::Upload, self.file.uri(), move || file.remove()).await
    }
}

/// A file that is copied from.
struct Source {
    fd: std::os::fd::OwnedFd,
    stat: rustix::fs::Stat,
    op: Op,
    uri: String,
}

impl Source {
    fn open(root: &Root, op: Op, path: &str, flags: OFlags) -> Result<Self, UfsError> {
        let uri = root.uri_of(path);
        let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = root.open_below(op, path, flags)?;
        let stat =
            rustix::fs::fstat(&fd).map_err(|errno| change_failure(errno, op, uri.clone()))?;
        let source = Self { fd, stat, op, uri };
        match FileType::from_raw_mode(source.stat.st_mode) {
            FileType::RegularFile => Ok(source),
            FileType::Directory => Err(change_failure(Errno::ISDIR, op, source.uri)),
            _ => Err(source.error(ErrorKind::Invalid, "it is not a regular file")),
        }
    }

    fn copy_to(
        &self,
        file: &UnfinishedFile,
        range: Range<u64>,
        offset: u64,
    ) -> Result<(), UfsError> {
        let fail = |errno| change_failure(errno, self.op, self.uri.clone());
        let (mut from, mut to) = (range.start, offset);
        while from < range.end {
            let len = usize::try_from(range.end - from).unwrap_or(usize::MAX);
            let (source, target) = (self.fd.as_fd(), file.fd());
            let copied = rustix::fs::copy_file_range(
                source,
                Some(&mut from),
                target,
                Some(&mut to),
                len.min(MAX_COPY),
            );
            match copied {
                Ok(0) => return Err(self.error(ErrorKind::Stale, "the file became shorter")),
                Ok(_) => {}
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    return self.carry_to(file, from..range.end, to);
                }
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(())
    }

    /// Copies through this process.
    fn carry_to(
        &self,
        file: &UnfinishedFile,
        range: Range<u64>,
        offset: u64,
    ) -> Result<(), UfsError> {
        let mut buffer = vec![0; CARRIED];
        let mut from = range.start;
        while from < range.end {
            let left = usize::try_from(range.end - from).unwrap_or(usize::MAX);
            let room = &mut buffer[..left.min(CARRIED)];
            match rustix::io::pread(self.fd.as_fd(), room, from) {
                Ok(0) => return Err(self.error(ErrorKind::Stale, "the file became shorter")),
                Ok(read) => {
                    file.write(offset + (from - range.start), &buffer[..read])?;
                    from += read as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(change_failure(errno, self.op, self.uri.clone())),
            }
        }
        Ok(())
    }

    /// That the file is as it was when it was opened.
    fn check(&self) -> Result<(), UfsError> {
        let fd: BorrowedFd<'_> = self.fd.as_fd();
        let now = rustix::fs::fstat(fd)
            .map_err(|errno| change_failure(errno, self.op, self.uri.clone()))?;
        match inode::version(&now) == inode::version(&self.stat) {
            true => Ok(()),
            false => Err(self.error(ErrorKind::Stale, "the file changed while it was copied")),
        }
    }

    fn error(&self, kind: ErrorKind, cause: &str) -> UfsError {
        UfsError::new(kind, self.op, &self.uri, cause)
    }
}

/// So that one call does not hold its thread for long.
const MAX_COPY: usize = 1 << 30;
const CARRIED: usize = 1 << 20;
