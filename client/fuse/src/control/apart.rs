//! Opening a file of our own mount so that being killed at that moment does no harm.
//!
//! A thread that waits for an answer to a request which the mount's process has taken up
//! cannot be killed. If it is a thread of that very process, and the process is killed, the
//! answer never comes; and since the threads of a process share its descriptors, the
//! connection to the kernel stays open, and everybody hangs who uses the mount. So the file is
//! opened by a thread with a table of descriptors of its own in which that connection is not:
//! it closes with the other threads, and that ends the wait.

#![allow(
    unsafe_code,
    reason = "close_range is a system call without a wrapper here"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags, openat};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Opens `path` below `tree`. Blocks until the mount has answered.
///
/// # Errors
/// Those of opening, and `Unsupported` before Linux 5.9.
pub(super) fn open_apart(tree: &OwnedFd, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let (here, there) = UnixStream::pair()?;
    let open = || {
        leave_descriptors(tree.as_raw_fd(), there.as_raw_fd())?;
        let file = openat(tree, path, flags | OFlags::CLOEXEC, Mode::empty())?;
        send(&there, &file)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("fuse-apart".to_owned());
        let opened = thread.spawn_scoped(scope, open)?.join();
        opened.map_err(|_| io::Error::other("the thread that opens panicked"))?
    })?;
    receive(&here)
}

/// Gives this thread a table of descriptors of its own, with nothing in it but these two. The
/// other threads keep theirs.
fn leave_descriptors(one: RawFd, two: RawFd) -> io::Result<()> {
    let (low, high) = (one.min(two), one.max(two));
    for (first, last) in [(0, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: only numbers are handed over. What is closed is closed for this thread,
        // which uses nothing of it from here on.
        let closed = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                first,
                last,
                libc::CLOSE_RANGE_UNSHARE,
            )
        };
        if closed != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn send(socket: &UnixStream, file: &OwnedFd) -> io::Result<()> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(
        socket,
        &[IoSlice::new(&[0])],
        &mut message,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut bytes, &mut message, RecvFlags::CMSG_CLOEXEC)?;
    let files = message.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let file = files.flatten().next();
    file.ok_or_else(|| io::Error::other("no file came"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_opened_apart_can_be_read_and_all_else_stays_open() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("f"), "content").unwrap();
        let mut other = File::open(temp.path().join("f")).unwrap();
        let dir = OwnedFd::from(File::open(temp.path()).unwrap());
        let opened = open_apart(&dir, "f", OFlags::RDONLY).unwrap();
        for file in [&mut File::from(opened), &mut other] {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "content");
        }
        let error = open_apart(&dir, "none", OFlags::RDONLY).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(dir.try_clone().is_ok());
    }

    #[test]
    fn the_thread_has_nothing_but_what_it_needs() {
        let temp = tempfile::tempdir().unwrap();
        let dir = OwnedFd::from(File::open(temp.path()).unwrap());
        let (here, _there) = UnixStream::pair().unwrap();
        let (one, two) = (dir.as_raw_fd(), here.as_raw_fd());
        let left = std::thread::spawn(move || {
            leave_descriptors(one, two).unwrap();
            let mut left: Vec<RawFd> = (0..1024)
                .filter(|fd| {
                    // SAFETY: asks for a flag of a descriptor, which need not be open.
                    unsafe { libc::fcntl(*fd, libc::F_GETFD) != -1 }
                })
                .collect();
            left.sort_unstable();
            left
        });
        let mut expected = vec![one, two];
        expected.sort_unstable();
        assert_eq!(left.join().unwrap(), expected);
        assert!(here.try_clone().is_ok() && dir.try_clone().is_ok());
    }
}
