//! One open directory whose whole listing is in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use millpond_client::{ClientError, Directory, FileSystem};
use parking_lot::Mutex;

use crate::kernel_dirs::{Caching, KernelDirs};

/// A listing that is over sooner is not worth the kernel's while; and what an open handle
/// could read on from the kernel is dropped so much before it is over.
pub(crate) const MARGIN: Duration = Duration::from_secs(5);

/// A handle that reads one listing, and after a rewind perhaps a newer one.
#[derive(Debug)]
pub(crate) struct WholeDir {
    ino: u64,
    listing: Mutex<Arc<Directory>>,
    /// Whether the kernel may cache what this handle reads: it is counted then.
    caches: bool,
    /// Whether the first request is still to tell that the kernel dropped what it had.
    unsettled: AtomicBool,
}

impl WholeDir {
    /// A handle on directory `ino` that reads `listing`, and what the kernel may do with it:
    /// nothing unless it `may_cache`.
    pub(crate) fn open(
        kernel: &KernelDirs<Directory>,
        ino: u64,
        listing: Arc<Directory>,
        may_cache: bool,
    ) -> (Self, Caching) {
        let caching = if may_cache && listing.valid(Instant::now()) >= 2 * MARGIN {
            kernel.open(ino, &listing)
        } else {
            Caching::No
        };
        let whole = Self {
            ino,
            listing: Mutex::new(listing),
            caches: caching != Caching::No,
            unsettled: AtomicBool::new(caching == Caching::Fill),
        };
        (whole, caching)
    }

    /// The listing to go on with, at a request for entries after the first.
    pub(crate) fn listing(&self, kernel: &KernelDirs<Directory>) -> Arc<Directory> {
        let listing = Arc::clone(&self.listing.lock());
        if self.unsettled.swap(false, Ordering::Relaxed) {
            kernel.settle(self.ino, &listing);
        }
        listing
    }

    /// The listing to begin with, perhaps again: what is believed now, listed if need be; the
    /// one that is read already where other handles read it, too, and the kernel must not mix
    /// the two. And whether it was at hand.
    ///
    /// # Errors
    /// Those of [`FileSystem::pages`].
    pub(crate) async fn begin(
        &self,
        kernel: &KernelDirs<Directory>,
        fs: &FileSystem,
        path: &str,
    ) -> Result<(Arc<Directory>, bool), ClientError> {
        let _ = self.listing(kernel);
        let mut fresh = fs.list_cached(path);
        let at_hand = fresh.is_some();
        if !at_hand {
            let mut pages = fs.pages(path);
            while pages.try_next().await?.is_some() {}
            fresh = fs.list_cached(path);
        }
        let mut listing = self.listing.lock();
        if let Some(fresh) = fresh
            && !Arc::ptr_eq(&fresh, &listing)
            && (!self.caches || kernel.renew(self.ino, &listing, &fresh))
        {
            *listing = fresh;
        }
        Ok((Arc::clone(&listing), at_hand))
    }

    /// Notes that the handle is closed.
    pub(crate) fn release(&self, kernel: &KernelDirs<Directory>) {
        if self.caches {
            kernel.release(self.ino);
        }
    }
}
