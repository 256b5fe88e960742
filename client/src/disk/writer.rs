//! What was fetched, on its way to the disk.
//!
//! Ranges wait with their bytes, which are part of the client's memory budget. When that is
//! used up, further ones wait without: they are written if local memory still has them when
//! their turn comes. A few threads write, in the order that ranges came.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millpond_proto::FileId;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::cached::CachedFile;
use super::charge::footprint;
use super::index::path_key;
use super::metrics::{Failure, Offer};
use super::{Inner, LocalDisk, pages};
use crate::budget::{Budget, Permit};
use crate::core::Core;
use crate::fetch::OpenFile;

/// Threads that write.
const WRITERS: usize = 2;

/// The most ranges that wait, however small they are.
const MOST_WAITING: usize = 4096;

/// What waits to be done, and how many are at it.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// How many wait or are being done.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    writers: usize,
}

#[derive(Debug)]
enum Job {
    Write(Write),
    /// The same, of bytes that local memory may have.
    Remembered(Remembered),
    /// A file whose successor is known, and that nobody reads.
    Replaced(FileId),
}

/// Whole pages of a file that are to be written.
#[derive(Debug)]
struct Write {
    file: Arc<OpenFile>,
    pages: Range<u64>,
    data: Bytes,
    /// For the memory of all of what `data` is a part of, if nobody else counts it.
    _permit: Option<Permit>,
}

