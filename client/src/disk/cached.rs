//! One cached file, open: its bytes, and which of them are there.

use std::fs::{File, FileTimes, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use millpond_proto::FileId;
use millpond_proto::checksum::crc32c;
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;

use super::charge::{Charge, footprint};
use super::layout::Layout;
use super::pages::{self, PAGE, PageSet};
use super::{map, nowait};

/// A cached file of the tier that is open.
///
/// - A page is *present* when its bytes and then its entry in the map were written, by this
///   process or an earlier one.
/// - A page is *verified* when its bytes matched their checksum after the last time that
///   this file was synced with nothing written since: from then on, what the kernel reads is
///   what was verified, or an error. Verified pages are read without a check.
/// - A page that is present is never written again, unless it was dropped as damaged.
#[derive(Debug)]
pub(super) struct CachedFile {
    pub(super) id: FileId,
    pub(super) size: u64,
    data: File,
    map: File,
    present: PageSet,
    verified: PageSet,
    /// Pages that are not present.
    missing: AtomicU64,
    /// Held to write.
    pub(super) writing: Mutex<()>,
    /// Counts writes.
    written: AtomicU64,
    /// What `written` was when the disk last took all of them.
    synced: AtomicU64,
    /// When it was last synced.
    synced_at: Mutex<Option<Instant>>,
    /// Whether all pages are verified.
    whole: AtomicBool,
    /// Whether a task is at work to make it so.
    pub(super) settling: AtomicBool,
    /// Whether a task is at work to fetch what is missing.
    pub(super) completing: AtomicBool,
    /// Handles of others on the file itself. It is not evicted while there are any: that
    /// would not give its room free.
    pins: AtomicU32,
    /// Evicted or dropped: writing to it is of no use.
    gone: AtomicBool,
    pub(super) charge: Arc<Charge>,
}

/// Why a range could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Not all of it is there.
    Missing,
    /// So many pages did not match their checksums, and were dropped.
    Damaged(u64),
    /// The disk failed; the pages were dropped.
    Io(io::Error),
}

/// Why a file of an earlier process cannot be used.
#[derive(Debug)]
pub(super) enum LoadError {
    /// It is not what was written.
    Damaged(&'static str),
    /// It cannot be read.
    Io(io::Error),
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Room that the map of a file of `size` bytes takes at most.
pub(super) const fn map_footprint(size: u64) -> u64 {
    footprint(map::offset(pages::count(size)))
}

impl CachedFile {
    /// Makes an empty one. The bytes come first and the map last: without a map, the next
    /// start removes them.
    pub(super) fn create(
        layout: &Layout,
        id: FileId,
        size: u64,
        charge: Arc<Charge>,
    ) -> io::Result<Self> {
        let create = |path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true);
            options.open(path)
        };
        let data = create(layout.data(id))?;
        data.set_len(size)?;
        let map = create(layout.map(id))?;
        map.write_all_at(&map::header(id, size), 0)?;
        map.set_len(map::offset(pages::count(size)))?;
        Ok(Self::of(id, size, data, map, charge))
    }

