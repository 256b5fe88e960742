//! Getting ranges of pieces: from memory, from a fetch under way, or by a new one.
//!
//! | module | holds |
//! |---|---|
//! | `flying` | what is on its way: each byte is fetched once |
//! | `race` | the sources of one range: owner, next replica, UFS |
//! | `way` | which of them is asked first |
//! | `ufs`, `run` | requests to the UFS; one request for many pieces |

pub(crate) mod flying;
mod race;
mod run;
mod ufs;
mod way;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use millpond_proto::{BlockId, Change, FileId, FileVersion, MountId};
use millpond_ufs::Ufs;
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::time::{Instant, sleep, timeout_at};

use crate::core::Core;
use crate::disk::LocalDisk;
use crate::error::ClientError;
use crate::memory::{Extent, Holder, Parts, Room};
use crate::pace::Pace;
use crate::pieces::Piece;
use crate::readahead::PAGE;
use crate::sources::Origin;
use flying::{Plan, Planner, Ticket};
use run::Run;

/// How a fetch ended.
pub(crate) type Fetched = Result<Arc<Extent>, ClientError>;

/// One version of one file, with all that is needed to read it from any source.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// Path in the namespace, for messages and the metadata cache.
    pub(crate) path: String,
    /// Path below the mount.
    pub(crate) below: String,
    pub(crate) mount: MountId,
    pub(crate) ufs: Arc<dyn Ufs>,
    pub(crate) version: FileVersion,
    pub(crate) size: u64,
    pub(crate) id: FileId,
    /// How fast the UFS answers.
    pub(crate) pace: Arc<Mutex<Pace>>,
}

/// For what something is fetched.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    /// For a read that belongs to no stream, or to one that leaves out parts: nothing more
    /// than that is to be fetched anywhere.
    pub(crate) lone: bool,
    /// The stream for which it is to stay in memory.
    pub(crate) holder: Option<Holder>,
}

/// A range of a piece.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) piece: Piece,
    /// In the piece; not empty.
    pub(crate) range: Range<u32>,
}

impl Part {
    pub(crate) const fn len(&self) -> u32 {
        self.range.end - self.range.start
    }

    pub(crate) const fn block(&self) -> BlockId {
        self.piece.id.block
    }

    /// Where it starts in its block.
    pub(crate) const fn in_block(&self) -> u32 {
        self.piece.offset + self.range.start
    }

    pub(crate) fn in_file(&self) -> Range<u64> {
        self.piece.start + u64::from(self.range.start)..self.piece.start + u64::from(self.range.end)
    }
}

