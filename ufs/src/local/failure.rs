//! What the errors of the system mean: the one place for local directories.

use millpond_proto::{ErrorKind, Refusal};
use rustix::io::Errno;

use crate::error::{Op, UfsError};

/// The error that `errno` means where a path is resolved or something is read.
pub(super) fn failure(errno: Errno, op: Op, uri: String) -> UfsError {
    let (kind, cause) = match errno {
        Errno::NOENT => (ErrorKind::NotFound, "it does not exist"),
        Errno::NOTDIR if op.changes() => {
            let cause = "something on the way to it is not a directory";
            return UfsError::refused(Refusal::NotADirectory, op, uri, cause);
        }
        Errno::NOTDIR => (
            ErrorKind::NotFound,
            "it, or something on the way to it, is not a directory",
        ),
        Errno::XDEV => (
            ErrorKind::Denied,
            "a symbolic link leads out of the root directory",
        ),
        Errno::LOOP => (
            ErrorKind::Denied,
            "symbolic links on the way form a loop, or are too many",
        ),
        Errno::ACCESS => (ErrorKind::Denied, "this process has no permission to do it"),
        Errno::PERM if op.changes() => {
            let cause = "this process is not allowed to do it";
            return UfsError::refused(Refusal::NotPermitted, op, uri, cause);
        }
        Errno::PERM => (
            ErrorKind::Denied,
            "this process has no permission to read it",
        ),
        Errno::NAMETOOLONG if op.changes() => {
            let cause = "no name or path can be that long";
            return UfsError::refused(Refusal::NameTooLong, op, uri, cause);
        }
        Errno::NAMETOOLONG => (ErrorKind::NotFound, "no name can be that long"),
        Errno::STALE => (ErrorKind::Stale, "the file handle is stale"),
        Errno::MFILE | Errno::NFILE => (ErrorKind::Busy, "too many files are open"),
        Errno::NOSYS => (
            ErrorKind::Unsupported,
            "the kernel, or a sandbox around this process, does not know openat2 (Linux 5.6)",
        ),
        Errno::IO => (ErrorKind::Unavailable, "the device reported an error"),
        other => return UfsError::new(ErrorKind::Unavailable, op, uri, other.to_string()),
    };
    UfsError::new(kind, op, uri, cause)
}

/// The error that `errno` means where something is changed in a directory that is open.
pub(super) fn change_failure(errno: Errno, op: Op, uri: String) -> UfsError {
    let (refusal, cause) = match errno {
        Errno::EXIST => (Refusal::Exists, "there is something of that name"),
        Errno::NOTEMPTY => (Refusal::NotEmpty, "the directory is not empty"),
        Errno::NOTDIR => (Refusal::NotADirectory, "it is not a directory"),
        Errno::ISDIR => (Refusal::IsADirectory, "it is a directory"),
        Errno::ROFS => (Refusal::ReadOnly, "the file system is read-only"),
        Errno::XDEV => (Refusal::OtherMount, "it lies on another file system"),
        Errno::NOSPC => (Refusal::NoSpace, "the file system is full"),
        Errno::DQUOT => (Refusal::Quota, "the disk quota is used up"),
        Errno::FBIG | Errno::TOOBIG | Errno::RANGE => {
            (Refusal::TooLarge, "it is larger than the file system takes")
        }
        Errno::MLINK => (Refusal::NotPermitted, "it has as many names as it can have"),
        Errno::BUSY | Errno::TXTBSY => (Refusal::InUse, "it is in use"),
        Errno::INVAL => {
            let cause = "the file system takes no such change";
            return UfsError::new(ErrorKind::Invalid, op, uri, cause);
        }
        Errno::NODATA => {
            let cause = "it has no such attribute";
            return UfsError::new(ErrorKind::NotFound, op, uri, cause);
        }
        Errno::OPNOTSUPP | Errno::NOSYS => {
            let cause = "the file system cannot do it";
            return UfsError::new(ErrorKind::Unsupported, op, uri, cause);
        }
        other => return failure(other, op, uri),
    };
    UfsError::refused(refusal, op, uri, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_the_system_is_told_apart() {
        for (errno, refusal) in [
            (Errno::EXIST, Refusal::Exists),
            (Errno::NOTEMPTY, Refusal::NotEmpty),
            (Errno::NOTDIR, Refusal::NotADirectory),
            (Errno::ISDIR, Refusal::IsADirectory),
            (Errno::NAMETOOLONG, Refusal::NameTooLong),
            (Errno::ROFS, Refusal::ReadOnly),
            (Errno::XDEV, Refusal::OtherMount),
            (Errno::NOSPC, Refusal::NoSpace),
            (Errno::DQUOT, Refusal::Quota),
            (Errno::FBIG, Refusal::TooLarge),
            (Errno::PERM, Refusal::NotPermitted),
            (Errno::BUSY, Refusal::InUse),
        ] {
            let error = change_failure(errno, Op::Rename, "u".into());
            assert_eq!(error.refusal(), Some(refusal), "{errno:?}");
        }
        for (errno, kind) in [
            (Errno::ACCESS, ErrorKind::Denied),
            (Errno::NOENT, ErrorKind::NotFound),
            (Errno::INVAL, ErrorKind::Invalid),
            (Errno::OPNOTSUPP, ErrorKind::Unsupported),
            (Errno::NODATA, ErrorKind::NotFound),
            (Errno::IO, ErrorKind::Unavailable),
        ] {
            let error = change_failure(errno, Op::Put, "u".into());
            assert_eq!((error.kind(), error.refusal()), (kind, None), "{errno:?}");
        }
        let error = failure(Errno::NAMETOOLONG, Op::Stat, "u".into());
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