    /// Opens one of an earlier process. What is in it counts as used now.
    pub(super) fn load(
        layout: &Layout,
        id: FileId,
        charge: Arc<Charge>,
    ) -> Result<Self, LoadError> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        let map = open(layout.map(id))?;
        let mut header = [0; map::HEADER as usize];
        match map.read_exact_at(&mut header, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(LoadError::Damaged("the map is cut short"));
            }
            Err(error) => return Err(error.into()),
        }
        let size = map::size_in(&header, id).ok_or(LoadError::Damaged("the map is not its own"))?;
        let data = open(layout.data(id))?;
        if data.metadata()?.len() != size {
            return Err(LoadError::Damaged(
                "the file has another size than its map says",
            ));
        }
        let cached = Self::of(id, size, data, map, charge);
        cached.load_entries()?;
        let now = FileTimes::new().set_modified(SystemTime::now());
        cached.map.set_times(now)?;
        Ok(cached)
    }

    fn of(id: FileId, size: u64, data: File, map: File, charge: Arc<Charge>) -> Self {
        let pages = pages::count(size);
        Self {
            id,
            size,
            data,
            map,
            present: PageSet::new(pages),
            verified: PageSet::new(pages),
            missing: AtomicU64::new(pages),
            writing: Mutex::new(()),
            // An earlier process may have written what the disk has not taken.
            written: AtomicU64::new(1),
            synced: AtomicU64::new(0),
            synced_at: Mutex::new(None),
            whole: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            completing: AtomicBool::new(false),
            pins: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            charge,
        }
    }

    fn load_entries(&self) -> io::Result<()> {
        let pages = pages::count(self.size);
        let mut page = 0;
        while page < pages {
            let some = (pages - page).min(ENTRIES_AT_ONCE);
            let entries = read_up_to(&self.map, map::offset(page), (some * map::ENTRY) as usize)?;
            for (at, entry) in (page..page + some).zip(entries.chunks(map::ENTRY as usize)) {
                if map::checksum_in(entry, self.id, at).is_some() {
                    self.note_present(&(at..at + 1));
                }
            }
            page += some;
        }
        Ok(())
    }

    /// Whether all of `range` is there, as far as is known without reading it.
    pub(super) fn holds(&self, range: &Range<u64>) -> bool {
        self.present.has_all(&pages::touching(range))
    }

    /// Whether any of `range` is there.
    pub(super) fn holds_any(&self, range: &Range<u64>) -> bool {
        self.present.has_any(&pages::touching(range))
    }

    /// Pages that are not there.
    pub(super) fn missing(&self) -> u64 {
        self.missing.load(Ordering::Acquire)
    }

    /// The first bytes from `at` on that are not there.
    pub(super) fn first_missing(&self, at: u64) -> Option<Range<u64>> {
        let all = at / PAGE..pages::count(self.size);
        let pages = self.present.first_missing(all)?;
        Some(pages::bytes(&pages, self.size))
    }

    /// `range`, if it is there, verified, and in the kernel's memory.
    ///
    /// # Errors
    /// Those of [`nowait::read`]; `WouldBlock` if it is not there.
    pub(super) fn try_read(&self, range: &Range<u64>) -> io::Result<Bytes> {
        if !self.verified.has_all(&pages::touching(range)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = (range.end - range.start) as usize;
        nowait::read(&self.data, range.start, len).map(Bytes::from)
    }

    /// `range`, which is not empty and lies within the file. Blocks the thread.
    pub(super) fn read(&self, range: &Range<u64>) -> Result<Bytes, ReadError> {
        let touched = pages::touching(range);
        if !self.present.has_all(&touched) {
            return Err(ReadError::Missing);
        }
        if self.verified.has_all(&touched) {
            let len = (range.end - range.start) as usize;
            return match read_up_to(&self.data, range.start, len) {
                Ok(data) if data.len() == len => Ok(data.into()),
                Ok(_) => Err(self.drop_pages(&touched, touched.end - touched.start)),
                Err(error) => Err(self.drop_unreadable(&touched, error)),
            };
        }
        let whole = self.read_and_verify(&touched)?;
        let skip = (range.start - touched.start * PAGE) as usize;
        Ok(Bytes::from(whole).slice(skip..skip + (range.end - range.start) as usize))
    }

    /// Reads whole pages and compares them with their checksums.
    fn read_and_verify(&self, pages: &Range<u64>) -> Result<Vec<u8>, ReadError> {
        // Before the bytes are read: what is written after was not seen.
        let settled = self.is_synced();
        let unreadable = |error| self.drop_unreadable(pages, error);
        let bytes = pages::bytes(pages, self.size);
        let len = (bytes.end - bytes.start) as usize;
        let data = read_up_to(&self.data, bytes.start, len).map_err(unreadable)?;
        let count = pages.end - pages.start;
        let entries = read_up_to(
            &self.map,
            map::offset(pages.start),
            (count * map::ENTRY) as usize,
        )
        .map_err(unreadable)?;
        let mut bad = 0;
        for page in pages.clone() {
            let at = (page - pages.start) as usize;
            let entry = entries.get(at * map::ENTRY as usize..).unwrap_or_default();
            let start = at * PAGE as usize;
            let end = (start + PAGE as usize).min(len);
            let good = data.get(start..end).is_some_and(|page_data| {
                map::checksum_in(entry, self.id, page) == Some(crc32c(page_data))
            });
            if !good {
                self.drop_pages(&(page..page + 1), 1);
                bad += 1;
            } else if settled {
                self.verified.add(&(page..page + 1));
            }
        }
        if bad > 0 {
            return Err(ReadError::Damaged(bad));
        }
        Ok(data)
    }

    /// Pages that are not present any more.
    fn drop_pages(&self, pages: &Range<u64>, bad: u64) -> ReadError {
        self.whole.store(false, Ordering::Release);
        self.verified.take(pages);
        let taken = self.present.take(pages);
        self.missing.fetch_add(taken, Ordering::AcqRel);
        let none = vec![0; ((pages.end - pages.start) * map::ENTRY) as usize];
        // If this fails, the next process finds the same damage again.
        let _ = self.map.write_all_at(&none, map::offset(pages.start));
        ReadError::Damaged(bad)
    }

    fn drop_unreadable(&self, pages: &Range<u64>, error: io::Error) -> ReadError {
        self.drop_pages(pages, 0);
        ReadError::Io(error)
    }

    /// The first run of `pages` that is absent.
    pub(super) fn absent_in(&self, pages: &Range<u64>) -> Option<Range<u64>> {
        self.present.first_missing(pages.clone())
    }

    /// Writes whole pages that are absent, first the bytes, then the entries.
    pub(super) fn write(&self, pages: &Range<u64>, data: &[u8]) -> io::Result<()> {
        self.data.write_all_at(data, pages.start * PAGE)?;
        let mut entries = Vec::with_capacity(((pages.end - pages.start) * map::ENTRY) as usize);
        for (page, data) in pages.clone().zip(data.chunks(PAGE as usize)) {
            entries.extend_from_slice(&map::entry(self.id, page, crc32c(data)));
        }
        self.map.write_all_at(&entries, map::offset(pages.start))?;
        self.written.fetch_add(1, Ordering::AcqRel);
        self.note_present(pages);
        Ok(())
    }

    fn note_present(&self, pages: &Range<u64>) {
        let added = self.present.add(pages);
        self.missing.fetch_sub(added, Ordering::AcqRel);
    }

    /// Whether the disk took all that was written, as far as this process can know.
    fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire) == self.written.load(Ordering::Acquire)
    }

    /// Whether it was synced within the last `span`.
    pub(super) fn synced_within(&self, span: std::time::Duration) -> bool {
        self.synced_at.lock().is_some_and(|at| at.elapsed() < span)
    }

    /// Waits for the disk to take what was written.
    ///
    /// # Errors
    /// A write that the kernel had taken failed: nothing in the file can be believed.
    pub(super) fn sync(&self) -> io::Result<()> {
        if self.is_synced() {
            return Ok(());
        }
        let written = self.written.load(Ordering::Acquire);
        self.data.sync_data()?;
        self.map.sync_data()?;
        self.synced.fetch_max(written, Ordering::AcqRel);
        *self.synced_at.lock() = Some(Instant::now());
        Ok(())
    }

    /// Verifies what is not verified yet, until `stop` says so. Returns how many pages were
    /// dropped.
    pub(super) fn verify(&self, stop: impl Fn() -> bool) -> Result<u64, ReadError> {
        let all = 0..pages::count(self.size);
        let mut bad = 0;
        let mut from = 0;
        while let Some(pages) = self.verified.first_missing(from..all.end) {
            if stop() || self.is_gone() {
                return Ok(bad);
            }
            let pages = pages.start..pages.end.min(pages.start + VERIFIED_AT_ONCE);
            from = pages.end;
            let pages = match self.present.first_missing(pages.clone()) {
                Some(absent) => pages.start..absent.start,
                None => pages,
            };
            if pages.is_empty() {
                continue;
            }
            from = pages.end;
            match self.read_and_verify(&pages) {
                Ok(_) | Err(ReadError::Missing) => {}
                Err(ReadError::Damaged(pages)) => bad += pages,
                Err(error) => return Err(error),
            }
        }
        if self.verified.has_all(&all) {
            self.whole.store(true, Ordering::Release);
        }
        Ok(bad)
    }

    /// Whether every page is there and verified.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    pub(super) fn retire(&self) {
        self.gone.store(true, Ordering::Release);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }
}

/// A whole, verified file on the local disk, for the kernel to read itself. While this
/// exists, the file is not evicted; if it is removed all the same, because it was replaced,
/// its bytes stay until then.
#[derive(Debug)]
pub struct Backing {
    file: Arc<CachedFile>,
}

impl Backing {
    /// The file, if it is whole.
    pub(super) fn of(file: Arc<CachedFile>) -> Option<Self> {
        file.pins.fetch_add(1, Ordering::AcqRel);
        let backing = Self { file };
        // Asked when it can no longer be evicted.
        (backing.file.is_whole() && !backing.file.is_gone()).then_some(backing)
    }
}

impl AsFd for Backing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.data.as_fd()
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        self.file.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Entries of a map that are read at a time.
const ENTRIES_AT_ONCE: u64 = 8192;

/// Pages that are verified at a time.
const VERIFIED_AT_ONCE: u64 = 16;

/// Reads `len` bytes at `offset`, fewer at the end of the file, into a buffer that is not
/// cleared first.
fn read_up_to(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(len);
    while buffer.len() < len {
        let at = offset + buffer.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut buffer), at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may give more room than was asked for.
    buffer.truncate(len);
    Ok(buffer)
}
