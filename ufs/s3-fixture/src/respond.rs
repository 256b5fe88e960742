//! Between the words of S3 and those of the backend: ranges, conditions, errors, bodies.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use s3s::dto::{self, ETag, ETagCondition, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::backend::{BackendError, Object, Precondition};
use crate::counters::Recorder;

/// The largest piece handed to the connection at once.
const CHUNK: usize = 256 * 1024;
/// With a bandwidth limit, a body moves so many times a second.
const TICKS_PER_SECOND: u64 = 50;
/// How long the bytes before a cut have to leave.
const FLUSH: Duration = Duration::from_millis(20);

pub(crate) fn backend_error(error: BackendError) -> S3Error {
    S3Error::new(match error {
        BackendError::NoSuchBucket => S3ErrorCode::NoSuchBucket,
        BackendError::NoSuchKey => S3ErrorCode::NoSuchKey,
        BackendError::NoSuchVersion => S3ErrorCode::NoSuchVersion,
        BackendError::NoSuchUpload => S3ErrorCode::NoSuchUpload,
        BackendError::InvalidPart => S3ErrorCode::InvalidPart,
        BackendError::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
        BackendError::EntityTooSmall => S3ErrorCode::EntityTooSmall,
        BackendError::PreconditionFailed => S3ErrorCode::PreconditionFailed,
        BackendError::InvalidToken => S3ErrorCode::InvalidArgument,
    })
}

/// The reply of an injected failure, with a code that fits the status.
pub(crate) fn injected_error(status: u16) -> S3Error {
    let code = match status {
        400 => S3ErrorCode::InvalidRequest,
        401 | 403 => S3ErrorCode::AccessDenied,
        404 => S3ErrorCode::NoSuchKey,
        409 => S3ErrorCode::OperationAborted,
        412 => S3ErrorCode::PreconditionFailed,
        429 | 503 => S3ErrorCode::SlowDown,
        _ => S3ErrorCode::InternalError,
    };
    let mut error = S3Error::with_message(code, "injected by the test");
    error.set_status_code(status.try_into().expect("a test injects an HTTP status"));
    error
}

/// The condition of a write.
///
/// # Errors
/// `NotImplemented` for `If-None-Match` with an ETag, as S3 itself answers.
pub(crate) fn write_condition(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Precondition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Precondition::Always),
        (Some(ETagCondition::Any), None) => Ok(Precondition::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Precondition::ETag(etag.into_value())),
        (None, Some(ETagCondition::Any)) => Ok(Precondition::Absent),
        _ => Err(S3Error::new(S3ErrorCode::NotImplemented)),
    }
}

/// Checks the conditions of a read (RFC 9110, section 13).
///
/// # Errors
/// `PreconditionFailed` (412), `NotModified` (304).
pub(crate) fn check_read(
    object: &Object,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    let same = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == object.etag,
    };
    if if_match.is_some_and(|condition| !same(condition)) {
        return Err(S3Error::new(S3ErrorCode::PreconditionFailed));
    }
    if if_none_match.is_some_and(same) {
        return Err(S3Error::new(S3ErrorCode::NotModified));
    }
    Ok(())
}

/// What a Range header means for an object of `size` bytes.
///
/// # Errors
/// `InvalidRange` (416).
pub(crate) fn resolve_range(range: Option<&dto::Range>, size: u64) -> S3Result<Range<u64>> {
    match range {
        None => Ok(0..size),
        // The library takes an empty suffix range for an empty body; S3 refuses it.
        Some(dto::Range::Suffix { length: 0 }) => Err(S3Error::new(S3ErrorCode::InvalidRange)),
        Some(range) => range
            .check(size)
            .map_err(|_| S3Error::new(S3ErrorCode::InvalidRange)),
    }
}

pub(crate) fn strong(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

/// `size` as S3 writes it; no object here is longer.
pub(crate) fn length(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// How a body is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// Break the connection after so many bytes.
    pub(crate) cut_after: Option<u64>,
    /// Bytes per second.
    pub(crate) bandwidth: Option<u64>,
}

/// The bytes of a range of an object, counted as they go.
pub(crate) fn body(
    object: Arc<Object>,
    range: Range<u64>,
    pace: Pace,
    recorder: Arc<Recorder>,
) -> StreamingBlob {
    StreamingBlob::wrap(stream(object, range, pace, recorder))
}

fn stream(
    object: Arc<Object>,
    range: Range<u64>,
    pace: Pace,
    recorder: Arc<Recorder>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    let end = pace
        .cut_after
        .map_or(range.end, |cut| range.end.min(range.start + cut));
    let largest = match pace.bandwidth {
        Some(rate) => usize::try_from(rate / TICKS_PER_SECOND)
            .unwrap_or(CHUNK)
            .clamp(1, CHUNK),
        None => CHUNK,
    };
    futures::stream::unfold(range.start, move |at| {
        let object = Arc::clone(&object);
        let recorder = Arc::clone(&recorder);
        async move {
            if at > end {
                return None;
            }
            if at == end {
                pace.cut_after.filter(|_| at < range.end)?;
                // The server drops what it has not written yet when a body fails.
                tokio::time::sleep(FLUSH).await;
                return Some((Err(io::Error::other("cut by the test")), end + 1));
            }
            let max = usize::try_from(end - at).unwrap_or(largest).min(largest);
            let chunk = object.content.chunk(at, max);
            if let Some(rate) = pace.bandwidth {
                let seconds = chunk.len() as f64 / rate as f64;
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            }
            recorder.sent(chunk.len() as u64);
            let next = at + chunk.len() as u64;
            Some((Ok(chunk), next))
        }
    })
}

/// The CRC32C of `bytes` as headers have it.
pub(crate) fn crc32c(bytes: &[u8]) -> String {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    BASE64_STANDARD.encode((sum as u32).to_be_bytes())
}

/// That the bytes have the checksum that came with them.
///
/// # Errors
/// `BadDigest` (400).
pub(crate) fn check_sum(bytes: &[u8], sum: Option<&str>) -> S3Result<()> {
    match sum {
        Some(sum) if sum != crc32c(bytes) => Err(S3Error::new(S3ErrorCode::BadDigest)),
        _ => Ok(()),
    }
}

/// A whole request body.
///
/// # Errors
/// `IncompleteBody` when the client went away or the signature of a chunk is wrong.
pub(crate) async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| S3Error::with_source(S3ErrorCode::IncompleteBody, e))?;
            bytes.extend_from_slice(&chunk);
        }
    }
    Ok(bytes.freeze())
}
