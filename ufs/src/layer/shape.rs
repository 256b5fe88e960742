//! A store with a known shape: any store, made as slow, as narrow and as unreliable as another.
//!
//! For measurements on one machine, where a local directory or an emulator answers at once and
//! a figure for a cold read would say nothing. The shape is laid over the whole store: all who
//! open the same store in the same shape within one process share its request rate and its
//! total bandwidth, as the nodes of a cluster share a bucket. Each process has a store of its
//! own.
//!
//! | module | holds |
//! |---|---|
//! | [`figures`] | [`Shape`]: the figures, from a preset and options |
//! | [`preset`] | the presets, and where their figures come from |
//! | [`draw`] | what chance does to each request, from a seed |
//! | [`pace`] | bandwidths and request rates, with time as an argument |
//! | [`store`] | [`Store`]: what all who open a store share |
//!
//! # What a request goes through
//!
//! - A `stat`, a `read_link`, a page of a listing and a read are one request each. A read of an
//!   empty range is none.
//! - Beyond the request rate it is answered `Busy`, as by S3's `503 SlowDown`; by the error
//!   rate `Unavailable`, as by its `500 InternalError`. Nothing below repeats either: the
//!   driver's own retries are on the other side of the shape, so what is injected is what
//!   remained of a real store's errors after them. Such an answer takes as long as another.
//! - Its first byte comes after the latency that was drawn for it, or when the wrapped store
//!   has it, whichever is later.
//! - Every other call is one request too, whatever it does at the wrapped store; an upload, and
//!   each part of it, are one each. The bytes of a write go first, as slowly as those of a read
//!   come.
//! - The bytes of a read follow at the bandwidth of a stream, or later if all streams together
//!   have used up the total. They are handed out in small pieces, and never changed.
//!
//! # What repeats
//!
//! The n-th request to a store has the latency and the fate that `shape.seed` gives to n,
//! whoever sends it. Counting begins anew when nobody has the store open any more.

mod draw;
mod figures;
mod pace;
mod preset;
mod store;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use millpond_proto::{ErrorKind, FileVersion};
use tokio::time::Instant;

use super::{Ask, Layer, Work};
use crate::error::{Op, UfsError};
use crate::ufs::{ByteStream, Ufs};

use draw::Fate;
use pace::Pacer;
use store::{Request, Store};

pub(crate) use figures::Shape;

/// A store in the shape of another.
#[derive(Debug, Clone)]
pub(crate) struct Shaped {
    inner: Arc<dyn Ufs>,
    store: Arc<Store>,
}

impl Shaped {
    /// Shares the store's limits with all others in this process that have the same store open
    /// in the same shape.
    pub(crate) fn new(inner: Arc<dyn Ufs>, shape: Shape) -> Self {
        let store = Store::shared(&inner.object_uri(""), shape);
        Self { inner, store }
    }

    /// Waits until so many bytes are through to the store.
    async fn send(&self, bytes: u64) {
        let mut own = self.store.shape().stream_bandwidth.map(Pacer::new);
        let piece = self.store.piece() as u64;
        let mut left = bytes;
        while left > 0 {
            let len = left.min(piece);
            until(self.store.transmit(Instant::now(), len, own.as_mut())).await;
            left -= len;
        }
    }

    /// One request: what `call` gives, at the earliest when the store would have answered.
    async fn request<T: Send>(
        &self,
        op: Op,
        path: &str,
        call: impl Future<Output = Result<T, UfsError>> + Send,
    ) -> Result<T, UfsError> {
        let request = self.store.request(Instant::now());
        if request.fate != Fate::Served {
            until(request.answer_at).await;
            return Err(refusal(request, op, self.inner.object_uri(path)));
        }
        let (result, ()) = tokio::join!(call, until(request.answer_at));
        result
    }
}

impl Layer for Shaped {
    fn inner(&self) -> &Arc<dyn Ufs> {
        &self.inner
    }

    async fn around<T: Send>(
        &self,
        ask: Ask<'_>,
        call: impl Future<Output = Result<T, UfsError>> + Send,
    ) -> Result<T, UfsError> {
        if let Work::Sends(bytes) = ask.work {
            self.send(bytes).await;
        }
        self.request(ask.op, ask.path, call).await
    }

    fn pages<T: Send + 'static>(
        &self,
        op: Op,
        dir: &str,
        pages: BoxStream<'static, Result<T, UfsError>>,
    ) -> BoxStream<'static, Result<T, UfsError>> {
        let uri = self.inner.object_uri(dir);
        let state = (pages, Arc::clone(&self.store), uri);
        futures::stream::try_unfold(state, move |(mut pages, store, uri)| async move {
            let asked = Instant::now();
            // The end of a listing is no request, and is only known once it is there.
            let Some(page) = pages.next().await else {
                return Ok(None);
            };
            let request = store.request(asked);
            until(request.answer_at).await;
            if request.fate != Fate::Served {
                return Err(refusal(request, op, uri));
            }
            Ok(Some((page?, (pages, store, uri))))
        })
        .boxed()
    }

    async fn read_through(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        let call = self.inner.read(path, version, range.clone());
        if range.is_empty() {
            return call.await;
        }
        let stream = self.request(Op::Read, path, call).await?;
        Ok(paced(stream, Arc::clone(&self.store)))
    }
}

/// The same bytes in pieces, each when its last byte would have come through.
fn paced(stream: ByteStream, store: Arc<Store>) -> ByteStream {
    struct Paced {
        stream: ByteStream,
        rest: Bytes,
        pacer: Option<Pacer>,
        store: Arc<Store>,
    }
    let paced = Paced {
        stream,
        rest: Bytes::new(),
        pacer: store.shape().stream_bandwidth.map(Pacer::new),
        store,
    };
    futures::stream::unfold(paced, |mut paced| async move {
        while paced.rest.is_empty() {
            match paced.stream.next().await? {
                Ok(bytes) => paced.rest = bytes,
                Err(error) => return Some((Err(error), paced)),
            }
        }
        let len = paced.rest.len().min(paced.store.piece());
        let piece = paced.rest.split_to(len);
        let due = paced
            .store
            .transmit(Instant::now(), len as u64, paced.pacer.as_mut());
        until(due).await;
        Some((Ok(piece), paced))
    })
    .boxed()
}

/// Sleeps until `time`, not at all if it has come: a timer would round up to its next tick.
async fn until(time: Instant) {
    if time > Instant::now() {
        tokio::time::sleep_until(time).await;
    }
}

fn refusal(request: Request, op: Op, uri: String) -> UfsError {
    if request.fate == Fate::TooMany {
        return UfsError::new(
            ErrorKind::Busy,
            op,
            uri,
            "the shape of the store allows no more requests now",
        )
        .with_hint("ask for less at a time, or raise the option shape.request_rate");
    }
    UfsError::new(
        ErrorKind::Unavailable,
        op,
        uri,
        format!(
            "the shape of the store made its request number {} fail",
            request.number
        ),
    )
    .with_hint("such failures are injected by the option shape.error_rate")
}

#[cfg(test)]
mod tests;
