//! Reading ahead from the UFS: one request for many pieces, each of which lands when its last
//! byte is here.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::flying::{Flight, Ticket};
use super::{How, OpenFile, Part, bring_for, keep, ufs};
use crate::core::Core;
use crate::error::ClientError;
use crate::memory::Room;
use crate::sources::Origin;

/// Consecutive parts of one file, to be fetched with one request.
pub(super) struct Run {
    /// Not empty.
    pub(super) parts: Vec<(Part, Ticket)>,
    pub(super) room: Room,
    pub(super) how: How,
}

impl Run {
    /// Fetches the parts. What the one request does not bring is fetched by itself; it ends
    /// early when nobody needs the rest any more.
    pub(super) async fn fetch(mut self, core: Arc<Core>, file: Arc<OpenFile>) {
        let flights: Vec<_> = self.parts.iter().map(|(_, t)| t.flight()).collect();
        if !self.is_on_disk(&core, &file).await {
            let streamed = tokio::select! {
                streamed = self.stream(&core, &file) => streamed,
                () = useless(&flights) => Ok(()),
            };
            if let Err(error) = streamed {
                tracing::debug!(
                    path = file.path,
                    error = &error as &dyn std::error::Error,
                    "reading ahead broke off"
                );
            }
        }
        let how = self.how;
        let rest = self.parts.into_iter().filter(|(_, t)| !t.is_recalled());
        let rest = rest.map(|(part, ticket)| bring_for(&core, &file, part, ticket, how, true));
        futures::future::join_all(rest).await;
        drop(self.room);
    }

    /// Whether the local disk has some of it: each part is looked for there by itself then.
    async fn is_on_disk(&self, core: &Core, file: &OpenFile) -> bool {
        match (&core.disk, self.parts.first(), self.parts.last()) {
            (Some(disk), Some((first, _)), Some((last, _))) => {
                let range = first.in_file().start..last.in_file().end;
                disk.holds_any(file.id, range).await
            }
            _ => false,
        }
    }

    /// Lands parts from the first on; those that are left were not landed.
    async fn stream(&mut self, core: &Arc<Core>, file: &Arc<OpenFile>) -> Result<(), ClientError> {
        let (Some((first, ticket)), Some((last, _))) = (self.parts.first(), self.parts.last())
        else {
            return Ok(());
        };
        let range = first.in_file().start..last.in_file().end;
        let started = Instant::now();
        let deadline = started + core.config.deadline;
        let late = || core.too_late("reading", &file.path);
        let begun = ufs::begin(core, file, range, ticket.wanted());
        let begun = tokio::time::timeout_at(deadline, begun).await;
        let mut reading = begun.map_err(|_| late())??;
        let mut rest = Bytes::new();
        self.parts.reverse();
        let landed = async {
            while let Some((part, _)) = self.parts.last() {
                let data = reading.take(part.len() as usize, &mut rest).await?;
                let Some((part, ticket)) = self.parts.pop() else {
                    break;
                };
                self.room.give_back(u64::from(part.len()));
                core.metrics.observe_fetch(Origin::Ufs, started.elapsed());
                ticket.land(Ok(keep(core, file, &part, data, Origin::Ufs, self.how)));
            }
            reading.end().await
        };
        let landed = tokio::time::timeout_at(deadline, landed).await;
        self.parts.reverse();
        landed.map_err(|_| late())?
    }
}

/// Ends when some of `flights` were recalled and all others landed.
async fn useless(flights: &[Arc<Flight>]) {
    let mut recalled = false;
    for flight in flights {
        recalled |= flight.settled().await.is_none();
    }
    if !recalled {
        std::future::pending().await
    }
}
