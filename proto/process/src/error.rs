//! What can go wrong around a process, and how it ends because of it.

use std::io;

use millpond_proto::ErrorKind;

/// The user asked for something that makes no sense: exit code 2. The text says what is
/// wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl UsageError {
    /// A usage error that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Always [`ErrorKind::Invalid`].
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// A part of the process itself could not start.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The port of the admin endpoint cannot be listened on.
    #[error(
        "cannot listen on {addr} for metrics and health: {source}; choose another address with \
         --admin HOST:PORT, or --admin none"
    )]
    Listen {
        /// The address as configured.
        addr: String,
        /// Why.
        source: io::Error,
    },
    /// The runtime cannot be built.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
}

impl ProcessError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::Denied
            }
            Self::Listen { .. } | Self::Runtime(_) => ErrorKind::Unavailable,
        }
    }
}
