//! Getting pieces: from memory, from a fetch under way, or by a new one.

mod race;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use millpond_proto::Change;
use millpond_proto::{FileId, FileVersion, MountId};
use millpond_ufs::Ufs;
use rand::Rng as _;
use tokio::time::{Instant, sleep, timeout_at};

use crate::budget::Permit;
use crate::core::Core;
use crate::disk::LocalDisk;
use crate::error::ClientError;
use crate::memory::CachedPiece;
use crate::pieces::Piece;
use crate::sources::Origin;

/// How a fetch ended.
pub(crate) type Fetched = Result<Arc<CachedPiece>, ClientError>;

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
}

impl Core {
    /// The piece of `file`, by `deadline`. It is fetched once however many ask at a time.
    ///
    /// # Cancel safety
    /// The fetch goes on for others, and for the memory tier.
    pub(crate) async fn piece(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        piece: Piece,
        deadline: Instant,
    ) -> Fetched {
        loop {
            if let Some(here) = self.memory.get(&piece.id) {
                return Ok(here);
            }
            let flight = self.fetches.join(piece.id, &self.tasks, || {
                fetch(Arc::clone(self), Arc::clone(file), piece, None)
            });
            match timeout_at(deadline, flight).await {
                Ok(Some(Ok(piece))) => return Ok(piece),
                // The fetch may have begun, and run out of time, long before this read.
                Ok(Some(Err(error)))
                    if error.kind().try_next_source()
                        && !matches!(error, ClientError::ShutDown)
                        && Instant::now() + PAUSE < deadline =>
                {
                    sleep(PAUSE).await;
                }
                Ok(Some(Err(error))) => return Err(error),
                Ok(None) => return Err(ClientError::ShutDown),
                Err(_) => return Err(self.too_late("reading", &file.path)),
            }
        }
    }

    /// Starts fetching the pieces of `range` that are neither here nor on their way, as far
    /// as there is memory for it. Returns where it stopped.
    pub(crate) fn fetch_ahead(self: &Arc<Self>, file: &Arc<OpenFile>, range: Range<u64>) -> u64 {
        let len = range.end - range.start;
        for span in self.layout.plan(file.id, file.size, range.start, len) {
            let piece = span.piece;
            let on_disk = |disk: &LocalDisk| disk.holds(file.id, &piece.range());
            if self.memory.holds(&piece.id)
                || self.fetches.has(&piece.id)
                || self.disk.as_ref().is_some_and(on_disk)
            {
                continue;
            }
            let Some(permit) = self.budget.try_ahead(piece.len) else {
                return piece.start;
            };
            self.metrics.readahead_bytes.inc_by(u64::from(piece.len));
            drop(self.fetches.join(piece.id, &self.tasks, || {
                fetch(Arc::clone(self), Arc::clone(file), piece, Some(permit))
            }));
        }
        range.end
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
            if let Some(flight) = self.fetches.find(&span.piece.id)
                && let Some(fetched) = flight.await
            {
                fetched?;
            }
        }
        Ok(())
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

/// The work of one flight: exactly one of these runs per piece.
async fn fetch(
    core: Arc<Core>,
    file: Arc<OpenFile>,
    piece: Piece,
    permit: Option<Permit>,
) -> Fetched {
    if let Some(here) = core.memory.get(&piece.id) {
        return Ok(here);
    }
    let deadline = Instant::now() + core.config.deadline;
    let permit = match permit {
        Some(permit) => permit,
        None => timeout_at(deadline, core.budget.demand(piece.len))
            .await
            .map_err(|_| core.too_late("waiting for memory to read", &file.path))?,
    };

    let started = Instant::now();
    let on_disk = match &core.disk {
        Some(disk) => disk.read(file.id, piece.range()).await,
        None => None,
    };
    let (data, origin) = match on_disk {
        Some(data) => (data, Origin::Disk),
        None => from_sources(&core, &file, piece, deadline).await?,
    };
    core.metrics.observe_fetch(origin, started.elapsed());

    if origin != Origin::Disk
        && let Some(disk) = &core.disk
    {
        disk.offer(&core, &file, piece.start, &data);
    }
    let cached = core.memory.insert(piece.id, data, origin);
    drop(permit);
    core.metrics
        .cached_bytes
        .set(core.memory.live_bytes() as i64);
    Ok(cached)
}

/// Races the sources, again and again with growing pauses, until one answers, one gives a
/// verdict that no repetition changes, or the time is up.
async fn from_sources(
    core: &Arc<Core>,
    file: &Arc<OpenFile>,
    piece: Piece,
    deadline: Instant,
) -> Result<(bytes::Bytes, Origin), ClientError> {
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match race::run(core, file, piece, deadline).await {
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
            block = %piece.id.block,
            error = &error as &dyn std::error::Error,
            "no source had the piece, trying again"
        );
        core.metrics.retries.inc();
        sleep(jittered).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
