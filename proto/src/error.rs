//! What a failure means to the caller.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The few kinds of failure, named after what the caller should do. Every public error of
/// every package answers `kind()`; nothing is ever decided by message text.
///
/// The mapping to gRPC, QUIC and HTTP codes is in `wire/status.rs`, the mapping to errno in
/// the FUSE adapter's `errno.rs`, and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The thing does not exist: give up.
    NotFound,
    /// The call or configuration is wrong: fix it.
    Invalid,
    /// This will never work here: do not try again.
    Unsupported,
    /// The caller lacks a right or the mount is read-only: get rights.
    Denied,
    /// The epoch or version moved: refresh and retry once; if the object changed, reopen.
    Stale,
    /// A queue or quota is full: back off, take the next replica, or the UFS.
    Busy,
    /// The other side cannot be reached: take the next replica, then the UFS.
    Unavailable,
    /// The deadline passed: like `Unavailable`, if the budget allows.
    Timeout,
    /// A checksum did not match: drop the copy and refill.
    Corrupt,
    /// A broken invariant: report a bug.
    Internal,
}

impl ErrorKind {
    /// All kinds, for exhaustive table tests.
    pub const ALL: [Self; 10] = [
        Self::NotFound,
        Self::Invalid,
        Self::Unsupported,
        Self::Denied,
        Self::Stale,
        Self::Busy,
        Self::Unavailable,
        Self::Timeout,
        Self::Corrupt,
        Self::Internal,
    ];

    /// Whether the same call to the same side may succeed a moment later.
    pub const fn is_transient(self) -> bool {
        match self {
            Self::Busy | Self::Unavailable | Self::Timeout => true,
            Self::NotFound
            | Self::Invalid
            | Self::Unsupported
            | Self::Denied
            | Self::Stale
            | Self::Corrupt
            | Self::Internal => false,
        }
    }

    /// Whether another source (replica or UFS) may succeed where this one failed.
    pub const fn try_next_source(self) -> bool {
        match self {
            Self::Busy | Self::Unavailable | Self::Timeout | Self::Corrupt | Self::Internal => true,
            Self::NotFound | Self::Invalid | Self::Unsupported | Self::Denied | Self::Stale => {
                false
            }
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Denied => "denied",
            Self::Stale => "stale",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
        })
    }
}
