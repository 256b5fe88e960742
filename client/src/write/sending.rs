//! A new file goes up while it is written: its parts are sent as soon as the writer is past
//! them, a few at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use millpond_proto::Refusal;
use millpond_ufs::{Attributes, Upload};

use crate::error::ClientError;
use crate::target::Target;
use crate::tasks::Tasks;

use super::draft::Draft;
use super::parts::Cut;
use super::staged::Staged;

/// Parts of one file that are on their way at one time.
pub(super) const AT_ONCE: usize = 8;

/// An upload of a file that is still being written. It is aborted when it is dropped, unless it
/// was completed.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) upload: Arc<dyn Upload>,
    /// What it was begun with.
    pub(super) attributes: Attributes,
    /// The path below the mount that it was begun for.
    pub(super) below: String,
    pub(super) cut: Cut,
    /// What became of the parts that were begun.
    pub(super) parts: BTreeMap<u32, Fate>,
    /// The first that was not begun.
    next: u32,
    tasks: Tasks,
    completed: bool,
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    UnderWay,
    Sent,
    /// The store may have it all the same, sooner or later.
    Failed,
}

impl Sending {
    pub(super) fn is_under_way(&self) -> bool {
        self.parts.values().any(|fate| *fate == Fate::UnderWay)
    }

    /// The parts that have bytes of `range`.
    fn overlapping(&self, range: &Range<u64>) -> Vec<u32> {
        let overlaps = |number: &u32| {
            let part = self.cut.part(*number);
            part.start < range.end && range.start < part.end
        };
        // What is written is mostly beyond all that was sent.
        let newest = self.parts.keys().rev();
        let from_newest = newest.take_while(|number| range.start < self.cut.part(**number).end);
        from_newest.copied().filter(overlaps).collect()
    }

    pub(super) fn completed(&mut self) {
        self.completed = true;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.completed {
            return;
        }
        let (upload, below) = (Arc::clone(&self.upload), std::mem::take(&mut self.below));
        self.tasks.start(async move {
            if let Err(error) = upload.abort().await {
                tracing::warn!(
                    path = below,
                    upload = upload.id(),
                    error = &error as &dyn std::error::Error,
                    "an upload could not be aborted; `millpond gc` removes what it left"
                );
            }
        });
    }
}

impl Draft {
    /// Sends what can be sent of a file that was just written at its end.
    pub(super) async fn send_ahead(&self) {
        let begins = {
            let state = self.state();
            let is_long = state.content.prefix() > Cut::of(&state.rules).part(0).end;
            is_long && state.sending.is_none() && state.may_send_ahead()
        };
        if begins && let Err(error) = self.begin_sending().await {
            tracing::debug!(
                path = self.path(),
                %error,
                "the upload was not begun while the file is written"
            );
            self.state().ahead_failed = true;
        }
        self.send_parts();
    }

    async fn begin_sending(&self) -> Result<(), ClientError> {
        let Some(path) = self.path() else {
            return Ok(());
        };
        let target = self.core.target("write", &path).await?;
        let attributes = self.attributes_to_send(&target).await?;
        let upload = target.ufs.upload(&target.below, &attributes).await?;
        let Target {
            below, abilities, ..
        } = target;
        self.state().sending = Some(Sending {
            upload: Arc::from(upload),
            attributes,
            below,
            cut: Cut::of(&abilities.parts),
            parts: BTreeMap::new(),
            next: 0,
            tasks: self.core.tasks.clone(),
            completed: false,
        });
        Ok(())
    }

    /// Starts sending the parts that the writer is past, as far as there may be more on their
    /// way.
    fn send_parts(&self) {
        while let Some((number, range, upload)) = self.next_part() {
            let Some(draft) = self.me() else {
                return;
            };
            self.core.tasks.start(async move {
                let sent = draft.send_part(&*upload, number, range).await;
                draft.part_ended(number, sent);
                draft.send_parts();
            });
        }
    }

    fn next_part(&self) -> Option<(u32, Range<u64>, Arc<dyn Upload>)> {
        let mut state = self.state();
        if !state.may_send_ahead() || !matches!(state.staged, Staged::File(_)) {
            return None;
        }
        let prefix = state.content.prefix();
        let sending = state.sending.as_mut()?;
        let fates = sending.parts.values();
        let under_way = fates.filter(|fate| **fate == Fate::UnderWay).count();
        let range = sending.cut.part(sending.next);
        if under_way >= AT_ONCE || prefix <= range.end {
            return None;
        }
        let number = sending.next;
        sending.next += 1;
        sending.parts.insert(number, Fate::UnderWay);
        Some((number, range, Arc::clone(&sending.upload)))
    }

