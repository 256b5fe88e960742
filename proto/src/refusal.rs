//! Why a change to the namespace is refused, as POSIX tells the cases apart.

use std::fmt;

use crate::error::ErrorKind;

/// Why a change to the namespace is refused. Finer than [`ErrorKind`], because programs act on
/// it: each has one errno, in the FUSE adapter's `errno.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is something of that name already (EEXIST).
    Exists,
    /// The directory is not empty (ENOTEMPTY).
    NotEmpty,
    /// A directory is needed, and this is none (ENOTDIR).
    NotADirectory,
    /// This is a directory, and something else is needed (EISDIR).
    IsADirectory,
    /// A name or path is longer than the store or the system takes (ENAMETOOLONG).
    NameTooLong,
    /// The mount or the store is read-only (EROFS).
    ReadOnly,
    /// From one mount to another: the caller has to copy (EXDEV).
    OtherMount,
    /// A disk is full: the staging directory's, or the store's (ENOSPC).
    NoSpace,
    /// A quota is used up (EDQUOT).
    Quota,
    /// Larger than the store takes (EFBIG).
    TooLarge,
    /// The store has no such thing: device nodes, hard links (EPERM).
    NotPermitted,
    /// In use: the root of a mount (EBUSY).
    InUse,
}

impl Refusal {
    /// All refusals, for exhaustive table tests.
    pub const ALL: [Self; 12] = [
        Self::Exists,
        Self::NotEmpty,
        Self::NotADirectory,
        Self::IsADirectory,
        Self::NameTooLong,
        Self::ReadOnly,
        Self::OtherMount,
        Self::NoSpace,
        Self::Quota,
        Self::TooLarge,
        Self::NotPermitted,
        Self::InUse,
    ];

    /// The kind of failure that this is to whoever does not tell the cases apart.
    pub const fn kind(self) -> ErrorKind {
        match self {
            Self::Exists
            | Self::NotEmpty
            | Self::NotADirectory
            | Self::IsADirectory
            | Self::NameTooLong
            | Self::OtherMount
            | Self::TooLarge => ErrorKind::Invalid,
            Self::ReadOnly | Self::NotPermitted => ErrorKind::Denied,
            Self::NoSpace | Self::Quota | Self::InUse => ErrorKind::Busy,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exists => "it exists already",
            Self::NotEmpty => "the directory is not empty",
            Self::NotADirectory => "it is not a directory",
            Self::IsADirectory => "it is a directory",
            Self::NameTooLong => "the name is too long",
            Self::ReadOnly => "it is read-only",
            Self::OtherMount => "it lies in another mount",
            Self::NoSpace => "there is no space left",
            Self::Quota => "the quota is used up",
            Self::TooLarge => "it is larger than the store takes",
            Self::NotPermitted => "the store has no such thing",
            Self::InUse => "it is in use",
        })
    }
}
