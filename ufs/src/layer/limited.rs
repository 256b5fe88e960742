//! So many calls at once, no more.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use millpond_proto::{ErrorKind, FileVersion};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Op, UfsError};
use crate::metadata::Metadata;
use crate::ufs::{ByteStream, EntryStream, Ufs};

/// Lets a fixed number of calls through at once; the rest wait, and get `Busy` when they
/// have waited too long. A read counts until its stream ends or is dropped, a listing only
/// while a page is being fetched.
#[derive(Debug)]
pub(crate) struct Limited {
    inner: Arc<dyn Ufs>,
    slots: Arc<Semaphore>,
    patience: Duration,
}

impl Limited {
    pub(crate) fn new(inner: Arc<dyn Ufs>, slots: usize, patience: Duration) -> Self {
        Self {
            inner,
            slots: Arc::new(Semaphore::new(slots)),
            patience,
        }
    }

    async fn slot(&self, op: Op, path: &str) -> Result<OwnedSemaphorePermit, UfsError> {
        let slots = Arc::clone(&self.slots);
        slot(slots, self.patience, op, || self.inner.object_uri(path)).await
    }
}

#[async_trait]
impl Ufs for Limited {
    fn uri(&self) -> &str {
        self.inner.uri()
    }

    fn object_uri(&self, path: &str) -> String {
        self.inner.object_uri(path)
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        let _slot = self.slot(Op::Stat, path).await?;
        self.inner.stat(path).await
    }

    fn list(&self, dir: &str) -> EntryStream {
        let (slots, patience) = (Arc::clone(&self.slots), self.patience);
        let state = (self.inner.list(dir), slots, self.inner.object_uri(dir));
        futures::stream::try_unfold(state, move |(mut stream, slots, uri)| async move {
            let _slot = slot(Arc::clone(&slots), patience, Op::List, || uri.clone()).await?;
            let page = stream.next().await.transpose()?;
            Ok(page.map(|page| (page, (stream, slots, uri))))
        })
        .boxed()
    }

    async fn read(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        let slot = self.slot(Op::Read, path).await?;
        let stream = self.inner.read(path, version, range).await?;
        let state = (stream, slot);
        let held = futures::stream::unfold(state, |(mut stream, slot)| async move {
            stream.next().await.map(|piece| (piece, (stream, slot)))
        });
        Ok(held.boxed())
    }

    async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        let _slot = self.slot(Op::ReadLink, path).await?;
        self.inner.read_link(path).await
    }
}

async fn slot(
    slots: Arc<Semaphore>,
    patience: Duration,
    op: Op,
    uri: impl FnOnce() -> String,
) -> Result<OwnedSemaphorePermit, UfsError> {
    match tokio::time::timeout(patience, slots.acquire_owned()).await {
        Ok(Ok(slot)) => Ok(slot),
        // The semaphore is never closed, so this is the wait that was too long.
        Ok(Err(_)) | Err(_) => Err(UfsError::new(
            ErrorKind::Busy,
            op,
            uri(),
            "too many calls to this store are in flight",
        )
        .with_tried(patience)
        .with_hint("try again later, or raise the option concurrency")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A store that never answers.
    #[derive(Debug)]
    pub(crate) struct Stuck;

    #[async_trait]
    impl Ufs for Stuck {
        fn uri(&self) -> &str {
            "stuck:"
        }

        fn object_uri(&self, path: &str) -> String {
            format!("stuck:{path}")
        }

        async fn stat(&self, _: &str) -> Result<Metadata, UfsError> {
            std::future::pending().await
        }

        fn list(&self, _: &str) -> EntryStream {
            futures::stream::pending().boxed()
        }

        async fn read(
            &self,
            _: &str,
            _: &FileVersion,
            range: Range<u64>,
        ) -> Result<ByteStream, UfsError> {
            if range.is_empty() {
                return Ok(futures::stream::pending().boxed());
            }
            std::future::pending().await
        }

        async fn read_link(&self, _: &str) -> Result<String, UfsError> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn an_open_stream_holds_its_slot_until_dropped() {
        let ufs = Limited::new(Arc::new(Stuck), 1, Duration::from_millis(20));
        let version = FileVersion::Modified(0);
        let stream = ufs.read("a", &version, 0..0).await.expect("a slot is free");
        let busy = ufs.read("a", &version, 0..0).await.err();
        assert_eq!(busy.expect("no slot").kind(), ErrorKind::Busy);
        drop(stream);
        assert!(ufs.read("a", &version, 0..0).await.is_ok());
    }
}
