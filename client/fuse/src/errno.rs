//! The one table from [`ErrorKind`] to errno.

use fuser::Errno;
use millpond_proto::ErrorKind;

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
    fn no_kind_becomes_an_errno_that_changes_kernel_behaviour() {
        // ENOSYS makes the kernel stop sending the call for the life of the mount.
        for kind in ErrorKind::ALL {
            let errno = i32::from(errno_of(kind));
            assert_ne!(errno, libc::ENOSYS);
            assert_ne!(errno, libc::EAGAIN);
        }
    }
}
