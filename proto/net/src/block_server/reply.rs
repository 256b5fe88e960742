//! How a service answers a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millpond_proto::checksum::piece_count;
use millpond_proto::wire::frame::{MAX_TRAILER_LEN, Op, ResponseHead, Tier};
use millpond_proto::wire::status;
use millpond_proto::{Epoch, ErrorKind};
use parking_lot::Mutex;
use quinn::{SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::NetError;
use crate::metrics::{Outcome, RejectReason, ServerMetrics};

/// Data is handed to the network in pieces of this size, so that a slow reader is told from
/// one that makes progress.
pub(super) const WRITE_PIECE: usize = 256 << 10;

/// The unit in which bytes in flight are counted.
const PERMIT_BYTES: u64 = 1024;

/// Semaphore permits that stand for `bytes`.
pub(super) fn permits(bytes: u64) -> usize {
    (bytes.div_ceil(PERMIT_BYTES) as usize).clamp(1, u32::MAX as usize)
}

/// An answer that has not begun. Exactly one of [`head`](Self::head), [`send`](Self::send),
/// [`fail`](Self::fail) ends it; dropping it resets the stream.
#[derive(Debug)]
pub struct Reply {
    stream: ReplyStream,
    context: ReplyContext,
}

/// What a reply needs to know of its request and server.
#[derive(Debug)]
pub(super) struct ReplyContext {
    /// None when the request could not be read.
    pub(super) op: Option<Op>,
    pub(super) offset: u32,
    pub(super) epoch: Epoch,
    pub(super) deadline: Instant,
    pub(super) slow_reader_timeout: Duration,
    pub(super) longest_wait: Duration,
    pub(super) bytes: Arc<Semaphore>,
    /// All permits of `bytes`.
    pub(super) all_bytes: usize,
    pub(super) metrics: Arc<ServerMetrics>,
}

impl Reply {
    pub(super) fn new(send: SendStream, context: ReplyContext) -> Self {
        let state = Arc::new(StreamState::new(Arc::clone(&context.metrics), context.op));
        Self {
            stream: ReplyStream { send, state },
            context,
        }
    }

    pub(super) fn state(&self) -> Arc<StreamState> {
        Arc::clone(&self.stream.state)
    }

    /// When the caller gives up.
    pub const fn deadline(&self) -> Instant {
        self.context.deadline
    }

    /// Waits until `len` bytes may be held in memory for this answer. Call it before reading
    /// them from disk; [`head`](Self::head) does it otherwise.
    ///
    /// # Errors
    /// When that takes too long; answer with `Busy` then.
    pub async fn reserve(&mut self, len: u32) -> Result<(), NetError> {
        if len == 0 || self.stream.state.held.lock().is_some() {
            return Ok(());
        }
        // An answer larger than the limit passes alone.
        let want = permits(u64::from(len)).min(self.context.all_bytes);
        let bytes = Arc::clone(&self.context.bytes);
        let acquired = bytes.acquire_many_owned(u32::try_from(want).unwrap_or(u32::MAX));
        let until = Instant::now() + self.context.longest_wait;
        match timeout_at(until.min(self.context.deadline), acquired).await {
            Ok(Ok(permit)) => {
                self.stream.state.hold(permit, len);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => {
                self.context.metrics.reject(RejectReason::Busy);
                Err(NetError::Undelivered("too many bytes in flight".into()))
            }
        }
    }

    /// Begins a successful answer of `data_len` bytes that came from `tier`.
    ///
    /// # Errors
    /// When the caller is gone, or too many bytes are in flight for too long (the caller is
    /// then answered `Busy`).
    pub async fn head(mut self, tier: Tier, data_len: u32) -> Result<ReplyBody, NetError> {
        if let Err(error) = self.reserve(data_len).await {
            self.fail(ErrorKind::Busy, "too many bytes in flight")
                .await?;
            return Err(error);
        }
        let pieces = piece_count(self.context.offset, data_len);
        let head = ResponseHead {
            outcome: Ok(()),
            tier,
            epoch: self.context.epoch,
            data_len,
            trailer_len: pieces * 4,
        };
        let mut stream = self.stream;
        let wait = self.context.slow_reader_timeout;
        stream
            .write(Bytes::copy_from_slice(&head.encode()), wait)
            .await?;
        Ok(ReplyBody {
            stream,
            remaining: data_len,
            pieces,
            slow_reader_timeout: wait,
            metrics: self.context.metrics,
        })
    }

    /// A whole successful answer: head, data, one checksum per page piece of the range.
    ///
    /// # Errors
    /// Like [`head`](Self::head).
    pub async fn send(self, tier: Tier, data: Bytes, checksums: &[u32]) -> Result<(), NetError> {
        let mut body = self.head(tier, data.len() as u32).await?;
        body.data(data).await?;
        body.finish(checksums).await
    }

    /// A failed answer. `message` is for people.
    ///
    /// # Errors
    /// When the caller is gone.
    pub async fn fail(
        mut self,
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Result<(), NetError> {
        let mut message = message.into();
        if message.len() > MAX_TRAILER_LEN as usize {
            let cut = (0..=1024).rev().find(|&at| message.is_char_boundary(at));
            message.truncate(cut.unwrap_or(0));
        }
        let head = ResponseHead {
            outcome: Err(kind),
            tier: Tier::None,
            epoch: self.context.epoch,
            data_len: 0,
            trailer_len: message.len() as u32,
        };
        let mut frame = head.encode().to_vec();
        frame.extend_from_slice(message.as_bytes());
        let wait = self.context.slow_reader_timeout;
        self.stream.write(frame.into(), wait).await?;
        self.stream.finish(kind.into())
    }
}

/// The data of an answer whose head is sent. Dropping it before [`finish`](Self::finish)
/// resets the stream, so a caller never takes a part for the whole.
#[derive(Debug)]
pub struct ReplyBody {
    stream: ReplyStream,
    remaining: u32,
    pieces: u32,
    slow_reader_timeout: Duration,
    metrics: Arc<ServerMetrics>,
}

impl ReplyBody {
    /// Sends the next bytes. They are shared with the network layer, not copied.
    ///
    /// # Errors
    /// When the caller is gone or accepts nothing for too long.
    ///
    /// # Panics
    /// In debug builds, when more bytes are sent than the head announced.
    pub async fn data(&mut self, mut data: Bytes) -> Result<(), NetError> {
        debug_assert!(
            data.len() <= self.remaining as usize,
            "more data than announced"
        );
        data.truncate(self.remaining as usize);
        self.remaining -= data.len() as u32;
        self.metrics.sent_bytes.inc_by(data.len() as u64);
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(WRITE_PIECE));
            self.stream.write(piece, self.slow_reader_timeout).await?;
        }
        Ok(())
    }

    /// Bytes that are still to be sent.
    pub const fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Ends the answer with one checksum per page piece of the range.
    ///
    /// # Errors
    /// When the caller is gone; when data or checksums are missing, after which the caller
    /// sees a reset.
    pub async fn finish(mut self, checksums: &[u32]) -> Result<(), NetError> {
        if self.remaining != 0 || checksums.len() != self.pieces as usize {
            self.stream.state.abort_with(ErrorKind::Internal);
            return Err(NetError::Undelivered(format!(
                "the service ended an answer early: {} bytes missing, {} checksums for {} pieces",
                self.remaining,
                checksums.len(),
                self.pieces
            )));
        }
        let trailer: Vec<u8> = checksums.iter().flat_map(|c| c.to_le_bytes()).collect();
        if !trailer.is_empty() {
            self.stream
                .write(trailer.into(), self.slow_reader_timeout)
                .await?;
        }
        self.stream.finish(Outcome::Ok)
    }

    /// Gives up: the caller sees the stream reset with `kind`.
    pub fn abort(self, kind: ErrorKind) {
        self.stream.state.abort_with(kind);
    }
}

/// A send stream that is reset unless it is finished.
#[derive(Debug)]
struct ReplyStream {
    send: SendStream,
    state: Arc<StreamState>,
}

impl ReplyStream {
    async fn write(&mut self, bytes: Bytes, wait: Duration) -> Result<(), NetError> {
        match timeout(wait, self.send.write_chunk(bytes)).await {
            Ok(written) => written.map_err(|e| NetError::Undelivered(e.to_string())),
            Err(_) => {
                self.state.abort_with(ErrorKind::Timeout);
                Err(NetError::Undelivered(format!(
                    "the caller accepted nothing for {}s",
                    wait.as_secs()
                )))
            }
        }
    }

    fn finish(&mut self, outcome: Outcome) -> Result<(), NetError> {
        self.send
            .finish()
            .map_err(|e| NetError::Undelivered(e.to_string()))?;
        self.state.finish(outcome);
        Ok(())
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        if !self.state.finished() {
            let kind = self.state.abort_kind();
            let code = VarInt::from_u32(u32::from(status::to_code(kind)));
            // Fails only when the stream is closed already, which is what we want.
            let _ = self.send.reset(code);
            self.state.count(kind.into());
        }
    }
}

/// What the server's stream task and the reply share.
#[derive(Debug)]
pub(super) struct StreamState {
    abort: AtomicU8,
    finished: AtomicBool,
    held: Mutex<Option<Held>>,
    op: Option<Op>,
    metrics: Arc<ServerMetrics>,
}

#[derive(Debug)]
struct Held {
    _permit: OwnedSemaphorePermit,
    bytes: u32,
}

impl StreamState {
    fn new(metrics: Arc<ServerMetrics>, op: Option<Op>) -> Self {
        Self {
            abort: AtomicU8::new(status::to_code(ErrorKind::Internal)),
            finished: AtomicBool::new(false),
            held: Mutex::new(None),
            op,
            metrics,
        }
    }

    /// The kind that the caller sees if the reply is dropped from now on.
    pub(super) fn abort_with(&self, kind: ErrorKind) {
        self.abort.store(status::to_code(kind), Ordering::Release);
    }

    fn abort_kind(&self) -> ErrorKind {
        status::from_code(u64::from(self.abort.load(Ordering::Acquire)))
    }

    fn finish(&self, outcome: Outcome) {
        self.finished.store(true, Ordering::Release);
        self.count(outcome);
    }

    /// Whether the whole answer was handed to the network.
    pub(super) fn finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    fn hold(&self, permit: OwnedSemaphorePermit, bytes: u32) {
        self.metrics.in_flight_bytes.inc_by(i64::from(bytes));
        *self.held.lock() = Some(Held {
            _permit: permit,
            bytes,
        });
    }

    /// Gives the share of bytes in flight back.
    pub(super) fn release(&self) {
        let held = self.held.lock().take();
        if let Some(held) = held {
            self.metrics.in_flight_bytes.dec_by(i64::from(held.bytes));
        }
    }

    fn count(&self, outcome: Outcome) {
        if let Some(op) = self.op {
            self.metrics.request_ended(op, outcome);
        }
    }
}

impl Drop for StreamState {
    fn drop(&mut self) {
        self.release();
    }
}
