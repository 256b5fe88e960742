//! Files fetched before they are opened: those of a hint list, and the next ones of a
//! directory that is read in order.
//!
//! | module | holds |
//! |---|---|
//! | `list` | what will be read, as it is written |
//! | `schedule` | how far ahead of its readers a list is fetched; pure |
//! | `siblings` | which directories are read in order; pure |
//! | `run` | the task of a list |
//! | `ahead` | fetching one file, or a part of it |
//! | `record` | traces of what was opened |
//!
//! All of it is a help, never a duty: what cannot be fetched ahead is counted and left to its
//! reader, and data fetched ahead uses only memory that [`Budget`](crate::budget::Budget)
//! has for it.

mod ahead;
mod list;
mod record;
mod run;
mod schedule;
mod siblings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use futures::StreamExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::attr::FileKind;
use crate::core::Core;
use crate::fetch::OpenFile;
use crate::listing;

pub use list::HintList;
pub(crate) use record::Recorder;
pub use record::Trace;
use run::Run;
pub(crate) use siblings::Names;
use siblings::{Advice, Siblings};

/// What a client fetches ahead of opens.
#[derive(Debug)]
pub(crate) struct Prefetch {
    run: Mutex<Option<Arc<Run>>>,
    /// Whether reads have to be told to `run`: 0 no, 1 opens, 2 each read.
    pub(crate) watch: AtomicU8,
    siblings: Mutex<Siblings>,
    /// What readers open, for replay.
    pub(crate) recorder: Recorder,
    /// Files under way.
    gate: Arc<Semaphore>,
    counts: Counts,
}

/// Counted over the life of the client.
#[derive(Debug, Default)]
struct Counts {
    lists: AtomicU64,
    files: AtomicU64,
    errors: AtomicU64,
    siblings: AtomicU64,
}

/// How far fetching ahead has come.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefetchProgress {
    /// Hint lists taken so far.
    pub lists: u64,
    /// Whether a list is being fetched now.
    pub running: bool,
    /// Entries of the present list.
    pub entries: u64,
    /// Its lines that are no paths.
    pub bad_lines: u64,
    /// Its entries that were begun or passed over.
    pub passed: u64,
    /// Its entries that were read by someone.
    pub read: u64,
    /// Its entries that are in memory, or on their way, and not read yet.
    pub files_ahead: u64,
    /// Their bytes.
    pub bytes_ahead: u64,
    /// Files of lists fetched so far.
    pub files: u64,
    /// Files of lists that could not be fetched: gone, no files, or no source has them.
    pub errors: u64,
    /// Files fetched because those before them in their directory were opened.
    pub siblings: u64,
    /// The name of the trace that is recorded now.
    pub recording: Option<String>,
}

/// Files that are looked up or fetched ahead at a time: enough to hide 100 ms of latency
/// behind files that take 3 ms to use.
const AT_ONCE: usize = 32;

/// The most files that a reader of a directory is read ahead of.
const MOST_SIBLINGS: u64 = 64;

/// Pages of a listing that are read to learn the order of a directory.
const MOST_PAGES: usize = 10;

impl Default for Prefetch {
    fn default() -> Self {
        Self {
            run: Mutex::default(),
            watch: AtomicU8::new(0),
            siblings: Mutex::default(),
            recorder: Recorder::default(),
            gate: Arc::new(Semaphore::new(AT_ONCE)),
            counts: Counts::default(),
        }
    }
}

impl Prefetch {
    /// How far it has come.
    pub(crate) fn progress(&self) -> PrefetchProgress {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut progress = PrefetchProgress {
            lists: count(&self.counts.lists),
            files: count(&self.counts.files),
            errors: count(&self.counts.errors),
            siblings: count(&self.counts.siblings),
            recording: self.recorder.current().map(|name| name.to_string()),
            ..PrefetchProgress::default()
        };
        if let Some(run) = &*self.run.lock() {
            run.describe(&mut progress);
        }
        progress
    }

