//! Which blocks are on disk, and which one goes next.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use foyer::{Cache, CacheBuilder, Event, EventListener, S3FifoConfig};
use millpond_proto::BlockId;
use parking_lot::Mutex;
use tracing::warn;

use crate::hold::{Hold, Share, reserve};
use crate::policy::Policy;

/// What is known of one block without opening its file.
#[derive(Debug)]
pub(super) struct Entry {
    /// Length of the block in bytes.
    pub(super) len: u32,
    /// Bytes that the file takes on disk.
    pub(super) size: u64,
    pub(super) policy: Policy,
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
    pub(super) const fn new(len: u32, size: u64, policy: Policy, state: State) -> Self {
        Self {
            len,
            size,
            policy,
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

/// Blocks that have left the index, to be discarded.
pub(super) type Evicted = Vec<(BlockId, Arc<Entry>)>;

/// The index, weighed in bytes on disk. Blocks under [`Policy::Hold`] are held or refused, the
/// others evicted by S3-FIFO from what is left; one shard, so that the limit is exact. Changes
/// are made with the tier's names locked, lookups without.
#[derive(Debug)]
pub(super) struct Index {
    capacity: u64,
    cache: Cache<BlockId, Arc<Entry>>,
    held: Mutex<Held>,
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
            capacity,
            cache,
            held: Mutex::new(Held {
                blocks: Hold::new(),
                share: Share::new(capacity),
                largest: 0,
            }),
            evicted,
            writing: Mutex::default(),
        }
    }

    /// The entry of a block whose file has its name. Counts as a use.
    pub(super) fn use_ready(&self, id: &BlockId) -> Option<Arc<Entry>> {
        let held = self.held.lock().blocks.get(id).map(Arc::clone);
        let entry = match held {
            Some(entry) => entry,
            None => Arc::clone(self.cache.get(id)?.value()),
        };
        (entry.state() == State::Ready).then_some(entry)
    }

    /// Whether the block's file has its name. Does not count as a use.
    pub(super) fn is_ready(&self, id: &BlockId) -> bool {
        self.contains(id) && !self.writing.lock().contains_key(id)
    }

    /// Whether there is an entry, ready or not.
    pub(super) fn contains(&self, id: &BlockId) -> bool {
        self.held.lock().blocks.peek(id).is_some() || self.cache.contains(id)
    }

    /// Enters a block that is not there, unless it is to be held and there is no room: says
    /// whether it did, and which had to leave, which the caller must discard.
    pub(super) fn insert(&self, id: BlockId, entry: &Arc<Entry>) -> (bool, Evicted) {
        let (taken, mut gone) = self.make_room(&id, entry);
        if !taken {
            return (false, gone);
        }
        if entry.state() == State::Writing {
            self.writing.lock().insert(id, Arc::clone(entry));
        }
        if entry.policy == Policy::ScanResistant {
            self.cache.insert(id, Arc::clone(entry));
        }
        gone.append(&mut self.evicted.lock());
        (true, gone)
    }

    /// Takes a block that is to be held in; gives others the room that the largest needs.
    fn make_room(&self, id: &BlockId, entry: &Arc<Entry>) -> (bool, Evicted) {
        let mut held = self.held.lock();
        held.largest = held.largest.max(entry.size);
        let room = self.capacity - reserve(self.capacity, held.largest);
        let mut gone = held.blocks.shed(room);
        let taken = match entry.policy {
            Policy::ScanResistant => true,
            Policy::Hold => held.blocks.asked(entry.size, room),
        };
        if taken && entry.policy == Policy::Hold {
            gone.extend(held.blocks.insert(*id, entry.size, Arc::clone(entry), room));
        }
        self.settle(&mut held);
        (taken, gone)
    }

    /// Tells the cache what is left for it.
    fn settle(&self, held: &mut Held) {
        if let Some(left) = held.share.taken(held.blocks.bytes()) {
            self.resize(left);
        }
    }

    fn resize(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if let Err(error) = self.cache.resize(bytes) {
            warn!(%error, bytes, "the index of the disk tier cannot be resized");
        }
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
        let mut held = self.held.lock();
        if let Some(entry) = held.blocks.remove(id) {
            self.settle(&mut held);
            return Some(entry);
        }
        drop(held);
        self.cache.remove(id).map(|e| Arc::clone(e.value()))
    }

    /// Removes a block if its entry is this one; says whether it was.
    pub(super) fn remove_exactly(&self, id: &BlockId, entry: &Arc<Entry>) -> bool {
        let held = self.held.lock().blocks.peek(id).map(Arc::clone);
        let found = held.or_else(|| self.cache.get(id).map(|e| Arc::clone(e.value())));
        let same = found.is_some_and(|found| Arc::ptr_eq(&found, entry));
        if same {
            self.remove(id);
        }
        same
    }

    /// Removes all blocks.
    pub(super) fn drain(&self) -> Evicted {
        let mut held = self.held.lock();
        let mut gone = held.blocks.shed(0);
        // To clear the cache would leave what it has accounted for as it is.
        self.resize(0);
        held.share = Share::new(self.capacity);
        self.resize(self.capacity);
        gone.append(&mut self.evicted.lock());
        gone
    }

    /// Bytes on disk of the blocks that are held.
    pub(super) fn held(&self) -> u64 {
        self.held.lock().blocks.bytes()
    }

    pub(super) fn len(&self) -> u64 {
        (self.cache.entries() + self.held.lock().blocks.len()) as u64
    }
}

/// The blocks under [`Policy::Hold`].
#[derive(Debug)]
struct Held {
    blocks: Hold<Arc<Entry>>,
    share: Share,
    /// Bytes on disk of the largest block so far.
    largest: u64,
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
