//! Which blocks are on disk, and which one goes next.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use foyer::{Cache, CacheBuilder, Event, EventListener, S3FifoConfig};
use millpond_proto::BlockId;
use parking_lot::Mutex;

/// What is known of one block without opening its file.
#[derive(Debug)]
pub(super) struct Entry {
    /// Length of the block in bytes.
    pub(super) len: u32,
    /// Bytes that the file takes on disk.
    pub(super) size: u64,
    state: AtomicU8,
}

/// Where a block is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// Its file is under `tmp/`.
    Writing = 0,
    /// Its file has its name.
    Ready = 1,
    /// It has left the index.
    Gone = 2,
}

impl Entry {
    pub(super) const fn new(len: u32, size: u64, state: State) -> Self {
        Self {
            len,
            size,
            state: AtomicU8::new(state as u8),
        }
    }

    pub(super) fn state(&self) -> State {
        State::of(self.state.load(Ordering::Acquire))
    }

    pub(super) fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Marks the entry gone and returns what it was.
    pub(super) fn take(&self) -> State {
        State::of(self.state.swap(State::Gone as u8, Ordering::AcqRel))
    }
}

impl State {
    const fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Writing,
            1 => Self::Ready,
            _ => Self::Gone,
        }
    }
}

type Evicted = Vec<(BlockId, Arc<Entry>)>;

/// The index. Weighed in bytes on disk and evicted by S3-FIFO; one shard, so that the limit
/// is exact. Changes are made with the
/// tier's names locked, lookups without.
pub(super) struct Index {
    cache: Cache<BlockId, Arc<Entry>>,
    evicted: Arc<Mutex<Evicted>>,
    /// Blocks in the cache whose file has no name yet: a lookup in `cache` that shows the
    /// entry would count as a use.
    writing: Mutex<HashMap<BlockId, Arc<Entry>>>,
}

impl Index {
    pub(super) fn new(capacity: u64) -> Self {
        let evicted = Arc::new(Mutex::new(Vec::new()));
        let listener = Collector(Arc::clone(&evicted));
        let cache = CacheBuilder::new(usize::try_from(capacity).unwrap_or(usize::MAX))
            .with_name("disk")
            .with_shards(1)
            .with_eviction_config(S3FifoConfig::default())
            .with_weighter(|_: &BlockId, entry: &Arc<Entry>| entry.size as usize)
            .with_event_listener(Arc::new(listener))
            .build();
        Self {
            cache,
            evicted,
            writing: Mutex::default(),
        }
    }

    /// The entry of a block whose file has its name. Counts as a use.
    pub(super) fn use_ready(&self, id: &BlockId) -> Option<Arc<Entry>> {
        let entry = Arc::clone(self.cache.get(id)?.value());
        (entry.state() == State::Ready).then_some(entry)
    }

    /// Whether the block's file has its name. Does not count as a use.
    pub(super) fn is_ready(&self, id: &BlockId) -> bool {
        self.cache.contains(id) && !self.writing.lock().contains_key(id)
    }

    /// Whether there is an entry, ready or not.
    pub(super) fn contains(&self, id: &BlockId) -> bool {
        self.cache.contains(id)
    }

    /// Enters a block and returns those that had to leave, which the caller must discard.
    pub(super) fn insert(&self, id: BlockId, entry: Arc<Entry>) -> Evicted {
        if entry.state() == State::Writing {
            self.writing.lock().insert(id, Arc::clone(&entry));
        }
        self.cache.insert(id, entry);
        std::mem::take(&mut *self.evicted.lock())
    }

    /// This entry became ready, or its writer has given up.
    pub(super) fn written(&self, id: &BlockId, entry: &Arc<Entry>) {
        let mut writing = self.writing.lock();
        // After an eviction another writer may have begun on the same block.
        if writing.get(id).is_some_and(|e| Arc::ptr_eq(e, entry)) {
            writing.remove(id);
        }
    }

    pub(super) fn remove(&self, id: &BlockId) -> Option<Arc<Entry>> {
        self.cache.remove(id).map(|e| Arc::clone(e.value()))
    }

    /// Removes a block if its entry is this one; says whether it was.
    pub(super) fn remove_exactly(&self, id: &BlockId, entry: &Arc<Entry>) -> bool {
        let same = self
            .cache
            .get(id)
            .is_some_and(|e| Arc::ptr_eq(e.value(), entry));
        if same {
            self.cache.remove(id);
        }
        same
    }

    pub(super) fn len(&self) -> u64 {
        self.cache.entries() as u64
    }
}

/// Remembers what an insert pushed out. foyer calls it outside its own lock, on the thread
/// that inserts.
struct Collector(Arc<Mutex<Evicted>>);

impl EventListener for Collector {
    type Key = BlockId;
    type Value = Arc<Entry>;

    fn on_leave(&self, reason: Event, id: &BlockId, entry: &Arc<Entry>) {
        // Removals are the caller's own doing, and closing the index drops no block.
        if reason == Event::Evict {
            self.0.lock().push((*id, Arc::clone(entry)));
        }
    }
}