    /// Takes the names of a directory in the order of its listing.
    pub(crate) fn learn(&self, dir: &str, names: Names) {
        // The root is "" here, as it is before the last `/` of a path.
        let dir = dir.trim_end_matches('/');
        self.siblings.lock().learn(dir, names);
    }
}

impl Core {
    /// Fetches the entries of `list` ahead of their readers, in place of the list before.
    /// An empty list ends fetching ahead.
    pub(crate) fn prefetch(self: &Arc<Self>, list: HintList) {
        let prefetch = &self.prefetch;
        prefetch.watch.store(0, Ordering::Relaxed);
        let mut present = prefetch.run.lock();
        if let Some(before) = present.take() {
            before.cancel();
        }
        if list.is_empty() && list.bad_lines() == 0 {
            return;
        }
        prefetch.counts.lists.fetch_add(1, Ordering::Relaxed);
        if list.bad_lines() > 0 {
            tracing::warn!(
                lines = list.bad_lines(),
                "lines of a hint list are no paths"
            );
        }
        let watch = if list.has_parts() { 2 } else { 1 };
        let run = Run::start(self, list);
        *present = Some(run);
        prefetch.watch.store(watch, Ordering::Relaxed);
    }

    /// Takes note that a reader opened `file`.
    pub(crate) fn note_open(self: &Arc<Self>, file: &OpenFile) {
        self.prefetch.recorder.opened(&file.path);
        if self.prefetch.watch.load(Ordering::Relaxed) > 0 {
            self.prefetch.tell(&file.path, None);
        } else {
            self.fetch_siblings(file);
        }
    }

    /// Takes note that a reader reads `file` at `offset`. Costs one load while no list of
    /// parts is fetched.
    pub(crate) fn note_read(&self, file: &OpenFile, offset: u64) {
        if self.prefetch.watch.load(Ordering::Relaxed) == 2 {
            self.prefetch.tell(&file.path, Some(offset));
        }
    }

    fn fetch_siblings(self: &Arc<Self>, file: &OpenFile) {
        let Some((dir, name)) = file.path.rsplit_once('/') else {
            return;
        };
        // An eighth of the tier, at the size of the file at hand.
        let room = self.memory.capacity() / 8 / file.size.clamp(1, ahead::MOST_OF_A_SIBLING);
        let limit = room.clamp(1, MOST_SIBLINGS) as u32;
        let advice = self.prefetch.siblings.lock().opened(dir, name, limit);
        match advice {
            Advice::Nothing => {}
            Advice::List => {
                let core = Arc::clone(self);
                let dir = dir.to_owned();
                self.tasks.start(async move { learn(&core, dir).await });
            }
            Advice::Fetch(names) => {
                for name in names {
                    // Readers are faster than this when the gate is closed.
                    let Ok(turn) = Arc::clone(&self.prefetch.gate).try_acquire_owned() else {
                        return;
                    };
                    let path = format!("{dir}/{name}");
                    let core = Arc::clone(self);
                    self.tasks.start(async move {
                        if ahead::fetch_sibling(&core, &path).await.is_ok() {
                            core.prefetch
                                .counts
                                .siblings
                                .fetch_add(1, Ordering::Relaxed);
                        }
                        drop(turn);
                    });
                }
            }
        }
    }
}

impl Prefetch {
    fn tell(&self, path: &str, offset: Option<u64>) {
        let run = self.run.lock().as_ref().map(Arc::clone);
        if let Some(run) = run {
            run.read(path, offset);
        }
    }
}

/// Lists `dir` to learn the order of its names, as far as that is cheap.
async fn learn(core: &Arc<Core>, dir: String) {
    let path = if dir.is_empty() {
        "/".to_owned()
    } else {
        dir.clone()
    };
    let mut pages = listing::list(Arc::clone(core), path);
    let mut names = Names::default();
    for _ in 0..MOST_PAGES {
        match pages.next().await {
            Some(Ok(page)) => {
                let files = page
                    .entries()
                    .iter()
                    .filter(|e| e.attr.kind == FileKind::File);
                files.for_each(|entry| names.push(&entry.name));
            }
            Some(Err(_)) | None => break,
        }
    }
    core.prefetch.learn(&dir, names);
}
