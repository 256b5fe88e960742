//! One deadline for every call.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use millpond_proto::{ErrorKind, FileVersion};

use super::{Ask, Layer, Work};
use crate::error::{Op, UfsError};
use crate::ufs::{ByteStream, Ufs};

/// Ends with `Timeout` what takes longer than the limit: a whole question or change of a name,
/// each page of a listing, the first bytes of a read, and each pause between its pieces. A long
/// read that keeps moving is never cut. What sends bytes has a second more for each MiB, and
/// what lets the store itself move bytes, which nobody sees moving, [`MOVING`] times the limit.
#[derive(Debug, Clone)]
pub(crate) struct Deadline {
    inner: Arc<dyn Ufs>,
    limit: Duration,
}

impl Deadline {
    pub(crate) fn new(inner: Arc<dyn Ufs>, limit: Duration) -> Self {
        Self { inner, limit }
    }

    fn limit(&self, work: Work) -> Duration {
        match work {
            Work::Little => self.limit,
            Work::Sends(bytes) => self.limit + Duration::from_secs(bytes / SLOWEST),
            Work::Moves => self.limit * MOVING,
        }
    }
}

impl Layer for Deadline {
    fn inner(&self) -> &Arc<dyn Ufs> {
        &self.inner
    }

    async fn around<T: Send>(
        &self,
        ask: Ask<'_>,
        call: impl Future<Output = Result<T, UfsError>> + Send,
    ) -> Result<T, UfsError> {
        let limit = self.limit(ask.work);
        match tokio::time::timeout(limit, call).await {
            Ok(result) => result,
            Err(_) => Err(late(ask.op, self.inner.object_uri(ask.path), limit)),
        }
    }

    fn pages<T: Send + 'static>(
        &self,
        op: Op,
        dir: &str,
        pages: BoxStream<'static, Result<T, UfsError>>,
    ) -> BoxStream<'static, Result<T, UfsError>> {
        guard(pages, op, self.inner.object_uri(dir), self.limit)
    }

    async fn read_through(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        let ask = Ask::new(Op::Read, path, Work::Little);
        let stream = self
            .around(ask, self.inner.read(path, version, range))
            .await?;
        let uri = self.inner.object_uri(path);
        Ok(guard(stream, Op::Read, uri, self.limit))
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

/// Bytes per second that a store takes at the least while it is sent some.
const SLOWEST: u64 = 1 << 20;

/// With the default limit of 10 s this is an hour: 5 TiB at 1.5 GB/s.
const MOVING: u32 = 360;

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

    #[test]
    fn what_moves_bytes_has_the_time_for_them() {
        let ufs = Deadline::new(Arc::new(Stuck), Duration::from_secs(10));
        assert_eq!(ufs.limit(Work::Little).as_secs(), 10);
        assert_eq!(ufs.limit(Work::Sends(100)).as_secs(), 10);
        assert_eq!(ufs.limit(Work::Sends(64 << 20)).as_secs(), 74);
        assert_eq!(ufs.limit(Work::Moves).as_secs(), 3600);
    }
}
