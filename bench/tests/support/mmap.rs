//! A read-only mapping of a file.
#![allow(unsafe_code, reason = "there is no safe way to read through a mapping")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Unmapped when dropped. A failing read of the file ends the test process by SIGBUS.
#[derive(Debug)]
pub(crate) struct Mapped {
    start: *mut libc::c_void,
    len: usize,
}

impl Mapped {
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: a new read-only private mapping at an address of the kernel's choice
        // touches no memory of ours; the descriptor is open.
        let start = unsafe {
            let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                flags,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, len })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is `len` readable bytes and lives as long as `self`; the test
        // changes no file that it has mapped.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping, and no slice outlives `self`.
        unsafe {
            libc::munmap(self.start, self.len);
        }
    }
}
