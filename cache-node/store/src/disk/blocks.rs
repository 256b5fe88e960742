//! The blocks of one directory, on the calling thread.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use millpond_disk::{DirLock, DiskError};
use millpond_proto::{BlockId, ClusterId};
use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::admission::{Admission, Refusal};
use crate::block::{Block, Hit};
use crate::stats::DiskCounters;

use super::DiskConfig;
use super::device::{Access, Device, Running};
use super::files::Files;
use super::format::{self, ReadError};
use super::index::{Entry, Index, State};
use super::layout::Layout;
use super::scan;
use super::share::SharedFile;

/// The blocks of one directory.
///
/// Whoever calls it may be held up for as long as the kernel likes, but for what says that it
/// never waits.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) layout: Layout,
    pub(super) files: Files,
    pub(super) device: Device,
    pub(super) counters: DiskCounters,
    pub(super) cluster: Option<ClusterId>,
    /// Keeps other processes out of the directory.
    pub(super) lock: Mutex<DirLock>,
    pub(super) index: Index,
    capacity: u64,
    /// Held for every change of the index, of the names of block files and of `used`.
    names: Mutex<()>,
    /// Bytes of all files, those being written included.
    used: AtomicU64,
    next_tmp: AtomicU64,
}

impl Blocks {
    /// Takes the directory and finds the blocks in it.
    pub(super) fn open(config: DiskConfig) -> Result<Self, DiskError> {
        let device = Device::new(config.dir.clone(), config.read_limit, config.write_limit);
        let layout = Layout::new(config.dir);
        let lock = layout.claim(config.cluster.as_ref())?;
        let started = Instant::now();
        let found = scan::scan(&layout)?;
        let blocks = Self {
            layout,
            files: Files::new(config.faults),
            device,
            counters: DiskCounters::default(),
            cluster: config.cluster,
            lock: Mutex::new(lock),
            index: Index::new(config.capacity),
            capacity: config.capacity,
            names: Mutex::default(),
            used: AtomicU64::new(0),
            next_tmp: AtomicU64::new(0),
        };
        blocks.restore(found);
        debug!(
            blocks = blocks.index.len(),
            bytes = blocks.used(),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "block directory scanned"
        );
        Ok(blocks)
    }

    /// Whether the block can be read, as far as is known. Never waits.
    pub(super) fn contains(&self, id: &BlockId) -> bool {
        self.device.admits(Access::Read) && self.index.is_ready(id)
    }

    pub(super) fn read(&self, id: &BlockId, offset: u32, len: u32) -> Option<Hit> {
        if !self.device.admits(Access::Read) {
            return None;
        }
        let entry = self.index.use_ready(id)?;
        if u64::from(offset) + u64::from(len) > u64::from(entry.len) {
            return None;
        }
        let running = self.device.begin(Access::Read);
        let path = self.layout.block(id);
        let read = match self.files.open(&path) {
            Ok(file) => format::read(&file, id, entry.len, offset, len),
            Err(error) => Err(error.into()),
        };
        match read {
            Ok(hit) => {
                running.succeeded();
                Some(hit)
            }
            // Evicted between the lookup and the read.
            Err(_) if entry.state() != State::Ready => None,
            Err(error) => {
                if self.is_lost(id, error, running) {
                    self.drop_block(id, Some(&entry));
                }
                None
            }
        }
    }

    /// The file of a block, with the checksums of its pages, which themselves are not read.
    pub(super) fn share(&self, id: &BlockId) -> Option<SharedFile> {
        if !self.device.admits(Access::Read) {
            return None;
        }
        let entry = self.index.use_ready(id)?;
        let running = self.device.begin(Access::Read);
        let path = self.layout.block(id);
        let opened = self.files.open(&path).map_err(ReadError::from);
        let opened = opened.and_then(|file| {
            let checksums = format::read_checksums(&file, id, entry.len)?;
            Ok((file.into_file(), checksums))
        });
        match opened {
            Ok((file, checksums)) => {
                running.succeeded();
                Some(SharedFile {
                    file,
                    start: 0,
                    len: entry.len,
                    checksums,
                })
            }
            // Evicted between the lookup and the opening.
            Err(_) if entry.state() != State::Ready => None,
            Err(error) => {
                if self.is_lost(id, error, running) {
                    self.drop_block(id, Some(&entry));
                }
                None
            }
        }
    }

