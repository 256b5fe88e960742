//! Descriptors of block files that were received: so many reads of one block ask for it once.

use std::sync::Arc;
use std::time::Duration;

use hashlink::LruCache;
use millpond_proto::BlockId;
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};

use super::file::BlockFile;
use crate::metrics::ClientMetrics;

/// The most descriptors, where the process may open files enough for them.
const MOST: usize = 1024;

/// They take at most this part of the files that the process may open.
const SHARE_OF_FILES: u64 = 8;

/// How long a descriptor is used: then the node is asked again, and so learns that its block
/// is still in use.
const LIFE: Duration = Duration::from_secs(10);

/// How often descriptors are looked through for those to be closed.
pub(super) const SWEEP: Duration = Duration::from_secs(1);

/// The descriptors of one client, of all nodes on its host: a block is the same everywhere.
///
/// - At most [`MOST`], and at most an eighth of the files that the process may open.
/// - None is used for longer than [`LIFE`], and none of a block that the node has dropped is
///   kept for longer than [`SWEEP`]: it would hold on to room on the node's disk.
pub(super) struct Descriptors {
    files: Mutex<Files>,
    capacity: usize,
    metrics: Arc<ClientMetrics>,
}

struct Files {
    by_block: LruCache<BlockId, Arc<BlockFile>>,
    /// Somebody calls [`Descriptors::sweep`] until it says that nothing is left.
    swept: bool,
}

impl Descriptors {
    pub(super) fn new(metrics: Arc<ClientMetrics>) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let capacity = usize::try_from(limit / SHARE_OF_FILES).unwrap_or(MOST);
        Self::with_capacity(capacity.min(MOST), metrics)
    }

    fn with_capacity(capacity: usize, metrics: Arc<ClientMetrics>) -> Self {
        Self {
            files: Mutex::new(Files {
                by_block: LruCache::new(capacity),
                swept: false,
            }),
            capacity,
            metrics,
        }
    }

    /// The file of a block, if there is one that may still be used.
    pub(super) fn of(&self, block: &BlockId) -> Option<Arc<BlockFile>> {
        let mut files = self.files.lock();
        let file = files.by_block.get(block)?;
        (file.received.elapsed() < LIFE).then(|| Arc::clone(file))
    }

    /// Keeps a file for later reads. Whether the caller must see to it that
    /// [`sweep`](Self::sweep) is called from now on.
    pub(super) fn keep(&self, block: BlockId, file: Arc<BlockFile>) -> bool {
        if self.capacity == 0 {
            return false;
        }
        let mut files = self.files.lock();
        files.by_block.insert(block, file);
        self.show(&files);
        !std::mem::replace(&mut files.swept, true)
    }

    /// Closes a file, unless another one has taken its place.
    pub(super) fn forget(&self, block: &BlockId, file: &Arc<BlockFile>) {
        let mut files = self.files.lock();
        let is_it = files
            .by_block
            .peek(block)
            .is_some_and(|f| Arc::ptr_eq(f, file));
        if is_it {
            files.by_block.remove(block);
        }
        self.show(&files);
    }

    /// Closes all.
    pub(super) fn clear(&self) {
        let mut files = self.files.lock();
        files.by_block.clear();
        self.show(&files);
    }

    /// Closes those that are not to be used any more; whether any are left.
    pub(super) fn sweep(&self) -> bool {
        let all: Vec<_> = {
            let files = self.files.lock();
            let pairs = files.by_block.iter();
            pairs.map(|(id, file)| (*id, Arc::clone(file))).collect()
        };
        for (block, file) in all {
            if file.received.elapsed() >= LIFE || file.is_unlinked() {
                self.forget(&block, &file);
            }
        }
        let mut files = self.files.lock();
        files.swept = !files.by_block.is_empty();
        files.swept
    }

    fn show(&self, files: &Files) {
        let count = i64::try_from(files.by_block.len()).unwrap_or(i64::MAX);
        self.metrics.descriptors.set(count);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use millpond_proto::wire::frame::Tier;
    use millpond_proto::{Epoch, FileId};

    use super::*;

    fn open(dir: &std::path::Path) -> Arc<BlockFile> {
        let path = dir.join("block");
        if !path.exists() {
            std::fs::write(&path, b"1").unwrap();
        }
        let file = File::open(path).unwrap();
        Arc::new(BlockFile::new(file.into(), 0, 1, vec![0], Tier::Disk, Epoch(1)).unwrap())
    }

    fn block(n: u64) -> BlockId {
        BlockId::new(FileId([1; 16]), n)
    }

    #[test]
    fn the_least_used_make_room_and_the_count_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(ClientMetrics::default());
        let kept = Descriptors::with_capacity(2, Arc::clone(&metrics));
        assert!(
            kept.keep(block(1), open(dir.path())),
            "the first needs a sweeper"
        );
        assert!(!kept.keep(block(2), open(dir.path())));
        assert!(kept.of(&block(1)).is_some());
        kept.keep(block(3), open(dir.path()));
        assert!(kept.of(&block(2)).is_none());
        assert!(kept.of(&block(1)).is_some() && kept.of(&block(3)).is_some());
        assert_eq!(metrics.descriptors.get(), 2);
        kept.clear();
        assert_eq!(metrics.descriptors.get(), 0);
        assert!(!kept.sweep());
        assert!(kept.keep(block(1), open(dir.path())), "swept no more");
    }

    #[test]
    fn those_of_dropped_blocks_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Descriptors::with_capacity(4, Arc::default());
        kept.keep(block(1), open(dir.path()));
        std::fs::remove_file(dir.path().join("block")).unwrap();
        kept.keep(block(2), open(dir.path()));
        assert!(kept.of(&block(1)).is_some(), "it can be read until then");
        assert!(kept.sweep());
        assert!(kept.of(&block(1)).is_none() && kept.of(&block(2)).is_some());
    }

    #[test]
    fn a_file_is_forgotten_once_and_its_successor_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Descriptors::with_capacity(4, Arc::default());
        let (old, new) = (open(dir.path()), open(dir.path()));
        kept.keep(block(1), Arc::clone(&old));
        kept.keep(block(1), new);
        kept.forget(&block(1), &old);
        assert!(kept.of(&block(1)).is_some());
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Descriptors::with_capacity(0, Arc::default());
        assert!(!kept.keep(block(1), open(dir.path())));
        assert!(kept.of(&block(1)).is_none());
    }
}
