//! One open file.

use bytes::Bytes;
use millpond_proto::FileId;

use crate::attr::Attr;
use crate::error::ClientError;

/// One version of one file, open for reading. Reads may run concurrently.
#[derive(Debug)]
pub struct FileHandle {
    attr: Attr,
    file_id: FileId,
}

impl FileHandle {
    /// The attributes as of `open`.
    pub fn attr(&self) -> &Attr {
        &self.attr
    }

    /// The identity of the content that this handle reads.
    pub fn file_id(&self) -> FileId {
        self.file_id
    }

    /// Up to `len` bytes at `offset` if all of them are in local memory; cut at the end of
    /// the file, where it returns no bytes. Never waits, may be called on any thread.
    pub fn try_read(&self, offset: u64, len: u32) -> Option<Bytes> {
        (offset >= self.attr.size || len == 0).then(Bytes::new)
    }

    /// Up to `len` bytes at `offset`, contiguous; short only at the end of the file.
    ///
    /// # Errors
    /// `Stale` if the object changed and the bytes are no longer to be had in the version
    /// that was opened; the UFS's kind if no source has them; `Timeout`.
    ///
    /// # Cancel safety
    /// Safe; what is in flight still reaches the local memory tier.
    #[allow(clippy::unused_async, reason = "signature first")]
    pub async fn read(&self, offset: u64, len: u32) -> Result<Bytes, ClientError> {
        self.try_read(offset, len).ok_or(ClientError::ShutDown)
    }
}