impl Core {
    /// The part of `file`, by `deadline`. Each byte is fetched once however many ask at a
    /// time.
    ///
    /// # Cancel safety
    /// The fetch goes on for others, and for the memory tier.
    pub(crate) async fn part(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        part: Part,
        how: How,
        deadline: Instant,
    ) -> Result<Parts, ClientError> {
        let Part { piece, range } = &part;
        loop {
            if let Some(here) = self.memory.read(&piece.id, range.clone()) {
                return Ok(here);
            }
            let error = match self.fetch(file, &part, how, deadline).await {
                Ok(here) => return Ok(here),
                Err(error) => error,
            };
            // The fetch may have begun, and run out of time, long before this read.
            let again = error.kind().try_next_source() && !matches!(error, ClientError::ShutDown);
            if !again || Instant::now() + PAUSE >= deadline {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
    }

    /// The same without a look into memory first.
    async fn fetch(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        part: &Part,
        how: How,
        deadline: Instant,
    ) -> Result<Parts, ClientError> {
        let Part { piece, range } = part;
        let widened = self.widened(file, part);
        let whole = widened.end - widened.start == piece.len && u64::from(piece.len) == file.size;
        let how = How {
            lone: how.lone && !whole,
            ..how
        };
        let by = Planner {
            holder: how.holder,
            ahead: false,
        };
        let plan = self.flying.plan(piece.id, by, || {
            if how.lone {
                self.memory.look(piece, widened)
            } else {
                self.memory.look_exactly(&piece.id, widened)
            }
        });
        let Plan {
            mut here,
            flights,
            tickets,
        } = plan;
        for ticket in tickets {
            self.start(file, *piece, ticket, how, None);
        }
        for flight in flights {
            match timeout_at(deadline, flight.landed()).await {
                Ok(Some(landed)) => here.push(landed?),
                Ok(None) if self.tasks.is_cancelled() => return Err(ClientError::ShutDown),
                // Nobody brings it any more, so it is to be fetched anew.
                Ok(None) => {}
                Err(_) => return Err(self.too_late("reading", &file.path)),
            }
        }
        if let Some(parts) = self.memory.read(&piece.id, range.clone()) {
            return Ok(parts);
        }
        // Evicted already, or never there.
        Parts::pick(range.clone(), &here).ok_or_else(|| self.too_late("reading", &file.path))
    }

    /// All of a piece, as for a stream.
    pub(crate) async fn piece(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        piece: Piece,
        deadline: Instant,
    ) -> Result<Parts, ClientError> {
        let range = 0..piece.len;
        let part = Part { piece, range };
        self.part(file, part, How::default(), deadline).await
    }

    /// Starts fetching what of `range` is neither here nor on its way, as far as there is
    /// memory for it. Returns where it stopped.
    pub(crate) fn fetch_ahead(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        range: Range<u64>,
        how: How,
    ) -> u64 {
        let len = range.end - range.start;
        let by = Planner {
            holder: how.holder,
            ahead: true,
        };
        let direct = self.reads_directly();
        let grain = self.grain(file, direct);
        let mut run: Vec<(Part, Ticket)> = Vec::new();
        let mut reached = range.start;
        for span in self.layout.plan(file.id, file.size, range.start, len) {
            let piece = span.piece;
            let wanted = span.from..span.from + span.len;
            let on_disk = |disk: &LocalDisk| disk.holds(file.id, &piece.range());
            if self.disk.as_ref().is_some_and(on_disk) {
                let begun = std::mem::take(&mut run);
                if let Err(stopped) = self.start_run(file, begun, how) {
                    return stopped;
                }
                reached = piece.range().end.min(range.end);
                continue;
            }
            let look = || self.memory.look_exactly(&piece.id, wanted.clone());
            for ticket in self.flying.plan(piece.id, by, look).tickets {
                let range = ticket.range();
                let part = Part { piece, range };
                if !direct {
                    let Some(room) = self.memory.promise(u64::from(part.len())) else {
                        return self.start_run(file, run, how).err().unwrap_or(reached);
                    };
                    self.metrics.readahead_bytes.inc_by(u64::from(part.len()));
                    self.start(file, piece, ticket, how, Some(room));
                    continue;
                }
                let continues = run.last().is_none_or(|(last, _)| {
                    // A request ends where a grain of the file does, wherever it begins.
                    last.in_file().end == part.in_file().start
                        && !part.in_file().start.is_multiple_of(grain)
                });
                if !continues {
                    let begun = std::mem::take(&mut run);
                    if let Err(stopped) = self.start_run(file, begun, how) {
                        return stopped;
                    }
                }
                run.push((part, ticket));
            }
            if run.is_empty() {
                reached = piece.start + u64::from(span.from + span.len);
            }
        }
        match self.start_run(file, run, how) {
            Ok(()) => range.end,
            Err(stopped) => stopped,
        }
    }

    /// Fetches consecutive parts with one request; the place of the first one if there is no
    /// memory for them.
    fn start_run(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        parts: Vec<(Part, Ticket)>,
        how: How,
    ) -> Result<(), u64> {
        let Some((first, _)) = parts.first() else {
            return Ok(());
        };
        let bytes = parts.iter().map(|(part, _)| u64::from(part.len())).sum();
        let Some(room) = self.memory.promise(bytes) else {
            return Err(first.in_file().start);
        };
        self.metrics.readahead_bytes.inc_by(bytes);
        let run = Run { parts, room, how };
        self.tasks
            .start(run.fetch(Arc::clone(self), Arc::clone(file)));
        Ok(())
    }

    /// Fetches the ticket's range in a task of its own. `room` is for what nobody waits for.
    fn start(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        piece: Piece,
        ticket: Ticket,
        how: How,
        room: Option<Room>,
    ) {
        let (core, file) = (Arc::clone(self), Arc::clone(file));
        let range = ticket.range();
        let part = Part { piece, range };
        self.tasks.start(async move {
            bring_for(&core, &file, part, ticket, how, room.is_some()).await;
            drop(room);
        });
    }

    /// Stops fetching what only these streams were going to read.
    pub(crate) fn recall(&self, streams: &[Holder]) {
        let bytes = self.flying.recall(streams);
        self.metrics.recalled_bytes.inc_by(bytes);
    }

    /// Whether data comes from the UFS itself, as there is no node to ask.
    pub(crate) fn reads_directly(&self) -> bool {
        self.peers.is_none() || self.snapshot().has_no_nodes()
    }

    /// How much is asked for at a time when reading ahead.
    pub(crate) fn grain(&self, file: &OpenFile, direct: bool) -> u64 {
        if !direct {
            return self.layout.piece_len();
        }
        let pace = file.pace.lock();
        pace.grain(pace.window(self.config.readahead))
    }

    /// Waits until nothing of `range` is on its way.
    ///
    /// # Errors
    /// That of the first fetch that failed.
    pub(crate) async fn landed(
        &self,
        file: &OpenFile,
        range: Range<u64>,
    ) -> Result<(), ClientError> {
        let len = range.end - range.start;
        for span in self.layout.plan(file.id, file.size, range.start, len) {
            let wanted = span.from..span.from + span.len;
            for flight in self.flying.find(&span.piece.id, &wanted) {
                if let Some(fetched) = flight.settled().await {
                    fetched?;
                }
            }
        }
        Ok(())
    }

    /// What is fetched for a read of `part`: whole pages; the whole piece of a file that is
    /// small, or that has only this piece and is read from its start.
    fn widened(&self, file: &OpenFile, part: &Part) -> Range<u32> {
        let Part { piece, range } = part;
        let only = u64::from(piece.len) == file.size;
        if only && (range.start == 0 || file.size <= SMALL_FILE) {
            return 0..piece.len;
        }
        let page = if self.disk.is_some() {
            DISK_PAGE
        } else {
            PAGE as u32
        };
        range.start / page * page..range.end.next_multiple_of(page).min(piece.len)
    }

    /// The error of a call that had all of its time.
    pub(crate) fn too_late(&self, action: &'static str, path: &str) -> ClientError {
        ClientError::Timeout {
            action,
            path: path.to_owned(),
            after: self.config.deadline,
        }
    }
}

/// Between two fetches of one read.
const PAUSE: Duration = Duration::from_millis(20);

/// A file of at most this size is always fetched whole: asking twice costs more.
const SMALL_FILE: u64 = 256 << 10;

/// What the disk tier keeps, if it keeps any of it.
const DISK_PAGE: u32 = 64 << 10;

/// Brings what `ticket` is for and lands it, unless it is recalled before.
async fn bring_for(
    core: &Arc<Core>,
    file: &Arc<OpenFile>,
    part: Part,
    ticket: Ticket,
    how: How,
    ahead: bool,
) {
    let landed = tokio::select! {
        landed = bring(core, file, part, how, ahead) => landed,
        () = ticket.recalled() => return,
    };
    ticket.land(landed);
}

/// Brings `part` from the disk tier or the sources, and puts it into memory. `ahead` says that
/// there is room for it already.
async fn bring(
    core: &Arc<Core>,
    file: &Arc<OpenFile>,
    part: Part,
    how: How,
    ahead: bool,
) -> Fetched {
    let deadline = Instant::now() + core.config.deadline;
    let permit = match ahead {
        true => None,
        false => {
            let permit = timeout_at(deadline, core.budget.demand(part.len())).await;
            Some(permit.map_err(|_| core.too_late("waiting for memory to read", &file.path))?)
        }
    };
    let started = Instant::now();
    let on_disk = match &core.disk {
        Some(disk) => disk.read(file.id, part.in_file()).await,
        None => None,
    };
    let (data, origin) = match on_disk {
        Some(data) => (data, Origin::Disk),
        None => from_sources(core, file, &part, how, deadline).await?,
    };
    core.metrics.observe_fetch(origin, started.elapsed());
    let extent = keep(core, file, &part, data, origin, how);
    drop(permit);
    Ok(extent)
}

/// Puts what was fetched where it can be found again.
fn keep(
    core: &Arc<Core>,
    file: &Arc<OpenFile>,
    part: &Part,
    data: bytes::Bytes,
    origin: Origin,
    how: How,
) -> Arc<Extent> {
    let (id, start) = (part.piece.id, part.range.start);
    if origin != Origin::Disk
        && let Some(disk) = &core.disk
    {
        disk.offer(core, file, part.in_file().start, &data);
    }
    let extent = core.memory.insert(id, start, data, origin, how.holder);
    let live = core.memory.live_bytes() as i64;
    core.metrics.cached_bytes.set(live);
    extent
}

/// Races the sources, again and again with growing pauses, until one answers, one gives a
/// verdict that no repetition changes, or the time is up.
async fn from_sources(
    core: &Arc<Core>,
    file: &Arc<OpenFile>,
    part: &Part,
    how: How,
    deadline: Instant,
) -> Result<(bytes::Bytes, Origin), ClientError> {
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match race::run(core, file, part, how, deadline).await {
            Ok(fetched) => return Ok(fetched),
            Err(error) => error,
        };
        if error.kind() == millpond_proto::ErrorKind::Stale {
            let change = Change {
                path: file.path.clone(),
                recursive: false,
            };
            // Its owners first: who is told asks them again.
            core.tell_owners(&change, file.mount, &file.below).await;
            core.take_note(change);
        }
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        if !error.kind().try_next_source() || Instant::now() + jittered >= deadline {
            return Err(error);
        }
        tracing::debug!(
            block = %part.block(),
            error = &error as &dyn std::error::Error,
            "no source had the range, trying again"
        );
        core.metrics.retries.inc();
        sleep(jittered).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