    /// Says and counts why a block cannot be read; whether it is to be dropped for that.
    pub(super) fn is_lost(&self, id: &BlockId, error: ReadError, running: Running<'_>) -> bool {
        let dir = self.device.dir().display();
        match error {
            ReadError::Damaged(why) => {
                self.counters.corrupt.inc();
                warn!(block = %id, %dir, why, "damaged block dropped");
                running.succeeded();
                true
            }
            ReadError::Io(error) if is_ours(&error) => {
                debug!(block = %id, %dir, %error, "cannot read a block now");
                false
            }
            ReadError::Io(error) => {
                self.counters.errors.inc();
                warn!(block = %id, %dir, %error, "unreadable block dropped");
                running.failed(&error);
                true
            }
        }
    }

    /// Writes a block, evicting others if need be, and counts what became of it.
    pub(super) fn write(&self, id: BlockId, block: &Block) -> Admission {
        self.counters.inserted(self.try_write(id, block))
    }

    fn try_write(&self, id: BlockId, block: &Block) -> Admission {
        let size = format::footprint(block.data.len());
        if size > self.capacity || u32::try_from(block.data.len()).is_err() {
            return Admission::Refused(Refusal::TooLarge);
        }
        if !self.device.admits(Access::Write) {
            return Admission::Refused(Refusal::Out);
        }
        let running = self.device.begin(Access::Write);
        let len = block.data.len() as u32;
        let entry = Arc::new(Entry::new(len, size, block.policy, State::Writing));
        if let Err(admission) = self.reserve(id, &entry) {
            return admission;
        }
        let tmp = self.next_tmp();
        let written = format::write(&self.files, &tmp, &id, block).and_then(|()| {
            self.layout.ensure_parent(&self.files, &id)?;
            self.publish(&id, &entry, &tmp)
        });
        match written {
            Ok(admission) => {
                running.succeeded();
                admission
            }
            Err(error) => {
                self.abandon(&id, &entry, &tmp);
                self.counters.errors.inc();
                if !is_ours(&error) {
                    running.failed(&error);
                }
                Admission::Refused(Refusal::of(&error))
            }
        }
    }

    /// A name under `tmp/` that nothing had before.
    fn next_tmp(&self) -> PathBuf {
        let number = self.next_tmp.fetch_add(1, Ordering::Relaxed);
        self.layout.tmp(number)
    }

    /// Drops a block on request.
    pub(super) fn remove(&self, id: &BlockId) {
        let _running = self.device.begin(Access::Write);
        let _names = self.names.lock();
        if let Some(entry) = self.index.remove(id)
            && self.discard(id, &entry)
        {
            self.counters.removed.inc();
        }
    }

    /// Drops a block that cannot be read, if its entry is still this one or any will do.
    pub(super) fn drop_block(&self, id: &BlockId, entry: Option<&Arc<Entry>>) {
        let _running = self.device.begin(Access::Write);
        let _names = self.names.lock();
        let removed = match entry {
            Some(entry) => {
                let same = self.index.remove_exactly(id, entry);
                same.then(|| Arc::clone(entry))
            }
            None => self.index.remove(id),
        };
        if let Some(entry) = removed
            && self.discard(id, &entry)
        {
            self.counters.dropped.inc();
        }
    }

