//! One connection and the streams on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_proto::checksum::page_checksums;
use millpond_proto::wire::frame::{FrameError, Op, REQUEST_HEADER_LEN, Request, Tier};
use millpond_proto::wire::query;
use millpond_proto::{BlockSize, ErrorKind};
use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::reply::{Reply, ReplyContext, StreamState, permits as permits_of};
use super::{BlockService, Shared};
use crate::metrics::RejectReason;
use crate::tls::{self, PeerRole};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts a connection and serves its streams until it closes or the server stops.
pub(super) async fn run<S: BlockService>(incoming: Incoming, shared: &Arc<Shared<S>>) {
    let connection = match accept(incoming).await {
        Ok(connection) => connection,
        Err(why) => {
            shared.metrics.reject(RejectReason::Denied);
            debug!(why, "handshake failed");
            return;
        }
    };
    let caller = match tls::peer_role(&connection) {
        Ok(role) => role,
        Err(error) => {
            shared.metrics.reject(RejectReason::Denied);
            debug!(%error, "connection refused");
            connection.close(VarInt::from_u32(1), b"no role");
            return;
        }
    };
    shared.metrics.connections.inc();
    let own = Arc::new(Semaphore::new(shared.limits.requests_per_connection));
    loop {
        let stream = tokio::select! {
            () = shared.stop.cancelled() => break,
            stream = connection.accept_bi() => stream,
        };
        match stream {
            Ok((send, recv)) => {
                let stream = Stream {
                    shared: Arc::clone(shared),
                    caller,
                    place: Arc::clone(&own).try_acquire_owned().ok(),
                };
                shared.tasks.spawn(stream.run(send, recv));
            }
            Err(error) => {
                debug!(%error, %caller, "connection closed");
                break;
            }
        }
    }
    shared.metrics.connections.dec();
}

async fn accept(incoming: Incoming) -> Result<Connection, String> {
    let connecting = incoming.accept().map_err(|e| e.to_string())?;
    match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|e| e.to_string()),
        Err(_) => Err("it took too long".into()),
    }
}

/// One request.
struct Stream<S> {
    shared: Arc<Shared<S>>,
    caller: PeerRole,
    /// Among the requests of the connection; none if they are too many.
    place: Option<OwnedSemaphorePermit>,
}

impl<S: BlockService> Stream<S> {
    async fn run(self, send: SendStream, mut recv: RecvStream) {
        let limits = &self.shared.limits;
        let metrics = &self.shared.metrics;
        let mut context = ReplyContext {
            op: None,
            offset: 0,
            epoch: self.shared.service.epoch(),
            deadline: Instant::now() + limits.request_timeout,
            slow_reader_timeout: limits.slow_reader_timeout,
            longest_wait: limits.longest_wait,
            bytes: Arc::clone(&self.shared.bytes),
            all_bytes: permits_of(limits.in_flight_bytes),
            metrics: Arc::clone(metrics),
        };
        let refuse = async |context, send, reason, kind, message: &str| {
            metrics.reject(reason);
            // The caller may be gone: nothing more to do for it.
            let _ = Reply::new(send, context).fail(kind, message).await;
        };

        if self.place.is_none() {
            let message = "too many requests in flight";
            return refuse(context, send, RejectReason::Busy, ErrorKind::Busy, message).await;
        }
        let request = match timeout(limits.request_timeout, read_request(&mut recv)).await {
            Ok(Ok(request)) => request,
            Ok(Err(RequestError::Frame(error))) => {
                let reason = RejectReason::Malformed;
                return refuse(context, send, reason, error.kind(), &error.to_string()).await;
            }
            Ok(Err(RequestError::Gone)) => return,
            Err(_) => {
                let message = "the request did not arrive in time";
                let reason = RejectReason::Malformed;
                return refuse(context, send, reason, ErrorKind::Timeout, message).await;
            }
        };

        // Only now: streams on which no request comes take places of their own connection alone.
        let Ok(_place) = Arc::clone(&self.shared.requests).try_acquire_owned() else {
            let message = "too many requests in flight";
            return refuse(context, send, RejectReason::Busy, ErrorKind::Busy, message).await;
        };
        if request.op == Op::Local {
            context.op = Some(request.op);
            return self
                .tell_of_socket(&request, Reply::new(send, context))
                .await;
        }
        let wait = match request.deadline_ms {
            0 => limits.longest_deadline,
            ms => Duration::from_millis(u64::from(ms)).min(limits.longest_deadline),
        };
        let deadline = Instant::now() + wait;
        context.deadline = deadline;
        context.op = Some(request.op);
        context.offset = request.offset;
        let slow_reader_timeout = limits.slow_reader_timeout;

        metrics.in_flight.inc();
        let mut stopped = std::pin::pin!(send.stopped());
        let reply = Reply::new(send, context);
        let state = reply.state();
        let mut serving = std::pin::pin!(timeout_at(
            deadline,
            self.shared.service.serve(self.caller, request, reply)
        ));
        let mut delivered = false;
        let served = tokio::select! {
            served = &mut serving => Some(served),
            end = &mut stopped => {
                delivered = true;
                match end {
                    // All data is acknowledged; the service may still have something to do.
                    Ok(None) => Some(serving.as_mut().await),
                    Ok(Some(_)) | Err(_) => None,
                }
            }
        };
        match served {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => debug!(%error, caller = %self.caller, "answer failed"),
            Some(Err(_)) => state.abort_with(ErrorKind::Timeout),
            None => state.abort_with(ErrorKind::Unavailable),
        }
        finish(&state, delivered, stopped, slow_reader_timeout).await;
        metrics.in_flight.dec();
        // A dropped reply has reset its stream by now; places are free again after this.
    }
}

