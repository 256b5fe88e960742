//! Fills that wait for their turn at the UFS, and which of them one request can serve.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use millpond_proto::{BlockId, FileId};

use super::joint::News;
use super::shared::Fill;
use super::source::FillJob;

/// The fills that wait, by file and by where in it they begin.
///
/// A fill is in here from before it asks the UFS for a turn until its request goes out. Whoever
/// has a turn takes those with it that lie beside it: what is in here has to wait anyway, so
/// nothing is ever delayed for company.
#[derive(Debug, Default)]
pub(super) struct Queue {
    files: Mutex<HashMap<Key, BTreeMap<u64, Waiting>>>,
}

/// One version of a file, through one UFS: two mounts of one store may have different rights.
type Key = (FileId, usize);

/// The longest request for several blocks: beyond it the time to the first byte is small
/// against the rest, and two requests are faster than one of twice the length.
const LONGEST: u64 = 16 << 20;

/// A block that a request is to bring.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) block: BlockId,
    /// Its bytes in the file.
    pub(super) range: Range<u64>,
    pub(super) fill: Arc<Fill>,
}

/// Tells a fill that another one's request brings its block, and where to hear of it.
pub(super) type Call = oneshot::Receiver<News>;

#[derive(Debug)]
struct Waiting {
    part: Part,
    call: oneshot::Sender<Call>,
}

/// The place of one fill in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Place<'q> {
    queue: &'q Queue,
    key: Key,
    start: u64,
}

/// What one request is to bring: parts that follow each other in the file without a gap.
#[derive(Debug)]
pub(super) struct Run {
    /// Each with whom to tell; nobody for the fill whose request it is.
    pub(super) parts: Vec<(Part, Option<oneshot::Sender<News>>)>,
}

impl Run {
    /// The bytes of the file that it is of.
    pub(super) fn range(&self) -> Range<u64> {
        let start = self.parts.first().map_or(0, |(part, _)| part.range.start);
        let end = self.parts.last().map_or(0, |(part, _)| part.range.end);
        start..end
    }
}

impl Queue {
    /// Puts a fill into the queue. The call comes if another one's request takes it along.
    pub(super) fn enter(
        &self,
        job: &FillJob,
        fill: &Arc<Fill>,
    ) -> (Place<'_>, oneshot::Receiver<Call>) {
        let key = (job.block.file, Arc::as_ptr(&job.ufs).cast::<()>() as usize);
        let (call, called) = oneshot::channel();
        let part = Part {
            block: job.block,
            range: job.range.clone(),
            fill: Arc::clone(fill),
        };
        let start = part.range.start;
        let mut files = self.files.lock();
        let file = files.entry(key).or_default();
        file.insert(start, Waiting { part, call });
        let place = Place {
            queue: self,
            key,
            start,
        };
        (place, called)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.files.lock().values().map(BTreeMap::len).sum()
    }
}

impl Place<'_> {
    /// Takes this fill out of the queue with all that lie beside it, as far as one request may
    /// be long: those behind it first. None if it was taken along itself.
    pub(super) fn take(&self) -> Option<Run> {
        let mut files = self.queue.files.lock();
        let file = files.get_mut(&self.key)?;
        let own = file.remove(&self.start)?.part;
        let mut run = own.range.clone();
        let mut behind = Vec::new();
        while let Some(next) = file.get(&run.end)
            && next.part.range.end - run.start <= LONGEST
        {
            run.end = next.part.range.end;
            let start = next.part.range.start;
            behind.extend(file.remove(&start));
        }
        let mut before = Vec::new();
        while let Some((&start, last)) = file.range(..run.start).next_back()
            && last.part.range.end == run.start
            && run.end - start <= LONGEST
        {
            run.start = start;
            before.extend(file.remove(&start));
        }
        if file.is_empty() {
            files.remove(&self.key);
        }
        drop(files);
        let before = before.into_iter().rev().map(Waiting::called);
        let behind = behind.into_iter().map(Waiting::called);
        let parts = before.chain([(own, None)]).chain(behind).collect();
        Some(Run { parts })
    }

    /// Leaves the queue. Whether it was still in it: if not, another one's request brings the
    /// block.
    pub(super) fn leave(self) -> bool {
        self.remove()
    }

    fn remove(&self) -> bool {
        let mut files = self.queue.files.lock();
        let Some(file) = files.get_mut(&self.key) else {
            return false;
        };
        let was_there = file.remove(&self.start).is_some();
        if file.is_empty() {
            files.remove(&self.key);
        }
        was_there
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Waiting {
    /// Tells its fill. One that has gone (the node is shutting down) is read for nobody.
    fn called(self) -> (Part, Option<oneshot::Sender<News>>) {
        let (news, call) = oneshot::channel();
        let _ = self.call.send(call);
        (self.part, Some(news))
    }
}
