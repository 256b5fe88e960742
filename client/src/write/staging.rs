//! The room for what is written and not in a store yet: a directory, and a budget.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The most memory that all small drafts of a client take together.
const MEMORY: u64 = 64 << 20;

/// The most memory for parts of files on their way to the stores, in KiB.
const SENDING_KIB: u32 = 128 << 10;

/// Where the drafts of one client put their bytes.
///
/// - All drafts together take no more than the budgets, and a draft that ends gives back what
///   it took.
#[derive(Debug)]
pub(crate) struct Staging {
    /// The system's directory for temporary files if none is given.
    dir: Option<PathBuf>,
    disk: Budget,
    memory: Budget,
    /// Memory for parts on their way, in KiB.
    sending: Semaphore,
    files: AtomicU64,
}

#[derive(Debug)]
struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Staging {
    /// Staging files in `dir`, of no more than `limit` bytes together. Nothing is made before
    /// it is needed.
    pub(crate) fn new(dir: Option<PathBuf>, limit: u64) -> Arc<Self> {
        Arc::new(Self {
            dir,
            disk: Budget::new(limit),
            memory: Budget::new(MEMORY),
            sending: Semaphore::new(SENDING_KIB as usize),
            files: AtomicU64::new(0),
        })
    }

    /// The most bytes of all staging files together.
    pub(crate) const fn limit(&self) -> u64 {
        self.disk.limit
    }

    /// The directory that was given.
    pub(super) fn dir(&self) -> Option<PathBuf> {
        self.dir.clone()
    }

    /// Waits for memory for a part of `len` bytes. One that is longer than all of it is alone.
    pub(super) async fn memory_to_send(&self, len: u64) -> Option<SemaphorePermit<'_>> {
        let kib = len.div_ceil(1024).min(u64::from(SENDING_KIB)) as u32;
        // It is never closed.
        self.sending.acquire_many(kib).await.ok()
    }

    /// A new file that nobody else can reach, and that is gone when it is closed.
    pub(super) fn create_file(&self) -> io::Result<File> {
        let dir = match &self.dir {
            Some(dir) => {
                fs::create_dir_all(dir)?;
                dir.clone()
            }
            None => std::env::temp_dir(),
        };
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "millpond-{}-{number}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        );
        let path = dir.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }
}

impl Budget {
    const fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.limit)
            });
        taken.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one draft takes of a budget; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    staging: Arc<Staging>,
    on_disk: bool,
    bytes: AtomicU64,
}

impl Held {
    /// Nothing yet, on disk.
    pub(super) fn on_disk(staging: &Arc<Staging>) -> Self {
        Self::new(staging, true)
    }

    /// Nothing yet, in memory.
    pub(super) fn in_memory(staging: &Arc<Staging>) -> Self {
        Self::new(staging, false)
    }

    fn new(staging: &Arc<Staging>, on_disk: bool) -> Self {
        Self {
            staging: Arc::clone(staging),
            on_disk,
            bytes: AtomicU64::new(0),
        }
    }

    fn budget(&self) -> &Budget {
        match self.on_disk {
            true => &self.staging.disk,
            false => &self.staging.memory,
        }
    }

    /// Takes as many bytes more or less as it is then `bytes`; says whether there was room.
    /// One draft does so one at a time.
    pub(super) fn set(&self, bytes: u64) -> bool {
        let before = self.bytes.load(Ordering::Relaxed);
        if bytes > before && !self.budget().take(bytes - before) {
            return false;
        }
        if bytes < before {
            self.budget().give_back(before - bytes);
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget().give_back(self.bytes.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_all_is_given_back() {
        let staging = Staging::new(None, 100);
        let (a, b) = (Held::on_disk(&staging), Held::on_disk(&staging));
        assert!(a.set(60) && b.set(40));
        assert!(!a.set(61));
        assert!(b.set(10) && a.set(90) && !b.set(11));
        drop(a);
        assert!(b.set(100));
        drop(b);
        assert_eq!(staging.disk.used.load(Ordering::Relaxed), 0);
    }
}