    /// Forgets all blocks: their directory is gone.
    pub(super) fn forget_all(&self) {
        let _names = self.names.lock();
        for (_, entry) in self.index.drain() {
            // What is still being written is left to its writer.
            if entry.take() == State::Ready {
                self.sub(entry.size);
                self.counters.lost.inc();
            }
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Makes room for an entry and enters it, or says why not.
    fn reserve(&self, id: BlockId, entry: &Arc<Entry>) -> Result<(), Admission> {
        let _names = self.names.lock();
        if self.index.contains(&id) {
            return Err(Admission::Present);
        }
        let (taken, gone) = self.index.insert(id, entry);
        self.evict(gone);
        if !taken {
            return Err(Admission::Refused(Refusal::Held));
        }
        // Room that only blocks still being written could give is not room.
        if self.used() + entry.size > self.capacity {
            self.index.remove(&id);
            self.index.written(&id, entry);
            entry.set(State::Gone);
            return Err(Admission::Refused(Refusal::Busy));
        }
        self.add(entry.size);
        Ok(())
    }

    /// Discards blocks that had to make room.
    fn evict(&self, gone: Vec<(BlockId, Arc<Entry>)>) {
        for (victim, entry) in gone {
            if self.discard(&victim, &entry) {
                self.counters.evictions.inc();
            }
        }
    }

    /// Gives a written file its name, unless its entry has left the index meanwhile.
    fn publish(&self, id: &BlockId, entry: &Arc<Entry>, tmp: &Path) -> io::Result<Admission> {
        let _names = self.names.lock();
        let admission = if entry.state() == State::Writing {
            self.files.rename(tmp, &self.layout.block(id))?;
            entry.set(State::Ready);
            Admission::Accepted
        } else {
            self.unlink(tmp, entry.size)?;
            Admission::Evicted
        };
        self.index.written(id, entry);
        Ok(admission)
    }

    /// Takes back what [`reserve`](Self::reserve) did.
    fn abandon(&self, id: &BlockId, entry: &Arc<Entry>, tmp: &Path) {
        let _names = self.names.lock();
        self.index.remove_exactly(id, entry);
        self.index.written(id, entry);
        entry.set(State::Gone);
        if self.unlink(tmp, entry.size).is_err() {
            // It still takes room; the next start removes it.
            self.counters.errors.inc();
        }
    }

    /// Unlinks the file of an entry that has left the index; true if it had its name. One
    /// that is still being written is left to its writer.
    fn discard(&self, id: &BlockId, entry: &Entry) -> bool {
        if entry.take() != State::Ready {
            return false;
        }
        if let Err(error) = self.unlink(&self.layout.block(id), entry.size) {
            // It still takes room, so it stays accounted for; a restart finds it again.
            self.counters.errors.inc();
            let dir = self.device.dir().display();
            warn!(block = %id, %dir, %error, "cannot remove a block");
        }
        true
    }

    /// Removes a file of `size` bytes from the disk and from the account, unless it is still
    /// there afterwards.
    fn unlink(&self, path: &Path, size: u64) -> io::Result<()> {
        match self.files.remove(path) {
            // A read-only file system says no before it looks.
            Err(error) if !Files::is_gone(path) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.sub(size);
        Ok(())
    }

    fn add(&self, size: u64) {
        self.used.fetch_add(size, Ordering::Relaxed);
    }

    fn sub(&self, size: u64) {
        self.used.fetch_sub(size, Ordering::Relaxed);
    }

    /// Enters the blocks that a scan found, oldest first.
    pub(super) fn restore(&self, found: Vec<scan::Found>) {
        let _names = self.names.lock();
        for file in found {
            let entry = Entry::new(file.len, file.size, file.policy, State::Ready);
            let entry = Arc::new(entry);
            self.counters.found.inc();
            self.add(file.size);
            if file.size > self.capacity {
                self.evict(vec![(file.id, entry)]);
                continue;
            }
            let (taken, gone) = self.index.insert(file.id, &entry);
            self.evict(gone);
            if !taken {
                self.evict(vec![(file.id, entry)]);
            }
        }
    }
}

/// Whether an error says more of this process than of the disk.
fn is_ours(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}
