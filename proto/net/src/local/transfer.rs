//! Bytes and descriptors over a connected Unix socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Sends `bytes`, which are not empty, with `descriptor` on the first of them.
pub(crate) async fn send(
    stream: &UnixStream,
    mut bytes: &[u8],
    mut descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let rights = descriptor.as_slice();
                if !rights.is_empty() {
                    control.push(SendAncillaryMessage::ScmRights(rights));
                }
                let parts = [IoSlice::new(bytes)];
                Ok(sendmsg(
                    stream.as_fd(),
                    &parts,
                    &mut control,
                    SendFlags::NOSIGNAL,
                )?)
            })
            .await?;
        descriptor = None;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Receives up to `buffer.len()` bytes; 0 at the end. A descriptor that comes with them
/// replaces that in `descriptor`.
///
/// # Errors
/// `InvalidData` when more than one comes at a time; all are closed then.
///
/// # Cancel safety
/// Nothing is lost.
async fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
    descriptor: &mut Option<OwnedFd>,
) -> io::Result<usize> {
    stream
        .async_io(Interest::READABLE, || {
            // Room for two: a second one is noticed, and closed, instead of cut off.
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let message = recvmsg(stream.as_fd(), &mut parts, &mut control, flags)?;
            let mut came: Vec<OwnedFd> = Vec::new();
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = part {
                    came.extend(rights);
                }
            }
            if came.len() > 1 || message.flags.contains(ReturnFlags::CTRUNC) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "not one descriptor",
                ));
            }
            if let Some(one) = came.pop() {
                *descriptor = Some(one);
            }
            Ok(message.bytes)
        })
        .await
}

/// Receives exactly `buffer.len()` bytes.
///
/// # Errors
/// `UnexpectedEof` when there are fewer; `InvalidData` when more than one descriptor comes.
pub(crate) async fn receive_all(
    stream: &UnixStream,
    mut buffer: &mut [u8],
    descriptor: &mut Option<OwnedFd>,
) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = receive(stream, buffer, descriptor).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;

    use super::*;

    fn file(content: &str) -> File {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, content).unwrap();
        File::open(path).unwrap()
    }

    #[tokio::test]
    async fn a_descriptor_comes_with_the_bytes_that_it_was_sent_with() {
        let (a, b) = UnixStream::pair().unwrap();
        send(&a, b"no", None).await.unwrap();
        send(&a, b"one", Some(file("unlinked").as_fd()))
            .await
            .unwrap();
        let (mut bytes, mut descriptor) = ([0; 2], None);
        receive_all(&b, &mut bytes, &mut descriptor).await.unwrap();
        assert!(bytes == *b"no" && descriptor.is_none());
        let mut bytes = [0; 3];
        receive_all(&b, &mut bytes, &mut descriptor).await.unwrap();
        let mut text = String::new();
        File::from(descriptor.unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!((&bytes, text.as_str()), (b"one", "unlinked"));
        drop(a);
        let end = receive_all(&b, &mut bytes, &mut None).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn more_than_one_descriptor_at_a_time_is_refused() {
        let (a, b) = UnixStream::pair().unwrap();
        let (one, two) = (file("1"), file("2"));
        let rights = [one.as_fd(), two.as_fd(), one.as_fd()];
        for count in [2, 3] {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&rights[..count]));
            let parts = [IoSlice::new(b"x")];
            sendmsg(&a, &parts, &mut control, SendFlags::empty()).unwrap();
            let mut descriptor = None;
            let refused = receive(&b, &mut [0; 1], &mut descriptor).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{count}");
            assert!(descriptor.is_none());
        }
    }

    /// More than a socket buffer holds, in both directions of readiness.
    #[tokio::test]
    async fn bytes_arrive_whole_whatever_the_buffers_hold() {
        let (a, b) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
        let mut got = vec![0; sent.len()];
        let mut none = None;
        let (done, read) =
            tokio::join!(send(&a, &sent, None), receive_all(&b, &mut got, &mut none));
        done.unwrap();
        read.unwrap();
        assert!(got == sent);
    }
}
