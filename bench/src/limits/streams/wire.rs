//! What both ends say to each other.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// How the bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the server's memory, over TCP.
    Tcp,
    /// From a file in the page cache by `sendfile(2)`, over TCP.
    Sendfile,
    /// From the server's memory, over a Unix socket.
    Unix,
    /// As a descriptor of a file in the page cache, over a Unix socket, for each request anew.
    Descriptor,
}

/// A request: offset, length, way, and padding to the length of a block request of ours.
pub(super) const REQUEST: usize = 64;

/// One end of a connection.
#[derive(Debug)]
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    pub(super) fn ask(&mut self, way: Way, offset: u64, len: u64) -> io::Result<()> {
        let mut request = [0; REQUEST];
        request[..8].copy_from_slice(&offset.to_le_bytes());
        request[8..16].copy_from_slice(&len.to_le_bytes());
        request[16] = way as u8;
        self.write_all(&request)
    }

    /// The next request; none at the end.
    pub(super) fn asked(&mut self) -> io::Result<Option<(Way, u64, u64)>> {
        let mut request = [0; REQUEST];
        match self.read_exact(&mut request) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let number = |at: usize| request[at..].first_chunk().map(|n| u64::from_le_bytes(*n));
        let ways = [Way::Tcp, Way::Sendfile, Way::Unix, Way::Descriptor];
        let way = ways.into_iter().find(|way| *way as u8 == request[16]);
        let asked = way.zip(number(0)).zip(number(8));
        let ((way, offset), len) = asked.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some((way, offset, len)))
    }

    /// Sends a descriptor, with the one byte that it takes.
    pub(super) fn give_descriptor(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let byte = [IoSlice::new(&[1])];
        sendmsg(self, &byte, &mut control, SendFlags::empty())?;
        Ok(())
    }

    pub(super) fn take_descriptor(&self) -> io::Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let into = &mut [IoSliceMut::new(&mut byte)];
        recvmsg(self, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        control
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            })
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
