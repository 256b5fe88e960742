//! One connection to a node's Unix socket.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use millpond_proto::Epoch;
use millpond_proto::checksum::{page_count, piece_count};
use millpond_proto::wire::frame::Tier;
use millpond_proto::wire::local::{ASK_LEN, Answer, Ask, Challenge, HELLO_LEN, Hello, Shared};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::super::reply::{WRITE_PIECE, permits};
use super::super::{BlockService, Shared as Server};
use super::{Door, LocalHit, broken};
use crate::NetError;
use crate::local::{End, send, unread};
use crate::metrics::{LocalAnswer, RejectReason, ServerMetrics};

/// How long both ends may take to prove who they are.
const GREETING: Duration = Duration::from_secs(2);

/// A connection on which nothing is asked for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// How long the service may take to find a block; a sick disk is no reason for the client to
/// wait.
const LOOKUP: Duration = Duration::from_secs(1);

/// Serves one connection until it ends, breaks a rule, or the server stops.
pub(super) async fn run<S: BlockService>(
    mut stream: UnixStream,
    door: &Door,
    server: &Arc<Server<S>>,
) -> Result<(), NetError> {
    match timeout(GREETING, greet(&mut stream, door)).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false) | Err(_)) | Err(_) => {
            server.metrics.reject(RejectReason::Denied);
            return Err(broken("no proof of the secret"));
        }
    }
    let mut bytes = [0; ASK_LEN];
    loop {
        let came = tokio::select! {
            () = server.stop.cancelled() => return Ok(()),
            came = timeout(IDLE, stream.read_exact(&mut bytes)) => came,
        };
        match came {
            Ok(Ok(_)) => {}
            // It went away, or has nothing to ask.
            Ok(Err(_)) | Err(_) => return Ok(()),
        }
        let ask = match Ask::decode(&bytes) {
            Ok(ask) if unread(&stream) == 0 => ask,
            Ok(_) => {
                server.metrics.reject(RejectReason::Malformed);
                return Err(broken("asks again before it has read the answer"));
            }
            Err(error) => {
                server.metrics.reject(RejectReason::Malformed);
                return Err(error.into());
            }
        };
        answer(&mut stream, &ask, server).await?;
    }
}

/// Whether the client proved that it knows its secret. The node proves it first.
async fn greet(stream: &mut UnixStream, door: &Door) -> io::Result<bool> {
    let mut bytes = [0; HELLO_LEN];
    stream.read_exact(&mut bytes).await?;
    let Ok(hello) = Hello::decode(&bytes) else {
        return Ok(false);
    };
    let secret = door.secret(&hello.client);
    let nonce = rand::random();
    let proof = secret.proof(End::Node, &hello.nonce, &nonce);
    let challenge = Challenge {
        proof: *proof.as_bytes(),
        nonce,
    };
    stream.write_all(&challenge.encode()).await?;
    let mut proof = [0; 32];
    stream.read_exact(&mut proof).await?;
    // Compared in constant time.
    Ok(secret.proof(End::Client, &hello.nonce, &nonce) == proof)
}

