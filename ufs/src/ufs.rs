//! The one trait behind which every store lies.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use millpond_proto::{ErrorKind, FileVersion, Refusal};

use crate::error::{Op, UfsError};
use crate::metadata::{Entry, Metadata};
use crate::write::{
    Abilities, AttributeChange, Attributes, Condition, RenameMode, Space, UnfinishedStream, Upload,
};

/// The bytes of one read, in order, in pieces of any size.
pub type ByteStream = BoxStream<'static, Result<Bytes, UfsError>>;

/// The entries of one directory, page by page. Ends after the first error.
pub type EntryStream = BoxStream<'static, Result<Vec<Entry>, UfsError>>;

/// Decides what to read at the moment when the request goes out; none if nothing any more.
pub type Choice<'a> = Box<dyn FnOnce() -> Option<Range<u64>> + Send + 'a>;

/// One mount's under-store.
///
/// Paths are UTF-8, relative to the mount's URI, with single `/` between components and none
/// at either end; `""` is the root. A path of another form is [`ErrorKind::Invalid`].
///
/// Every call has a deadline and a bounded number of retries; dropping a future or a stream
/// stops its work. A write that fails with `Timeout` or `Unavailable`, or is dropped, may have
/// taken place; one that fails otherwise has not.
///
/// The calls that change something refuse by themselves: a store that can only be read has
/// nothing to add. `Refusal`s are told apart by [`UfsError::refusal`].
#[async_trait]
pub trait Ufs: Debug + Send + Sync + 'static {
    /// The canonical URI of the root: no trailing slash, no secret.
    fn uri(&self) -> &str;

    /// The canonical URI of the object at `path`, the input of
    /// [`FileId::derive`](millpond_proto::FileId::derive). Two mounts give the same text for
    /// the same object, and different texts for objects of different stores (an S3 endpoint
    /// that was given as an option is part of it).
    fn object_uri(&self, path: &str) -> String;

    /// What is at `path`. A symbolic link is described, not followed.
    ///
    /// # Errors
    /// `NotFound` if there is neither an object nor a directory; `Denied`, `Unavailable`,
    /// `Timeout`, `Busy` from the store.
    async fn stat(&self, path: &str) -> Result<Metadata, UfsError>;

    /// One level of the directory at `dir`, page by page (about 1000 entries each, possibly
    /// empty), in the order that the crate's documentation gives. No name comes twice.
    ///
    /// # Errors
    /// In the stream, as its last item: `NotFound` if the directory does not exist, and the
    /// kinds of [`stat`](Self::stat).
    fn list(&self, dir: &str) -> EntryStream;

    /// The bytes `range` of the file at `path`, exactly that many or an error, all of
    /// `version`. An empty range is an empty stream and asks the store nothing.
    ///
    /// # Errors
    /// `Stale` if the file is not in `version` any more; `NotFound` if it is gone;
    /// `Invalid` if the range ends beyond the file; `Unavailable` if the store sent fewer
    /// bytes than asked for; the kinds of [`stat`](Self::stat).
    async fn read(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError>;

    /// [`read`](Self::read) of what `choose` says once the request can go out: after the wait
    /// for a turn, if there is one. So whoever waits can ask for what others came to need
    /// meanwhile, or for nothing. `choose` is not called if the wait is in vain.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    async fn read_chosen(
        &self,
        path: &str,
        version: &FileVersion,
        choose: Choice<'_>,
    ) -> Result<Option<(Range<u64>, ByteStream)>, UfsError> {
        let Some(range) = choose() else {
            return Ok(None);
        };
        let stream = self.read(path, version, range.clone()).await?;
        Ok(Some((range, stream)))
    }

    /// The target of the symbolic link at `path`, as stored. It may point anywhere: this
    /// trait never follows it out of the root, and neither should the caller.
    ///
    /// # Errors
    /// `Invalid` if `path` is not a link, `Unsupported` if the store has none.
    async fn read_link(&self, path: &str) -> Result<String, UfsError>;

    /// What this store is able to do beyond reading.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// How much room there is; none where a store has no bound or does not tell.
    ///
    /// # Errors
    /// The kinds of [`stat`](Self::stat).
    async fn space(&self) -> Result<Option<Space>, UfsError> {
        Ok(None)
    }

    /// Makes `data` the whole content of the file at `path`, in one step: a reader finds the
    /// old file or the new one. Answers what [`stat`](Self::stat) would.
    ///
    /// A local directory keeps the mode, the owner and the extended attributes of a file that
    /// is replaced, where `attributes` says nothing; other names of it keep the old content. A
    /// link at `path` is replaced, not followed.
    ///
    /// An object store is not asked what lies around `path`: an object beside a directory of
    /// its name, or below a file, is written and then hidden, unless the caller has looked.
    ///
    /// # Errors
    /// Refused: `IsADirectory`, `Exists` or `Stale` (see [`Condition`]), `NotADirectory` for a
    /// path below a file, `NameTooLong`, `TooLarge`, `NoSpace`, `Quota`, `ReadOnly`. `NotFound`
    /// if the store needs a parent directory and there is none. `Denied`, `Unavailable`,
    /// `Timeout`, `Busy` from the store.
    async fn put(
        &self,
        path: &str,
        data: Bytes,
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        let _ = (data, attributes, condition);
        Err(read_only(Op::Put, self.object_uri(path)))
    }

    /// Begins to write the file at `path` in parts, as [`Abilities::parts`] has them.
    ///
    /// # Errors
    /// Those of [`put`](Self::put).
    async fn upload(
        &self,
        path: &str,
        attributes: &Attributes,
    ) -> Result<Box<dyn Upload>, UfsError> {
        let _ = attributes;
        Err(read_only(Op::Upload, self.object_uri(path)))
    }

    /// The uploads below the directory `dir` that were neither completed nor aborted. One that
    /// a living client is at is among them.
    fn unfinished_uploads(&self, dir: &str) -> UnfinishedStream {
        let error = read_only(Op::Upload, self.object_uri(dir));
        futures::stream::iter([Err(error)]).boxed()
    }

    /// Removes what an upload has sent. One that is not there is no error.
    ///
    /// # Errors
    /// The kinds of [`put`](Self::put).
    async fn abort_upload(&self, path: &str, id: &str) -> Result<(), UfsError> {
        let _ = id;
        Err(read_only(Op::Upload, self.object_uri(path)))
    }

    /// Copies the file `from`, with its attributes, to the path `to` within the store: in one
    /// step, whatever its size, replacing what file is there. Answers what
    /// [`stat`](Self::stat) of `to` would.
    ///
    /// # Errors
    /// `NotFound` if there is no file `from`; those of [`put`](Self::put).
    async fn copy(
        &self,
        from: &str,
        to: &str,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        let _ = (to, condition);
        Err(read_only(Op::Copy, self.object_uri(from)))
    }

    /// Gives what is at `from` the path `to`. Without [`Abilities::atomic_rename`] a file or
    /// link is copied and then removed, and a directory is `Unsupported`.
    ///
    /// # Errors
    /// `NotFound` if there is nothing at `from`. Refused: `Exists`, `NotEmpty`, `IsADirectory`,
    /// `NotADirectory`, and the refusals of [`put`](Self::put). `Invalid` if a directory would
    /// come to lie below itself; `Unsupported` for an exchange without
    /// [`Abilities::exchange`].
    async fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), UfsError> {
        let _ = (to, mode);
        Err(read_only(Op::Rename, self.object_uri(from)))
    }

    /// Removes the file or link at `path`.
    ///
    /// # Errors
    /// `NotFound` if there is none. Refused: `IsADirectory`, `ReadOnly`. The kinds of
    /// [`stat`](Self::stat).
    async fn remove(&self, path: &str) -> Result<(), UfsError> {
        Err(read_only(Op::Remove, self.object_uri(path)))
    }

    /// Makes an empty directory at `path`.
    ///
    /// # Errors
    /// Refused: `Exists`, and the refusals of [`put`](Self::put).
    async fn create_dir(&self, path: &str, attributes: &Attributes) -> Result<(), UfsError> {
        let _ = attributes;
        Err(read_only(Op::CreateDir, self.object_uri(path)))
    }

    /// Removes the empty directory at `path`.
    ///
    /// # Errors
    /// `NotFound`. Refused: `NotEmpty`, `NotADirectory`, `ReadOnly`. The kinds of
    /// [`stat`](Self::stat).
    async fn remove_dir(&self, path: &str) -> Result<(), UfsError> {
        Err(read_only(Op::RemoveDir, self.object_uri(path)))
    }

    /// Makes a symbolic link at `path` that points to `target`, which is kept as it is.
    ///
    /// # Errors
    /// Refused: `Exists`; `NotPermitted` without [`Abilities::symlinks`]; the refusals of
    /// [`put`](Self::put).
    async fn symlink(
        &self,
        path: &str,
        target: &str,
        attributes: &Attributes,
    ) -> Result<(), UfsError> {
        let _ = (target, attributes);
        Err(read_only(Op::Link, self.object_uri(path)))
    }

    /// Makes `to` another name of the file at `from`.
    ///
    /// # Errors
    /// `NotFound`. Refused: `Exists`; `NotPermitted` for a directory, and without
    /// [`Abilities::hard_links`]; the refusals of [`put`](Self::put).
    async fn hard_link(&self, from: &str, to: &str) -> Result<(), UfsError> {
        let _ = from;
        Err(read_only(Op::Link, self.object_uri(to)))
    }

    /// All attributes of what is at `path`, extended ones included. Those that the store does
    /// not keep are `None`.
    ///
    /// # Errors
    /// Those of [`stat`](Self::stat).
    async fn attributes(&self, path: &str) -> Result<Attributes, UfsError> {
        let metadata = self.stat(path).await?;
        Ok(Attributes {
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: metadata.mtime,
            ..Attributes::default()
        })
    }

    /// Changes attributes of what is at `path`, a link itself and not what it points to.
    /// Answers what [`stat`](Self::stat) would afterwards: the version may be another, the bytes
    /// are the same.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` without [`Abilities::attributes`]; `Denied`; refused:
    /// `NotPermitted` where the system lets only root do it, `TooLarge` for more than the store
    /// keeps, the refusals of [`put`](Self::put).
    async fn set_attributes(
        &self,
        path: &str,
        change: &AttributeChange,
    ) -> Result<Metadata, UfsError> {
        let _ = change;
        Err(read_only(Op::SetAttributes, self.object_uri(path)))
    }
}

