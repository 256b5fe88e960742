//! The one trait behind which every store lies.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use millpond_proto::{ErrorKind, FileVersion};

use crate::error::{Op, UfsError};
use crate::metadata::{Entry, Metadata};

/// The bytes of one read, in order, in pieces of any size.
pub type ByteStream = BoxStream<'static, Result<Bytes, UfsError>>;

/// The entries of one directory, page by page. Ends after the first error.
pub type EntryStream = BoxStream<'static, Result<Vec<Entry>, UfsError>>;

/// Decides what to read at the moment when the request goes out; none if nothing any more.
pub type Choice<'a> = Box<dyn FnOnce() -> Option<Range<u64>> + Send + 'a>;

/// One mount's under-store, read-only.
///
/// Paths are UTF-8, relative to the mount's URI, with single `/` between components and none
/// at either end; `""` is the root. A path of another form is [`ErrorKind::Invalid`].
///
/// Every call has a deadline and a bounded number of retries; dropping a future or a stream
/// stops its work.
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
