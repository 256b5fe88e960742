//! Counts and times every call.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::BoxStream;
use millpond_proto::FileVersion;

use super::{Ask, Layer, Work};
use crate::error::{Op, UfsError};
use crate::metrics::{Outcome, UfsMetrics};
use crate::ufs::{ByteStream, Choice, Ufs};

/// Counts calls by outcome, times them, and counts the bytes that reads hand out and that
/// writes send.
#[derive(Debug, Clone)]
pub(crate) struct Metered {
    inner: Arc<dyn Ufs>,
    metrics: Arc<UfsMetrics>,
}

impl Metered {
    pub(crate) fn new(inner: Arc<dyn Ufs>, metrics: Arc<UfsMetrics>) -> Self {
        Self { inner, metrics }
    }

    fn start(&self, op: Op) -> Call {
        Call::start(Arc::clone(&self.metrics), op)
    }
}

impl Layer for Metered {
    fn inner(&self) -> &Arc<dyn Ufs> {
        &self.inner
    }

    async fn around<T: Send>(
        &self,
        ask: Ask<'_>,
        call: impl Future<Output = Result<T, UfsError>> + Send,
    ) -> Result<T, UfsError> {
        let counted = self.start(ask.op);
        let result = counted.end(call.await);
        if let (Work::Sends(bytes), Ok(_)) = (ask.work, &result) {
            self.metrics.add_written_bytes(bytes);
        }
        result
    }

    fn pages<T: Send + 'static>(
        &self,
        op: Op,
        _: &str,
        pages: BoxStream<'static, Result<T, UfsError>>,
    ) -> BoxStream<'static, Result<T, UfsError>> {
        let state = (pages, Arc::clone(&self.metrics));
        futures::stream::unfold(state, move |(mut pages, metrics)| async move {
            let mut call = Call::start(Arc::clone(&metrics), op);
            let Some(page) = pages.next().await else {
                call.forget();
                return None;
            };
            Some((call.end(page), (pages, metrics)))
        })
        .boxed()
    }

    async fn read_through(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        let call = self.start(Op::Read);
        let left = range.end.saturating_sub(range.start);
        match self.inner.read(path, version, range).await {
            Ok(stream) => Ok(counted(stream, call, left)),
            Err(error) => call.end(Err(error)),
        }
    }

    async fn read_chosen_through(
        &self,
        path: &str,
        version: &FileVersion,
        choose: Choice<'_>,
    ) -> Result<Option<(Range<u64>, ByteStream)>, UfsError> {
        let started = Instant::now();
        // There is no call before it is decided that there is something to read.
        let mut call = None;
        let deciding = || {
            let range = choose()?;
            call = Some(Call::begun(Arc::clone(&self.metrics), Op::Read, started));
            Some(range)
        };
        let chosen = self.inner.read_chosen(path, version, Box::new(deciding));
        let chosen = chosen.await;
        match (chosen, call) {
            (Ok(Some((range, stream))), Some(call)) => {
                let left = range.end.saturating_sub(range.start);
                Ok(Some((range, counted(stream, call, left))))
            }
            (Err(error), None) => {
                Call::begun(Arc::clone(&self.metrics), Op::Read, started).end(Err(error))
            }
            (chosen, Some(call)) => call.end(chosen),
            (chosen, None) => chosen,
        }
    }
}

/// `stream` as the answer of `call`, of which `left` bytes are to come.
fn counted(stream: ByteStream, call: Call, left: u64) -> ByteStream {
    let state = (stream, call, left);
    futures::stream::unfold(state, |(mut stream, mut call, left)| async move {
        let piece = stream.next().await;
        let mut left = left;
        match &piece {
            Some(Ok(bytes)) => {
                let len = bytes.len() as u64;
                call.metrics.add_read_bytes(len);
                left = left.saturating_sub(len);
                // A reader that has all its bytes need not ask for the end.
                if left == 0 {
                    call.record(Outcome::Ok);
                }
            }
            Some(Err(error)) => call.record(Outcome::Failed(error.kind())),
            None => call.record(Outcome::Ok),
        }
        piece.map(|piece| (piece, (stream, call, left)))
    })
    .boxed()
}

/// One call in flight: counted as cancelled if it is dropped without an end.
#[derive(Debug)]
struct Call {
    metrics: Arc<UfsMetrics>,
    op: Op,
    started: Instant,
    open: bool,
}

impl Call {
    fn start(metrics: Arc<UfsMetrics>, op: Op) -> Self {
        Self::begun(metrics, op, Instant::now())
    }

    const fn begun(metrics: Arc<UfsMetrics>, op: Op, started: Instant) -> Self {
        Self {
            metrics,
            op,
            started,
            open: true,
        }
    }

    fn end<T>(mut self, result: Result<T, UfsError>) -> Result<T, UfsError> {
        self.record(Outcome::from(&result));
        result
    }

    fn forget(&mut self) {
        self.open = false;
    }

    /// Counts the call, the first time that it is told how the call ended.
    fn record(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.open, false) {
            let seconds = self.started.elapsed().as_secs_f64();
            self.metrics.observe(self.op, outcome, seconds);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.record(Outcome::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::limited::tests::Stuck;
    use crate::memory::MemoryStore;
    use crate::object::{ObjectUfs, Rules};
    use prometheus_client::registry::Registry;

    fn metered(inner: Arc<dyn Ufs>) -> (Metered, Arc<UfsMetrics>) {
        let metrics = Arc::new(UfsMetrics::new(&mut Registry::default()));
        (Metered::new(inner, Arc::clone(&metrics)), metrics)
    }

    #[tokio::test]
    async fn a_read_is_done_with_its_last_byte_whether_or_not_its_end_is_asked_for() {
        let store = MemoryStore::named("a_read_is_done");
        let version = store.put("f", "bytes");
        let (_, unused) = metered(Arc::new(Stuck));
        let tree = ObjectUfs::new("memory:".into(), "", store, Rules::default(), unused);
        let (ufs, metrics) = metered(Arc::new(tree));
        let mut stream = ufs.read("f", &version, 0..5).await.expect("it exists");
        stream.next().await.expect("one piece").expect("right");
        drop(stream);
        assert_eq!(metrics.succeeded(Op::Read), 1);
        assert_eq!(metrics.read_bytes(), 5);
    }

    #[tokio::test]
    async fn a_dropped_call_is_not_a_success() {
        let (ufs, metrics) = metered(Arc::new(Stuck));
        let call = ufs.stat("a");
        assert!(futures::poll!(call).is_pending());
        assert_eq!(metrics.succeeded(Op::Stat), 0);
    }
}