fn read_only(op: Op, uri: String) -> UfsError {
    UfsError::refused(Refusal::ReadOnly, op, uri, "this store can only be read")
}

/// [`Ufs::read`] gathered into one contiguous buffer of exactly `range` bytes.
///
/// # Errors
/// Those of [`Ufs::read`].
pub async fn read_to_bytes(
    ufs: &dyn Ufs,
    path: &str,
    version: &FileVersion,
    range: Range<u64>,
) -> Result<Bytes, UfsError> {
    let len = range.end.saturating_sub(range.start);
    let mut stream = ufs.read(path, version, range).await?;
    let Some(first) = stream.next().await.transpose()? else {
        return exact(ufs, path, Bytes::new(), len);
    };
    if first.len() as u64 == len {
        // The stream is still asked for its end: that is where a driver finds out that the
        // file changed while it was read.
        while let Some(more) = stream.next().await.transpose()? {
            if !more.is_empty() {
                return exact(ufs, path, more, 0);
            }
        }
        return Ok(first);
    }
    let mut all = BytesMut::with_capacity(usize::try_from(len).unwrap_or(0));
    all.extend_from_slice(&first);
    while let Some(piece) = stream.next().await.transpose()? {
        all.extend_from_slice(&piece);
    }
    exact(ufs, path, all.freeze(), len)
}

fn exact(ufs: &dyn Ufs, path: &str, bytes: Bytes, len: u64) -> Result<Bytes, UfsError> {
    if bytes.len() as u64 == len {
        return Ok(bytes);
    }
    Err(UfsError::new(
        ErrorKind::Unavailable,
        Op::Read,
        ufs.object_uri(path),
        format!("the store sent {} bytes instead of {len}", bytes.len()),
    ))
}

/// Asks the store for the first page of the root: whether the endpoint answers, the
/// credentials are right and the bucket or directory exists. A store that cannot list
/// (HTTP) is asked for its root instead.
///
/// # Errors
/// Those of [`Ufs::list`].
pub async fn probe(ufs: &dyn Ufs) -> Result<(), UfsError> {
    match ufs.list("").next().await {
        Some(Err(error)) if error.kind() == ErrorKind::Unsupported => {
            ufs.stat("").await.map(|_| ())
        }
        Some(Err(error)) => Err(error),
        Some(Ok(_)) | None => Ok(()),
    }
}