    /// Sends the part `number`, which is `range` of the file, once there is memory for it.
    pub(super) async fn send_part(
        &self,
        upload: &dyn Upload,
        number: u32,
        range: Range<u64>,
    ) -> Result<(), ClientError> {
        let _memory = self
            .core
            .staging
            .memory_to_send(range.end - range.start)
            .await;
        let data = self.read_range(range.clone()).await?;
        Ok(upload.part(number, range.start, data).await?)
    }

    /// Notes what became of the part `number`, which is sent when all of the file is.
    pub(super) fn note_fate(&self, number: u32, fate: Fate) {
        if let Some(sending) = &mut self.state().sending {
            sending.parts.insert(number, fate);
        }
    }

    fn part_ended(&self, number: u32, sent: Result<(), ClientError>) {
        if let Err(error) = &sent {
            tracing::debug!(path = self.path(), number, %error, "a part was not sent");
        }
        let mut state = self.state();
        if let Some(sending) = &mut state.sending
            && let Some(fate) = sending.parts.get_mut(&number)
        {
            *fate = match sent {
                Ok(()) => Fate::Sent,
                Err(_) => Fate::Failed,
            };
        }
        drop(state);
        self.ended.notify_waiters();
    }

    /// Waits until `done` finds what it waits for in the state, which changes whenever a part
    /// ends.
    pub(super) async fn when<T>(
        &self,
        mut done: impl FnMut(&mut super::draft::State) -> Option<T>,
    ) -> T {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if let Some(found) = done(&mut self.state()) {
                return found;
            }
            ended.await;
        }
    }

    /// To be called before `range` is changed: the parts that have bytes of it are sent again
    /// when all is.
    ///
    /// # Errors
    /// Refused as `NoSpace` if bytes of it were sent and given up for room.
    pub(super) async fn unsend(&self, range: &Range<u64>) -> Result<(), ClientError> {
        if self.state().sending.is_none() {
            return Ok(());
        }
        let is_free = self
            .when(|state| {
                if state.content.is_given_up(range) {
                    return Some(false);
                }
                let Some(sending) = &mut state.sending else {
                    return Some(true);
                };
                let parts = sending.overlapping(range);
                let fate = |number: &u32| sending.parts.get(number).copied();
                // What is on its way arrives as it was; only then is it known to be replaced by
                // what is sent later.
                if parts
                    .iter()
                    .any(|number| fate(number) == Some(Fate::UnderWay))
                {
                    return None;
                }
                if parts
                    .iter()
                    .any(|number| fate(number) == Some(Fate::Failed))
                {
                    // It could still arrive, after what is sent in its place.
                    state.abandon();
                    return Some(true);
                }
                for number in parts {
                    sending.parts.remove(&number);
                }
                Some(true)
            })
            .await;
        match is_free {
            true => Ok(()),
            false => Err(self.no_way_back()),
        }
    }

    /// Has the file begin anew, or makes sure that it is not cut within what was sent.
    pub(super) async fn unsend_from(&self, size: u64) -> Result<(), ClientError> {
        let is_free = self
            .when(|state| {
                let Some(sending) = &state.sending else {
                    return Some(true);
                };
                let last = sending.parts.keys().next_back();
                if last.is_none_or(|last| sending.cut.part(*last).end <= size) {
                    return Some(true);
                }
                if sending.is_under_way() {
                    return None;
                }
                if size > 0 && state.content.has_given_up() {
                    return Some(false);
                }
                state.abandon();
                Some(true)
            })
            .await;
        match is_free {
            true => Ok(()),
            false => Err(self.no_way_back()),
        }
    }

    fn no_way_back(&self) -> ClientError {
        tracing::warn!(
            path = self.path(),
            limit = self.core.staging.limit(),
            "bytes of this file were sent and given up to stay within --staging-size: they cannot \
             be changed before it is closed"
        );
        self.refused("change", Refusal::NoSpace)
    }

    /// Gives up bytes that the store has, so that others can be staged; says whether there were
    /// any.
    pub(super) async fn make_room(&self) -> Result<bool, ClientError> {
        let found = self
            .when(|state| {
                let Staged::File(file) = &state.staged else {
                    return Some(None);
                };
                let file = Arc::clone(file);
                if let Some(sending) = &state.sending {
                    let mut sent = sending
                        .parts
                        .iter()
                        .filter(|(_, fate)| **fate == Fate::Sent);
                    let there = sent.find_map(|(number, _)| {
                        let part = sending.cut.part(*number);
                        state.content.is_staged(&part).then_some(part)
                    });
                    if let Some(part) = there {
                        state.content.give_up(part.clone());
                        return Some(Some((file, part)));
                    }
                    if sending.is_under_way() {
                        return None;
                    }
                }
                let clean = state.content.drop_some_clean();
                Some(clean.map(|range| (file, range)))
            })
            .await;
        let Some((file, range)) = found else {
            return Ok(false);
        };
        self.clear(Arc::clone(&file), range).await?;
        file.held.set(self.state().content.staged_len());
        Ok(true)
    }
}
