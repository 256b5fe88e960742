//! The task of one hint list.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::list::HintList;
use super::schedule::{Bounds, Schedule};
use super::{PrefetchProgress, ahead};
use crate::core::Core;
use crate::error::ClientError;
use crate::fetch::OpenFile;

/// Files that a list is fetched ahead of its readers.
const FILES_AHEAD: usize = 256;

/// The most bytes that a list is fetched ahead of its readers.
const MOST_AHEAD: u64 = 1 << 30;

/// A list that is fetched, or was.
#[derive(Debug)]
pub(super) struct Run {
    list: HintList,
    bounds: Bounds,
    schedule: Mutex<Schedule>,
    /// Readers moved on.
    moved: Notify,
    token: CancellationToken,
    read: AtomicU64,
}

/// What one of the futures of a run has to say.
enum Event {
    Found(u32, Result<OpenFile, ClientError>),
    Fetched(Result<(), ClientError>),
}

type Work = FuturesUnordered<BoxFuture<'static, Event>>;

impl Run {
    /// Starts to fetch `list`.
    pub(super) fn start(core: &Arc<Core>, list: HintList) -> Arc<Self> {
        let bounds = Bounds {
            files: FILES_AHEAD,
            // As much as all sequential readers together may have ahead of them.
            bytes: (core.memory.capacity() / 4).min(MOST_AHEAD),
        };
        let run = Arc::new(Self {
            bounds,
            schedule: Mutex::new(Schedule::new(list.len(), bounds)),
            list,
            moved: Notify::new(),
            token: CancellationToken::new(),
            read: AtomicU64::new(0),
        });
        let task = go(Arc::clone(&run), Arc::downgrade(core));
        core.tasks.start(task);
        run
    }

    /// Ends it. What is on its way still arrives.
    pub(super) fn cancel(&self) {
        self.token.cancel();
    }

    /// Takes note that a reader opened `path`, or read it at `offset`.
    pub(super) fn read(&self, path: &str, offset: Option<u64>) {
        let fitting = self.list.find(path, offset);
        if self.schedule.lock().read(fitting).is_some() {
            self.read.fetch_add(1, Ordering::Relaxed);
            self.moved.notify_one();
        }
    }

    pub(super) fn describe(&self, progress: &mut PrefetchProgress) {
        let schedule = self.schedule.lock();
        let (files, bytes) = schedule.ahead();
        progress.running = !schedule.is_done();
        progress.entries = self.list.len().into();
        progress.bad_lines = self.list.bad_lines();
        progress.passed = schedule.passed().into();
        progress.read = self.read.load(Ordering::Relaxed);
        progress.files_ahead = files as u64;
        progress.bytes_ahead = bytes;
    }
}

/// Fetches the list until all of it was fetched, it is replaced, or the client goes.
async fn go(run: Arc<Run>, core: Weak<Core>) {
    let mut work = Work::new();
    // Files that were looked up and wait for room, by entry.
    let mut waiting = HashMap::new();
    loop {
        // No hold on the client while readers are waited for.
        let Some(held) = core.upgrade() else { return };
        run.start_work(&held, &mut waiting, &mut work);
        drop(held);
        if work.is_empty() && run.schedule.lock().is_done() {
            return;
        }
        tokio::select! {
            () = run.token.cancelled() => return,
            () = run.moved.notified() => {}
            Some(event) = work.next() => {
                let Some(core) = core.upgrade() else { return };
                run.take(&core, event, &mut waiting);
            }
        }
    }
}

impl Run {
    /// Begins what the schedule allows now.
    fn start_work(
        &self,
        core: &Arc<Core>,
        waiting: &mut HashMap<u32, Arc<OpenFile>>,
        work: &mut Work,
    ) {
        let mut schedule = self.schedule.lock();
        while let Some(index) = schedule.begin() {
            work.push(Box::pin(look_up(
                Arc::clone(core),
                self.list.path(index).to_owned(),
                index,
            )));
        }
        while let Some(index) = schedule.admit() {
            match waiting.remove(&index) {
                Some(file) => {
                    let range = self.range(index, &file);
                    work.push(Box::pin(fetch(Arc::clone(core), file, range)));
                }
                None => schedule.failed(index),
            }
        }
        // Readers came to some before there was room.
        waiting.retain(|index, _| schedule.wants(*index));
    }

    fn take(&self, core: &Core, event: Event, waiting: &mut HashMap<u32, Arc<OpenFile>>) {
        let counts = &core.prefetch.counts;
        let failed = |error: ClientError| {
            tracing::debug!(%error, "not fetched ahead");
            counts.errors.fetch_add(1, Ordering::Relaxed);
        };
        match event {
            Event::Found(index, Ok(file)) => {
                let Range { start, end } = self.range(index, &file);
                let mut schedule = self.schedule.lock();
                if schedule.wants(index) {
                    schedule.found(index, end - start);
                    waiting.insert(index, Arc::new(file));
                }
            }
            Event::Found(index, Err(error)) => {
                self.schedule.lock().failed(index);
                failed(error);
            }
            Event::Fetched(Ok(())) => {
                counts.files.fetch_add(1, Ordering::Relaxed);
            }
            Event::Fetched(Err(error)) => failed(error),
        }
    }

    /// What of entry `index` is fetched. Of a large one it is the beginning: its reader has
    /// the readahead of its stream by then.
    fn range(&self, index: u32, file: &OpenFile) -> Range<u64> {
        let part = self.list.part(index);
        let start = part.start.min(file.size);
        let end = part.end.min(file.size);
        start..end.min(start + self.bounds.bytes / 4)
    }
}

async fn look_up(core: Arc<Core>, path: String, index: u32) -> Event {
    let _turn = core.prefetch.gate.acquire().await;
    let file = core.open_file(&path).await;
    Event::Found(index, file.map(|(file, _)| file))
}

async fn fetch(core: Arc<Core>, file: Arc<OpenFile>, range: Range<u64>) -> Event {
    let _turn = core.prefetch.gate.acquire().await;
    Event::Fetched(ahead::fetch(&core, &file, range).await)
}
