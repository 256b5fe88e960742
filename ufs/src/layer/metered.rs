//! Counts and times every call.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt;
use millpond_proto::FileVersion;

use crate::error::{Op, UfsError};
use crate::metadata::Metadata;
use crate::metrics::{Outcome, UfsMetrics};
use crate::ufs::{ByteStream, EntryStream, Ufs};

/// Counts calls by outcome, times them, and counts the bytes that reads hand out.
#[derive(Debug)]
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

#[async_trait]
impl Ufs for Metered {
    fn uri(&self) -> &str {
        self.inner.uri()
    }

    fn object_uri(&self, path: &str) -> String {
        self.inner.object_uri(path)
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        let call = self.start(Op::Stat);
        call.end(self.inner.stat(path).await)
    }

    fn list(&self, dir: &str) -> EntryStream {
        let state = (self.inner.list(dir), Arc::clone(&self.metrics));
        futures::stream::unfold(state, |(mut stream, metrics)| async move {
            let mut call = Call::start(Arc::clone(&metrics), Op::List);
            let Some(page) = stream.next().await else {
                call.forget();
                return None;
            };
            Some((call.end(page), (stream, metrics)))
        })
        .boxed()
    }

    async fn read(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        let call = self.start(Op::Read);
        let stream = match self.inner.read(path, version, range).await {
            Ok(stream) => stream,
            Err(error) => return call.end(Err(error)),
        };
        let state = (stream, Some(call));
        let counted = futures::stream::unfold(state, |(mut stream, mut call)| async move {
            let piece = stream.next().await;
            match (&piece, &mut call) {
                (Some(Ok(bytes)), Some(call)) => {
                    call.metrics.add_read_bytes(bytes.len() as u64);
                }
                (Some(Err(error)), call) => {
                    if let Some(call) = call.take() {
                        call.finish(Outcome::Failed(error.kind()));
                    }
                }
                (None, call) => {
                    if let Some(call) = call.take() {
                        call.finish(Outcome::Ok);
                    }
                }
                (Some(Ok(_)), None) => {}
            }
            piece.map(|piece| (piece, (stream, call)))
        });
        Ok(counted.boxed())
    }

    async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        let call = self.start(Op::ReadLink);
        call.end(self.inner.read_link(path).await)
    }
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
        Self {
            metrics,
            op,
            started: Instant::now(),
            open: true,
        }
    }

    fn end<T>(self, result: Result<T, UfsError>) -> Result<T, UfsError> {
        self.finish(Outcome::from(&result));
        result
    }

    fn finish(mut self, outcome: Outcome) {
        self.record(outcome);
    }

    fn forget(&mut self) {
        self.open = false;
    }

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
