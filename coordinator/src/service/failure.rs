//! An answer that is an error.

use std::fmt;

use millpond_net::NetError;
use millpond_proto::ErrorKind;
use millpond_proto::mount::MountError;
use millpond_proto::wire::BadMessage;
use millpond_proto::wire::status::grpc_status;
use tonic::Status;

use super::ProposalError;
use crate::engine::Refused;
use crate::group::PeerError;
use crate::raft::{GroupError, ProposeError};

/// A kind and a message for the caller.
#[derive(Debug)]
pub(super) struct Failure {
    kind: ErrorKind,
    message: String,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    pub(super) const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        grpc_status(failure.kind, failure.message)
    }
}

macro_rules! from_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.kind(), error.to_string())
            }
        }
    )*};
}

from_errors!(
    ProposalError,
    Refused,
    MountError,
    BadMessage,
    NetError,
    GroupError,
    PeerError,
    ProposeError
);
