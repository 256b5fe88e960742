//! [`ErrorKind`] to and from gRPC status, QUIC stream code and HTTP status: the one place.

use tonic::{Code, Status};

use crate::error::ErrorKind;

/// The gRPC code of `kind`.
pub const fn to_grpc(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Stale => Code::FailedPrecondition,
        ErrorKind::Busy => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The kind that a gRPC code means to us.
pub const fn from_grpc(code: Code) -> ErrorKind {
    match code {
        Code::NotFound => ErrorKind::NotFound,
        Code::InvalidArgument | Code::AlreadyExists | Code::OutOfRange => ErrorKind::Invalid,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::FailedPrecondition | Code::Aborted => ErrorKind::Stale,
        Code::ResourceExhausted => ErrorKind::Busy,
        Code::Unavailable | Code::Cancelled => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::Ok | Code::Unknown | Code::Internal => ErrorKind::Internal,
    }
}

/// A gRPC status of `kind` that says `message`.
pub fn grpc_status(kind: ErrorKind, message: impl Into<String>) -> Status {
    Status::new(to_grpc(kind), message)
}

/// The byte (and QUIC stream code) of `kind`; 0 means success.
pub const fn to_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::NotFound => 1,
        ErrorKind::Invalid => 2,
        ErrorKind::Unsupported => 3,
        ErrorKind::Denied => 4,
        ErrorKind::Stale => 5,
        ErrorKind::Busy => 6,
        ErrorKind::Unavailable => 7,
        ErrorKind::Timeout => 8,
        ErrorKind::Corrupt => 9,
        ErrorKind::Internal => 10,
    }
}

/// The kind of a byte or QUIC stream code from a peer; an unknown one is `Internal`.
pub const fn from_code(code: u64) -> ErrorKind {
    match code {
        1 => ErrorKind::NotFound,
        2 => ErrorKind::Invalid,
        3 => ErrorKind::Unsupported,
        4 => ErrorKind::Denied,
        5 => ErrorKind::Stale,
        6 => ErrorKind::Busy,
        7 => ErrorKind::Unavailable,
        8 => ErrorKind::Timeout,
        9 => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

/// The HTTP status of `kind`, for admin endpoints.
pub const fn to_http(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::NotFound => 404,
        ErrorKind::Invalid => 400,
        ErrorKind::Unsupported => 501,
        ErrorKind::Denied => 403,
        ErrorKind::Stale => 412,
        ErrorKind::Busy => 429,
        ErrorKind::Unavailable => 503,
        ErrorKind::Timeout => 504,
        ErrorKind::Corrupt | ErrorKind::Internal => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_both_round_trips() {
        for kind in ErrorKind::ALL {
            assert_eq!(from_grpc(to_grpc(kind)), kind);
            assert_eq!(from_code(u64::from(to_code(kind))), kind);
            assert!((400..600).contains(&to_http(kind)));
        }
    }
}