async fn answer<S: BlockService>(
    stream: &mut UnixStream,
    ask: &Ask,
    server: &Arc<Server<S>>,
) -> Result<(), NetError> {
    let metrics = &server.metrics;
    let Ok(_place) = Arc::clone(&server.requests).try_acquire_owned() else {
        metrics.reject(RejectReason::Busy);
        return elsewhere(stream, server).await;
    };
    // What is read from disk to see whether it is damaged is memory before it is an answer.
    let mut held = None;
    if ask.damaged {
        held = Held::of(ask.len, server);
        if held.is_none() {
            return elsewhere(stream, server).await;
        }
    }
    metrics.in_flight.inc();
    let found = timeout(LOOKUP, server.service.share(ask)).await;
    metrics.in_flight.dec();
    let epoch = server.service.epoch();
    match found {
        Ok(Some(LocalHit::File {
            file,
            start,
            len,
            checksums,
        })) if has(ask, len) && checksums.len() == page_count(len) as usize => {
            let what = Shared::File { start, len };
            let head = frame(Tier::Disk, epoch, what, &checksums);
            let sent = send(stream, &head, Some(file.as_fd()));
            within(server.limits.slow_reader_timeout, sent).await?;
            metrics.local_answered(LocalAnswer::Descriptor);
            Ok(())
        }
        Ok(Some(LocalHit::Bytes {
            data,
            checksums,
            tier,
        })) if fits(ask, data.len(), checksums.len()) => {
            let Some(_held) = held.or_else(|| Held::of(ask.len, server)) else {
                return elsewhere(stream, server).await;
            };
            let what = Shared::Bytes {
                len: ask.len,
                pieces: checksums.len() as u32,
            };
            let head = frame(tier, epoch, what, &checksums);
            write(stream, &head, &data, server.limits.slow_reader_timeout).await?;
            metrics.sent_bytes.inc_by(data.len() as u64);
            metrics.local_answered(LocalAnswer::Bytes);
            Ok(())
        }
        Ok(_) | Err(_) => elsewhere(stream, server).await,
    }
}

/// A share of the bytes in flight, until this is dropped.
struct Held {
    _permit: OwnedSemaphorePermit,
    bytes: u32,
    metrics: Arc<ServerMetrics>,
}

impl Held {
    /// A share of `bytes`, if it is free now: the client has another way to wait for it.
    fn of<S>(bytes: u32, server: &Server<S>) -> Option<Self> {
        let all = permits(server.limits.in_flight_bytes);
        let want = u32::try_from(permits(u64::from(bytes)).min(all)).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&server.bytes).try_acquire_many_owned(want) else {
            server.metrics.reject(RejectReason::Busy);
            return None;
        };
        let metrics = Arc::clone(&server.metrics);
        metrics.in_flight_bytes.inc_by(i64::from(bytes));
        Some(Self {
            _permit: permit,
            bytes,
            metrics,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.metrics.in_flight_bytes.dec_by(i64::from(self.bytes));
    }
}

/// Sends the client back to QUIC.
async fn elsewhere<S: BlockService>(
    stream: &UnixStream,
    server: &Server<S>,
) -> Result<(), NetError> {
    let head = frame(Tier::None, server.service.epoch(), Shared::Elsewhere, &[]);
    within(server.limits.slow_reader_timeout, send(stream, &head, None)).await?;
    server.metrics.local_answered(LocalAnswer::Elsewhere);
    Ok(())
}

fn has(ask: &Ask, len: u32) -> bool {
    u64::from(ask.offset) + u64::from(ask.len) <= u64::from(len)
}

fn fits(ask: &Ask, len: usize, pieces: usize) -> bool {
    len == ask.len as usize && pieces == piece_count(ask.offset, ask.len) as usize
}

fn frame(tier: Tier, epoch: Epoch, what: Shared, checksums: &[u32]) -> Vec<u8> {
    let mut out = Answer { tier, epoch, what }.encode().to_vec();
    out.reserve(checksums.len() * 4);
    out.extend(checksums.iter().flat_map(|sum| sum.to_le_bytes()));
    out
}

/// Sends head and data, giving up on a client that takes no piece of them within `wait`.
async fn write(
    stream: &mut UnixStream,
    head: &[u8],
    data: &[u8],
    wait: Duration,
) -> Result<(), NetError> {
    within(wait, stream.write_all(head)).await?;
    for piece in data.chunks(WRITE_PIECE) {
        within(wait, stream.write_all(piece)).await?;
    }
    Ok(())
}

async fn within(
    wait: Duration,
    sent: impl Future<Output = io::Result<()>>,
) -> Result<(), NetError> {
    match timeout(wait, sent).await {
        Ok(sent) => sent.map_err(|error| NetError::Undelivered(error.to_string())),
        Err(_) => Err(broken("the client reads nothing")),
    }
}
