//! One deadline for every call.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use millpond_proto::{ErrorKind, FileVersion};

use crate::error::{Op, UfsError};
use crate::metadata::Metadata;
use crate::ufs::{ByteStream, EntryStream, Ufs};

/// Ends with `Timeout` what takes longer than the limit: a whole `stat` or `read_link`, each
/// page of a listing, the first bytes of a read, and each pause between its pieces. A long
/// read that keeps moving is never cut.
#[derive(Debug)]
pub(crate) struct Deadline {
    inner: Arc<dyn Ufs>,
    limit: Duration,
}

impl Deadline {
    pub(crate) fn new(inner: Arc<dyn Ufs>, limit: Duration) -> Self {
        Self { inner, limit }
    }

    async fn within<T>(
        &self,
        op: Op,
        path: &str,
        call: impl Future<Output = Result<T, UfsError>>,
    ) -> Result<T, UfsError> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(result) => result,
            Err(_) => Err(late(op, self.inner.object_uri(path), self.limit)),
        }
    }
}

#[async_trait]
impl Ufs for Deadline {
    fn uri(&self) -> &str {
        self.inner.uri()
    }

    fn object_uri(&self, path: &str) -> String {
        self.inner.object_uri(path)
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        self.within(Op::Stat, path, self.inner.stat(path)).await
    }

    fn list(&self, dir: &str) -> EntryStream {
        let uri = self.inner.object_uri(dir);
        guard(self.inner.list(dir), Op::List, uri, self.limit)
    }

    async fn read(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        let call = self.inner.read(path, version, range);
        let stream = self.within(Op::Read, path, call).await?;
        let uri = self.inner.object_uri(path);
        Ok(guard(stream, Op::Read, uri, self.limit))
    }

    async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        self.within(Op::ReadLink, path, self.inner.read_link(path))
            .await
    }
}

/// `stream` with the limit on each wait for an item; ends after the first error.
fn guard<T: Send + 'static>(
    stream: BoxStream<'static, Result<T, UfsError>>,
    op: Op,
    uri: String,
    limit: Duration,
) -> BoxStream<'static, Result<T, UfsError>> {
    futures::stream::try_unfold((stream, uri), move |(mut stream, uri)| async move {
        let asked = Instant::now();
        match tokio::time::timeout(limit, stream.next()).await {
            Ok(Some(item)) => Ok(Some((item?, (stream, uri)))),
            Ok(None) => Ok(None),
            Err(_) => Err(late(op, uri, asked.elapsed())),
        }
    })
    .boxed()
}

fn late(op: Op, uri: String, tried: Duration) -> UfsError {
    UfsError::new(
        ErrorKind::Timeout,
        op,
        uri,
        "the store did not answer in time",
    )
    .with_tried(tried)
    .with_hint("check that the store is up, or raise the option timeout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::limited::tests::Stuck;

    #[tokio::test]
    async fn a_store_that_hangs_is_a_timeout_in_every_call() {
        let ufs = Deadline::new(Arc::new(Stuck), Duration::from_millis(20));
        let version = FileVersion::Modified(0);
        let kinds = [
            ufs.stat("a").await.expect_err("hangs").kind(),
            ufs.read_link("a").await.expect_err("hangs").kind(),
            ufs.list("")
                .next()
                .await
                .expect("one")
                .expect_err("hangs")
                .kind(),
            ufs.read("a", &version, 0..1)
                .await
                .err()
                .expect("hangs")
                .kind(),
        ];
        assert_eq!(kinds, [ErrorKind::Timeout; 4]);
    }
}