impl<S: BlockService> Stream<S> {
    /// Answers [`Op::Local`].
    async fn tell_of_socket(&self, request: &Request, reply: Reply) {
        let offer = match &self.shared.door {
            Some(door) => door.offer(self.caller, request),
            None => Err((ErrorKind::Unsupported, "there is no local socket")),
        };
        // The caller may be gone: nothing more to do for it.
        let _ = match offer {
            Ok(offer) => match query::encode(&offer) {
                Ok(data) => {
                    let data = Bytes::from(data);
                    let checksums = page_checksums(&data);
                    reply.send(Tier::None, data, &checksums).await
                }
                Err(error) => reply.fail(ErrorKind::Internal, error.to_string()).await,
            },
            Err((kind, why)) => reply.fail(kind, why).await,
        };
    }
}

/// Holds the request's share of bytes until the peer has acknowledged all of them.
async fn finish(
    state: &StreamState,
    delivered: bool,
    stopped: impl Future,
    slow_reader_timeout: Duration,
) {
    if !delivered && state.finished() {
        let _ = timeout(slow_reader_timeout, stopped).await;
    }
    state.release();
}

enum RequestError {
    Frame(FrameError),
    Gone,
}

async fn read_request(recv: &mut RecvStream) -> Result<Request, RequestError> {
    let mut header = [0; REQUEST_HEADER_LEN];
    read_exact(recv, &mut header).await?;
    let (mut request, source_len) = Request::decode_header(&header).map_err(RequestError::Frame)?;
    let end = u64::from(request.offset) + u64::from(request.len);
    if end > BlockSize::MAX.bytes() {
        return Err(RequestError::Frame(FrameError::Field("range")));
    }
    // At most MAX_SOURCE_LEN: the header was checked.
    let mut source = vec![0; source_len];
    read_exact(recv, &mut source).await?;
    request.decode_body(&source).map_err(RequestError::Frame)?;
    Ok(request)
}

async fn read_exact(recv: &mut RecvStream, into: &mut [u8]) -> Result<(), RequestError> {
    recv.read_exact(into).await.map_err(|error| match error {
        quinn::ReadExactError::FinishedEarly(_) => RequestError::Frame(FrameError::Short),
        quinn::ReadExactError::ReadError(_) => RequestError::Gone,
    })
}
