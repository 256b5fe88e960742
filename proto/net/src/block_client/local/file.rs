//! A block's file as a node on this host gave it: an open descriptor, read and verified here.
#![allow(unsafe_code, reason = "preadv2 into memory that is not cleared first")]

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use millpond_proto::Epoch;
use millpond_proto::checksum::{PAGE_SIZE, PagePiece, crc32c, piece_count, pieces};
use millpond_proto::wire::frame::Tier;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::super::response::Data;

/// Pages that are read with one call and summed while they are in the CPU's cache.
const STRIDE: u32 = 4;

/// The file of a whole block.
///
/// - Its content never changes: the block's id names it. It stays readable when the node has
///   dropped the block, or has died.
/// - Every page that a range touches is read whole and compared with its checksum, each time.
#[derive(Debug)]
pub(super) struct BlockFile {
    file: File,
    start: u64,
    len: u32,
    checksums: Box<[u32]>,
    /// Where the node says it is.
    pub(super) tier: Tier,
    /// The epoch of the node when it gave it.
    pub(super) epoch: Epoch,
    /// When it gave it.
    pub(super) received: StdInstant,
}

/// Why a range could not be read.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// A page is not what was written.
    Corrupt,
    /// The system says no, the file is cut short, or the deadline passed.
    Io(io::Error),
}

impl BlockFile {
    /// The block of `len` bytes from `start` of a file, with a checksum per page.
    ///
    /// # Errors
    /// When it is no file, or too short.
    pub(super) fn new(
        descriptor: OwnedFd,
        start: u64,
        len: u32,
        checksums: Vec<u32>,
        tier: Tier,
        epoch: Epoch,
    ) -> io::Result<Self> {
        let file = File::from(descriptor);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() < start.saturating_add(u64::from(len)) {
            let why = "the descriptor is not of a block's file";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Self {
            file,
            start,
            len,
            checksums: checksums.into(),
            tier,
            epoch,
            received: StdInstant::now(),
        })
    }

    /// Whether the block has this range.
    pub(super) fn has(&self, offset: u32, len: u32) -> bool {
        u64::from(offset) + u64::from(len) <= u64::from(self.len)
    }

    /// Whether the node has dropped the block: then the descriptor alone keeps its bytes on
    /// the disk.
    pub(super) fn is_unlinked(&self) -> bool {
        self.file.metadata().map_or(true, |m| m.nlink() == 0)
    }

    /// Reads a range that the block [`has`](Self::has): at once if the kernel holds its pages,
    /// else on another thread, as soon as `readers` admits it.
    pub(super) async fn range(
        self: &Arc<Self>,
        offset: u32,
        len: u32,
        readers: &Arc<Semaphore>,
        deadline: Instant,
    ) -> Result<Data, ReadFailure> {
        match self.read(offset, len, Wait::No) {
            Err(ReadFailure::Io(error)) if would_wait(&error) => {}
            done => return done,
        }
        let late = || ReadFailure::Io(io::ErrorKind::TimedOut.into());
        let permit = timeout_at(deadline, Arc::clone(readers).acquire_owned()).await;
        let permit = permit.map_err(|_| late())?.map_err(|_| late())?;
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let read = this.read(offset, len, Wait::Yes);
            drop(permit);
            read
        });
        match timeout_at(deadline, read).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }

    fn read(&self, offset: u32, len: u32, wait: Wait) -> Result<Data, ReadFailure> {
        let mut out = Vec::with_capacity(len as usize);
        let mut sums = Vec::with_capacity(piece_count(offset, len) as usize);
        let mut todo = pieces(offset, len).peekable();
        while let Some(piece) = todo.next() {
            if !self.is_whole(&piece) {
                self.read_part(&piece, offset, wait, &mut out, &mut sums)?;
                continue;
            }
            let (mut bytes, mut count) = (piece.len as usize, 1);
            while count < STRIDE
                && let Some(next) = todo.next_if(|next| self.is_whole(next))
            {
                bytes += next.len as usize;
                count += 1;
            }
            let from = out.len();
            append(&self.file, self.at(piece.page), bytes, wait, &mut out)?;
            for (page, data) in (piece.page..).zip(out[from..].chunks(PAGE_SIZE as usize)) {
                sums.push(self.verify(page, data)?);
            }
        }
        Ok(Data {
            bytes: out.into(),
            checksums: sums,
        })
    }

    /// Reads the whole page that `piece` is a part of, and takes the part.
    fn read_part(
        &self,
        piece: &PagePiece,
        offset: u32,
        wait: Wait,
        out: &mut Vec<u8>,
        sums: &mut Vec<u32>,
    ) -> Result<(), ReadFailure> {
        thread_local! {
            static PAGE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(PAGE_SIZE as usize));
        }
        PAGE.with_borrow_mut(|page| {
            page.clear();
            let len = self.page_len(piece.page) as usize;
            append(&self.file, self.at(piece.page), len, wait, page)?;
            self.verify(piece.page, page)?;
            let from = ((offset + piece.start) % PAGE_SIZE) as usize;
            let part = &page[from..from + piece.len as usize];
            sums.push(crc32c(part));
            out.extend_from_slice(part);
            Ok(())
        })
    }

    fn verify(&self, page: u32, data: &[u8]) -> Result<u32, ReadFailure> {
        let sum = crc32c(data);
        if sum == self.checksums[page as usize] {
            Ok(sum)
        } else {
            Err(ReadFailure::Corrupt)
        }
    }

    fn is_whole(&self, piece: &PagePiece) -> bool {
        piece.len == self.page_len(piece.page)
    }

    fn page_len(&self, page: u32) -> u32 {
        (self.len - page * PAGE_SIZE).min(PAGE_SIZE)
    }

    fn at(&self, page: u32) -> u64 {
        self.start + u64::from(page) * u64::from(PAGE_SIZE)
    }
}

