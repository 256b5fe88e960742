//! The answer to a request: its head, then its data.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream};
use millpond_proto::checksum::{crc32c, piece_count, pieces};
use millpond_proto::wire::frame::{FrameError, Op, Request, ResponseHead};
use millpond_proto::{BlockId, NodeId};
use quinn::{Connection, RecvStream};
use tokio::time::Instant;

use super::liveness::Liveness;
use super::peer::PeerState;
use crate::NetError;
use crate::metrics::{ClientMetrics, Outcome, Transport};

/// A successful answer whose head has arrived. Dropping it tells the peer to stop sending.
#[derive(Debug)]
pub struct Response {
    /// Where the bytes were, how many follow, and the peer's epoch.
    pub head: ResponseHead,
    op: Op,
    block: BlockId,
    offset: u32,
    peer: PeerRef,
    metrics: Arc<ClientMetrics>,
    /// Data bytes not yet given out.
    remaining: u32,
    body: Body,
}

/// Where the data of an answer is.
#[derive(Debug)]
enum Body {
    /// On its way.
    Coming(Box<Inflow>),
    /// All here, and verified.
    Here(Data),
}

/// Data that comes over a connection.
#[derive(Debug)]
struct Inflow {
    recv: RecvStream,
    liveness: Liveness,
    connection: Connection,
    deadline: Instant,
    stall_timeout: Duration,
    trailer: Vec<u8>,
}

/// Verified bytes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The range, contiguous, in a buffer of exactly its length.
    pub bytes: Bytes,
    /// One CRC32C per page piece of the range, see
    /// [`pieces`](millpond_proto::checksum::pieces). All of them match.
    pub checksums: Vec<u32>,
}

/// A peer, printed as its name.
struct PeerRef(Arc<PeerState>);

impl std::fmt::Debug for PeerRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.node().fmt(f)
    }
}

