//! The bytes that were written to one draft: in memory while they are few, then in a file.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;

use super::staging::{Held, Staging};

/// The most bytes of a draft that stay in memory.
pub(super) const IN_MEMORY: u64 = 1 << 20;

/// The bytes of one draft, at the offsets that they have in the file.
pub(super) enum Staged {
    /// Nothing was staged yet, or little.
    Memory {
        bytes: Vec<u8>,
        /// What they take of the memory for all drafts.
        held: Option<Held>,
    },
    /// In a file.
    File(Arc<StagedFile>),
}

/// A staging file. It goes when the last who uses it does.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub(super) file: File,
    pub(super) held: Held,
}

impl Staged {
    pub(super) const fn new() -> Self {
        Self::Memory {
            bytes: Vec::new(),
            held: None,
        }
    }
}

impl StagedFile {
    /// A file with nothing in it.
    pub(super) fn create(staging: &Arc<Staging>) -> io::Result<Self> {
        Ok(Self {
            file: staging.create_file()?,
            held: Held::on_disk(staging),
        })
    }

    /// Writes `data` at `offset`. Blocks as long as the disk does.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// The bytes `range`; where the file ends before, zeros. Blocks.
    pub(super) fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
        let mut at = 0;
        while at < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[at..], range.start + at as u64)
            {
                Ok(0) => break,
                Ok(read) => at += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(buffer)
    }

    /// Makes `range` zeros that take no room. Blocks.
    pub(super) fn clear(&self, range: Range<u64>) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};

        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, range.start, range.end - range.start) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let zeros = vec![0; 1 << 20];
                let mut at = range.start;
                while at < range.end {
                    let len = (range.end - at).min(zeros.len() as u64);
                    self.write(at, &zeros[..len as usize])?;
                    at += len;
                }
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Staged {
    /// The bytes `range`, if they are in memory.
    pub(super) fn in_memory(&self, range: &Range<u64>) -> Option<Bytes> {
        match self {
            Self::Memory { bytes, .. } => {
                let end = (range.end as usize).min(bytes.len());
                let start = (range.start as usize).min(end);
                Some(Bytes::copy_from_slice(&bytes[start..end]))
            }
            Self::File(_) => None,
        }
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { bytes, .. } => f.debug_tuple("Memory").field(&bytes.len()).finish(),
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
        }
    }
}