impl From<io::Error> for ReadFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    Yes,
}

/// Whether a read that was not to wait has to; some file systems never say.
fn would_wait(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::WouldBlock || kind == io::ErrorKind::Unsupported
}

/// Appends exactly `len` bytes at `offset` of `file` to `into`.
fn append(file: &File, offset: u64, len: usize, wait: Wait, into: &mut Vec<u8>) -> io::Result<()> {
    let flags = match wait {
        Wait::No => libc::RWF_NOWAIT,
        Wait::Yes => 0,
    };
    let end = into.len() + len;
    into.reserve(len);
    let begin = into.len();
    while into.len() < end {
        let at = offset + (into.len() - begin) as u64;
        let at = i64::try_from(at).map_err(io::Error::other)?;
        let missing = end - into.len();
        let spare = &mut into.spare_capacity_mut()[..missing];
        let part = libc::iovec {
            iov_base: spare.as_mut_ptr().cast(),
            iov_len: spare.len(),
        };
        // SAFETY: `part` is a part of `into`'s own spare capacity, which nothing else uses
        // until the call returns.
        let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, at, flags) };
        match usize::try_from(read) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // SAFETY: the kernel wrote `read` bytes behind those that were there, at most as
            // many as there was room for.
            Ok(read) => unsafe { into.set_len(into.len() + read) },
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millpond_proto::checksum::page_checksums;
    use proptest::prelude::*;

    use super::*;

    fn block(content: &[u8], start: u64) -> (tempfile::NamedTempFile, BlockFile) {
        let named = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0xee; start as usize];
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(b"what follows is not of the block");
        std::fs::write(named.path(), bytes).unwrap();
        let file = BlockFile::new(
            File::open(named.path()).unwrap().into(),
            start,
            content.len() as u32,
            page_checksums(content),
            Tier::Disk,
            Epoch(1),
        );
        (named, file.unwrap())
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_range_is_what_was_written(
            len in 1usize..700_000,
            start in 0u64..5000,
            a in any::<prop::sample::Index>(),
            b in any::<prop::sample::Index>(),
        ) {
            let content = content(len);
            let (_named, file) = block(&content, start);
            let (a, b) = (a.index(len + 1), b.index(len + 1));
            let (from, to) = (a.min(b), a.max(b));
            let (offset, count) = (from as u32, (to - from) as u32);
            prop_assert!(file.has(offset, count) && !file.has(offset, len as u32 + 1 - offset));
            let data = file.read(offset, count, Wait::Yes).unwrap();
            prop_assert_eq!(&data.bytes[..], &content[from..to]);
            let expected: Vec<u32> = pieces(offset, count)
                .map(|p| crc32c(&data.bytes[p.start as usize..][..p.len as usize]))
                .collect();
            prop_assert_eq!(data.checksums, expected);
        }
    }

    #[test]
    fn a_changed_byte_is_found_by_reads_of_its_page_and_by_no_other() {
        let content = content(200_000);
        let (named, file) = block(&content, 0);
        let mut bad = std::fs::read(named.path()).unwrap();
        bad[70_000] ^= 1;
        std::fs::write(named.path(), bad).unwrap();
        for (offset, len) in [(0, 200_000), (65_536, 1), (131_071, 10), (69_000, 2000)] {
            let read = file.read(offset, len, Wait::Yes);
            assert!(matches!(read, Err(ReadFailure::Corrupt)), "{offset}+{len}");
        }
        for (offset, len) in [(0, 65_536), (131_072, 68_928), (65_530, 6)] {
            assert!(file.read(offset, len, Wait::Yes).is_ok(), "{offset}+{len}");
        }
    }

    #[test]
    fn a_file_that_became_short_is_an_error_and_one_that_is_too_short_is_refused() {
        let (named, file) = block(&content(100_000), 0);
        std::fs::write(named.path(), [0; 10]).unwrap();
        let read = file.read(0, 100_000, Wait::Yes);
        assert!(matches!(read, Err(ReadFailure::Io(_))));
        let short = File::open(named.path()).unwrap();
        let made = BlockFile::new(short.into(), 0, 11, vec![0], Tier::Disk, Epoch(1));
        assert!(made.is_err());
        let device = File::open("/dev/zero").unwrap();
        let made = BlockFile::new(device.into(), 0, 11, vec![0], Tier::Disk, Epoch(1));
        assert!(made.is_err());
    }

    #[tokio::test]
    async fn an_unlinked_file_stays_readable_and_says_so() {
        let content = content(100_000);
        let (named, file) = block(&content, 0);
        assert!(!file.is_unlinked());
        drop(named);
        assert!(file.is_unlinked());
        let (file, readers) = (Arc::new(file), Arc::new(Semaphore::new(1)));
        let deadline = Instant::now() + std::time::Duration::from_secs(60);
        let data = file.range(5, 90_000, &readers, deadline).await.unwrap();
        assert_eq!(&data.bytes[..], &content[5..90_005]);
    }
}
