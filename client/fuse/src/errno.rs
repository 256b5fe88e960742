//! The one table from [`ErrorKind`] and [`Refusal`] to errno.

use fuser::Errno;
use millpond_proto::{ErrorKind, Refusal};

/// The errno that an application sees for a failure of `kind`.
///
/// `Busy`, `Unavailable`, `Corrupt` and `Internal` are all `EIO`: by the time a failure gets
/// here every source was tried, and readers of regular files do not expect `EAGAIN`.
pub const fn errno_of(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::Invalid => Errno::EINVAL,
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        ErrorKind::Denied => Errno::EACCES,
        ErrorKind::Stale => Errno::ESTALE,
        ErrorKind::Timeout => Errno::ETIMEDOUT,
        ErrorKind::Busy | ErrorKind::Unavailable | ErrorKind::Corrupt | ErrorKind::Internal => {
            Errno::EIO
        }
    }
}

/// The errno that an application sees for a change that is refused.
pub const fn errno_of_refusal(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::NotADirectory => Errno::ENOTDIR,
        Refusal::IsADirectory => Errno::EISDIR,
        Refusal::NameTooLong => Errno::ENAMETOOLONG,
        Refusal::ReadOnly => Errno::EROFS,
        Refusal::OtherMount => Errno::EXDEV,
        Refusal::NoSpace => Errno::ENOSPC,
        Refusal::Quota => Errno::EDQUOT,
        Refusal::TooLarge => Errno::EFBIG,
        Refusal::NotPermitted => Errno::EPERM,
        Refusal::InUse => Errno::EBUSY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_errno_of_the_table() {
        let table = [
            (ErrorKind::NotFound, libc::ENOENT),
            (ErrorKind::Invalid, libc::EINVAL),
            (ErrorKind::Unsupported, libc::EOPNOTSUPP),
            (ErrorKind::Denied, libc::EACCES),
            (ErrorKind::Stale, libc::ESTALE),
            (ErrorKind::Busy, libc::EIO),
            (ErrorKind::Unavailable, libc::EIO),
            (ErrorKind::Timeout, libc::ETIMEDOUT),
            (ErrorKind::Corrupt, libc::EIO),
            (ErrorKind::Internal, libc::EIO),
        ];
        assert_eq!(table.map(|(kind, _)| kind), ErrorKind::ALL);
        for (kind, errno) in table {
            assert_eq!(i32::from(errno_of(kind)), errno, "{kind}");
        }
    }

    #[test]
    fn every_refusal_has_the_errno_of_the_table() {
        let table = [
            (Refusal::Exists, libc::EEXIST),
            (Refusal::NotEmpty, libc::ENOTEMPTY),
            (Refusal::NotADirectory, libc::ENOTDIR),
            (Refusal::IsADirectory, libc::EISDIR),
            (Refusal::NameTooLong, libc::ENAMETOOLONG),
            (Refusal::ReadOnly, libc::EROFS),
            (Refusal::OtherMount, libc::EXDEV),
            (Refusal::NoSpace, libc::ENOSPC),
            (Refusal::Quota, libc::EDQUOT),
            (Refusal::TooLarge, libc::EFBIG),
            (Refusal::NotPermitted, libc::EPERM),
            (Refusal::InUse, libc::EBUSY),
        ];
        assert_eq!(table.map(|(refusal, _)| refusal), Refusal::ALL);
        for (refusal, errno) in table {
            assert_eq!(i32::from(errno_of_refusal(refusal)), errno, "{refusal}");
        }
    }

    #[test]
    fn no_kind_becomes_an_errno_that_changes_kernel_behaviour() {
        // ENOSYS makes the kernel stop sending the call for the life of the mount.
        for kind in ErrorKind::ALL {
            let errno = i32::from(errno_of(kind));
            assert_ne!(errno, libc::ENOSYS);
            assert_ne!(errno, libc::EAGAIN);
        }
    }
}