/// A range of a file whose whole pages are to be written.
struct Remembered {
    core: Arc<Core>,
    file: Arc<OpenFile>,
    range: Range<u64>,
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered")
            .field("file", &self.file.id)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }

    /// Waits until nothing waits or is being done, at most `limit`.
    pub(super) async fn drain(&self, limit: Duration) {
        let mut count = self.count.subscribe();
        let _ = tokio::time::timeout(limit, count.wait_for(|count| *count == 0)).await;
    }

    fn is_full(&self) -> bool {
        *self.count.borrow() >= MOST_WAITING
    }

    /// True if a writer is to be started.
    fn push(&self, job: Job) -> bool {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        self.count.send_modify(|count| *count += 1);
        let more = state.writers < WRITERS;
        state.writers += usize::from(more);
        more
    }

    /// The next job; none if the writer that asks is to end.
    fn pop(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.writers -= 1;
        }
        job
    }

    fn done(&self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

impl LocalDisk {
    /// Has the whole pages of `data`, which starts at `start` of the file, written in the
    /// background, unless too much waits already. Never waits.
    pub(crate) fn offer(&self, core: &Arc<Core>, file: &Arc<OpenFile>, start: u64, data: &Bytes) {
        let Some(pages) = self.wanted(file, start, data) else {
            return;
        };
        if self.inner.queue.is_full() {
            self.inner.metrics.count_offer(Offer::Busy);
        } else if let Some(permit) = core.budget.try_spill(data.len() as u32) {
            self.start(Job::Write(Write::of(
                file,
                pages,
                start,
                data,
                Some(permit),
            )));
        } else {
            self.start(Job::Remembered(Remembered {
                core: Arc::clone(core),
                file: Arc::clone(file),
                range: start..start + data.len() as u64,
            }));
        }
    }

    /// The same, but waits for its turn.
    pub(super) async fn put(
        &self,
        budget: &Budget,
        file: &Arc<OpenFile>,
        start: u64,
        data: &Bytes,
    ) {
        if let Some(pages) = self.wanted(file, start, data) {
            let permit = budget.spill(data.len() as u32).await;
            self.start(Job::Write(Write::of(
                file,
                pages,
                start,
                data,
                Some(permit),
            )));
        }
    }

    /// The whole pages of `data`, if they should be written.
    fn wanted(&self, file: &OpenFile, start: u64, data: &Bytes) -> Option<Range<u64>> {
        let range = start..start + data.len() as u64;
        let pages = pages::within(&range, file.size);
        if pages.is_empty() {
            self.inner.metrics.count_offer(Offer::Partial);
            return None;
        }
        if self.holds(file.id, &pages::bytes(&pages, file.size)) || self.inner.is_closed() {
            return None;
        }
        if !self.inner.health.lock().admits(Instant::now()) {
            self.inner.metrics.count_offer(Offer::Failed);
            return None;
        }
        Some(pages)
    }

    /// Has a file removed in the background.
    pub(super) fn drop_replaced(&self, id: FileId) {
        self.start(Job::Replaced(id));
    }

    fn start(&self, job: Job) {
        if self.inner.queue.push(job) {
            let this = self.clone();
            self.inner.tasks.start(async move {
                // A writer that panics is missed for the rest of the process; others go on.
                let _ = tokio::task::spawn_blocking(move || this.work()).await;
            });
        }
    }

    /// Does what waits, until nothing does.
    fn work(&self) {
        while let Some(job) = self.inner.queue.pop() {
            match job {
                Job::Write(write) => {
                    let outcome = self.store(&write);
                    self.inner.metrics.count_offer(outcome);
                }
                Job::Remembered(range) => self.store_remembered(&range),
                Job::Replaced(id) => {
                    if self.inner.remove(id) {
                        self.inner.metrics.replaced_files.inc();
                    }
                }
            }
            self.inner.gauge();
            self.inner.queue.done();
        }
    }

    fn store_remembered(&self, what: &Remembered) {
        let Remembered { core, file, range } = what;
        let len = range.end - range.start;
        for span in core.layout.plan(file.id, file.size, range.start, len) {
            let piece = span.piece;
            let wanted = span.from..span.from + span.len;
            let Some(parts) = core.memory.peek(&piece.id, wanted) else {
                self.inner.metrics.count_offer(Offer::Busy);
                continue;
            };
            let (start, data) = (piece.start + u64::from(span.from), parts.unread());
            if let Some(pages) = self.wanted(file, start, &data) {
                let outcome = self.store(&Write::of(file, pages, start, &data, None));
                self.inner.metrics.count_offer(outcome);
            }
        }
    }

    fn store(&self, write: &Write) -> Offer {
        let inner = &self.inner;
        if inner.is_closed() || !inner.health.lock().admits(Instant::now()) {
            return Offer::Failed;
        }
        let file = match inner.load_or_create(write.file.id, write.file.size) {
            Ok(Some(file)) => file,
            Ok(None) => return Offer::Full,
            Err(error) => return inner.failed(write.file.id, &error),
        };
        let key = path_key(&write.file.path);
        let replaced = inner.index.lock().note_path(key, file.id);
        if let Some(old) = replaced
            && inner.remove(old)
        {
            inner.metrics.replaced_files.inc();
        }
        let outcome = match inner.write_absent(&file, write) {
            Ok(outcome) => outcome,
            Err(error) => return inner.failed(file.id, &error),
        };
        if inner.health.lock().succeeded() {
            tracing::info!(dir = %inner.layout.dir().path().display(), "the cache directory works again");
        }
        if file.missing() == 0 {
            self.settle_if_large(&file);
        }
        outcome
    }
}

impl Write {
    fn of(
        file: &Arc<OpenFile>,
        pages: Range<u64>,
        start: u64,
        data: &Bytes,
        permit: Option<Permit>,
    ) -> Self {
        let bytes = pages::bytes(&pages, file.size);
        Self {
            file: Arc::clone(file),
            pages,
            data: data.slice((bytes.start - start) as usize..(bytes.end - start) as usize),
            _permit: permit,
        }
    }
}

impl Inner {
    fn write_absent(&self, file: &CachedFile, write: &Write) -> io::Result<Offer> {
        // One at a time, so that no page is paid for twice. The kernel does not write to one
        // file from two threads either.
        let _writing = file.writing.lock();
        let first = pages::bytes(&write.pages, file.size).start;
        let mut rest = write.pages.clone();
        while let Some(run) = file.absent_in(&rest) {
            let bytes = pages::bytes(&run, file.size);
            let room = footprint(bytes.end - bytes.start);
            if file.is_gone() || !self.make_room_for(&file.charge, room, file.id) {
                return Ok(Offer::Full);
            }
            let data = &write.data[(bytes.start - first) as usize..(bytes.end - first) as usize];
            if let Err(error) = file.write(&run, data) {
                file.charge.sub(room);
                return Err(error);
            }
            self.metrics.written_bytes.inc_by(data.len() as u64);
            rest.start = run.end;
        }
        Ok(Offer::Stored)
    }

    /// After a failed write: leaves the disk alone for a while.
    fn failed(&self, id: FileId, error: &io::Error) -> Offer {
        self.metrics.count_failure(Failure::Write);
        if self.health.lock().failed(Instant::now()) {
            let dir = self.layout.dir().path().display();
            tracing::warn!(%dir, %error, "cannot write to the cache directory, pausing");
        }
        // Others fill the disk, too: what was used longest ago is given up for what is read
        // now.
        if error.kind() == io::ErrorKind::StorageFull {
            self.evict_one(Some(&id));
        }
        Offer::Failed
    }
}
