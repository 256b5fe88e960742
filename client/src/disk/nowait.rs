//! Reading what the kernel has in memory, and nothing else.
#![allow(unsafe_code, reason = "preadv2 into memory that is not cleared first")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// `len` bytes at `offset`, if the kernel can give all of them without waiting for the disk.
///
/// # Errors
/// `WouldBlock` if it cannot; `Unsupported` if the file system never says.
pub(super) fn read(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer: Vec<u8> = Vec::with_capacity(len);
    let part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: len,
    };
    let at = i64::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: `part` is `len` bytes of `buffer`'s own allocation, which nothing else uses
    // until the call returns.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, at, libc::RWF_NOWAIT) };
    let Ok(read) = usize::try_from(read) else {
        return Err(io::Error::last_os_error());
    };
    if read < len {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    // SAFETY: the kernel wrote `len` bytes.
    unsafe { buffer.set_len(len) };
    Ok(buffer)
}