impl Response {
    #[allow(
        clippy::too_many_arguments,
        reason = "built in one place from what a request has at hand"
    )]
    pub(super) fn new(
        head: ResponseHead,
        request: &Request,
        peer: Arc<PeerState>,
        recv: RecvStream,
        liveness: Liveness,
        connection: Connection,
        deadline: Instant,
        stall_timeout: Duration,
        metrics: Arc<ClientMetrics>,
    ) -> Self {
        let stream = Inflow {
            recv,
            liveness,
            connection,
            deadline,
            stall_timeout,
            trailer: Vec::new(),
        };
        Self {
            head,
            op: request.op,
            block: request.block,
            offset: request.offset,
            peer: PeerRef(peer),
            metrics,
            remaining: head.data_len,
            body: Body::Coming(Box::new(stream)),
        }
    }

    /// An answer whose data was read on this host.
    pub(super) fn here(
        head: ResponseHead,
        request: &Request,
        peer: Arc<PeerState>,
        data: Data,
    ) -> Self {
        Self {
            head,
            op: request.op,
            block: request.block,
            offset: request.offset,
            metrics: peer.metrics(),
            peer: PeerRef(peer),
            remaining: head.data_len,
            body: Body::Here(data),
        }
    }

    /// Who answered.
    pub fn node(&self) -> NodeId {
        self.peer.0.node()
    }

    /// Receives all data into one buffer and verifies every page piece.
    ///
    /// # Errors
    /// - `Corrupt` when a piece does not match its checksum.
    /// - `Unavailable` or `Timeout` when the peer stops sending.
    /// - The kind with which the peer gave up.
    pub async fn read_data(mut self) -> Result<Data, NetError> {
        let metrics = Arc::clone(&self.metrics);
        let op = self.op;
        let result = self.receive().await;
        let outcome = result
            .as_ref()
            .map_or_else(|e| e.kind().into(), |_| Outcome::Ok);
        metrics.request_ended(op, outcome);
        result
    }

    /// The next data as it comes, **not verified**; none once all
    /// `head.data_len` bytes were given. [`finish`](Self::finish) gives their checksums.
    ///
    /// # Errors
    /// Like [`read_data`](Self::read_data), without `Corrupt`.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, NetError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let stream = match &mut self.body {
            Body::Coming(stream) => stream,
            Body::Here(data) => {
                self.remaining = 0;
                return Ok(Some(data.bytes.clone()));
            }
        };
        let Some(mut chunk) = stream.read_chunk(&self.peer).await? else {
            return Err(self.peer.0.malformed(FrameError::Short));
        };
        let data = chunk.split_to(chunk.len().min(self.remaining as usize));
        stream.trailer.extend_from_slice(&chunk);
        self.remaining -= data.len() as u32;
        self.metrics.received(Transport::Quic, data.len() as u64);
        Ok(Some(data))
    }

    /// After the last chunk: the checksums that the peer sent, one per page piece.
    ///
    /// # Errors
    /// Like [`next_chunk`](Self::next_chunk); `Unavailable` when data was left unread or
    /// the trailer has the wrong length.
    pub async fn finish(mut self) -> Result<Vec<u32>, NetError> {
        let metrics = Arc::clone(&self.metrics);
        let op = self.op;
        let result = self.receive_trailer().await;
        let outcome = result
            .as_ref()
            .map_or_else(|e| e.kind().into(), |_| Outcome::Ok);
        metrics.request_ended(op, outcome);
        result
    }

    /// The data chunk by chunk, **not verified**; ends with the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, NetError>> + Send {
        stream::unfold(Some(self), |response| async {
            let mut response = response?;
            match response.next_chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(response))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn receive(&mut self) -> Result<Data, NetError> {
        if let Body::Here(data) = &mut self.body {
            return Ok(Data {
                bytes: data.bytes.clone(),
                checksums: std::mem::take(&mut data.checksums),
            });
        }
        let len = self.head.data_len;
        let mut buffer = BytesMut::with_capacity(len as usize);
        let mut computed = Vec::with_capacity(piece_count(self.offset, len) as usize);
        let mut todo = pieces(self.offset, len).peekable();
        while let Some(chunk) = self.next_chunk().await? {
            buffer.extend_from_slice(&chunk);
            // Each piece is summed as soon as it is whole, while it is in the CPU's cache.
            while let Some(piece) = todo.next_if(|p| (p.start + p.len) as usize <= buffer.len()) {
                let start = piece.start as usize;
                computed.push(crc32c(&buffer[start..start + piece.len as usize]));
            }
        }
        let checksums = self.receive_trailer().await?;
        let wrong = computed.iter().zip(&checksums).position(|(a, b)| a != b);
        if let Some(wrong) = wrong {
            self.metrics.corrupt_pages.inc();
            let piece = pieces(self.offset, len).nth(wrong);
            return Err(NetError::Corrupt {
                node: self.node(),
                block: self.block,
                page: piece.map_or(0, |p| p.page),
            });
        }
        Ok(Data {
            bytes: buffer.freeze(),
            checksums,
        })
    }

    async fn receive_trailer(&mut self) -> Result<Vec<u32>, NetError> {
        let expected = piece_count(self.offset, self.head.data_len) as usize * 4;
        let wrong = FrameError::Field("trailer length");
        if self.remaining != 0 || self.head.trailer_len as usize != expected {
            return Err(self.peer.0.malformed(wrong));
        }
        let stream = match &mut self.body {
            Body::Coming(stream) => stream,
            Body::Here(data) => return Ok(std::mem::take(&mut data.checksums)),
        };
        while let Some(chunk) = stream.read_chunk(&self.peer).await? {
            stream.trailer.extend_from_slice(&chunk);
            if stream.trailer.len() > expected {
                return Err(self.peer.0.malformed(wrong));
            }
        }
        if stream.trailer.len() != expected {
            return Err(self.peer.0.malformed(FrameError::Short));
        }
        let mut checksums = Vec::with_capacity(expected / 4);
        let (words, _) = stream.trailer.as_chunks::<4>();
        checksums.extend(words.iter().map(|word| u32::from_le_bytes(*word)));
        Ok(checksums)
    }
}

impl Inflow {
    async fn read_chunk(&mut self, peer: &PeerRef) -> Result<Option<Bytes>, NetError> {
        let stalled = Instant::now() + self.stall_timeout;
        let until = self.deadline.min(stalled);
        let read = self.recv.read_chunk(usize::MAX, true);
        match self.liveness.watch(read, until).await {
            Ok(Ok(chunk)) => Ok(chunk.map(|c| c.bytes)),
            Ok(Err(error)) => Err(peer.0.read_failed(error)),
            Err(waited) => Err(peer.0.waited(waited, &self.connection, "receiving data of")),
        }
    }
}
