//! What the other end of a Unix socket has not read yet.
#![allow(unsafe_code, reason = "an ioctl that no crate of ours wraps")]

use std::os::fd::AsRawFd;

/// Bytes of kernel memory that wait for the other end; 0 where the system does not say.
pub(crate) fn unread(socket: &impl AsRawFd) -> i32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ of sockets, writes one int.
    let told = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if told == 0 { bytes } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_was_read_does_not_wait() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        assert_eq!(unread(&a), 0);
        a.write_all(b"12345").unwrap();
        assert!(unread(&a) > 0);
        b.read_exact(&mut [0; 4]).unwrap();
        assert!(unread(&a) > 0);
        b.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(unread(&a), 0);
    }
}
