//! A draft becomes a version of its file.

use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use millpond_proto::{ErrorKind, Refusal};
use millpond_ufs::{AttributeChange, Attributes, Condition, Metadata, Upload};

use crate::attr::Attr;
use crate::error::ClientError;
use crate::file::FileHandle;
use crate::names::entry_changes;
use crate::target::Target;

use super::draft::Draft;
use super::parts::{self, Cut, Part};
use super::sending::{AT_ONCE, Fate};

impl Draft {
    /// Makes the file, as it is now, the store's. What did not change is not sent.
    ///
    /// # Errors
    /// Refused: `Exists` if the file was to be new and is not; the refusals of
    /// [`Ufs::put`](millpond_ufs::Ufs::put). `Stale` if bytes that were not written here are
    /// not to be had any more. The kinds of the store. The store shows the old file then, or
    /// after `Timeout` and `Unavailable` possibly the new one, and the draft is as it was.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let _turn = self.turn().await;
        self.flush_in_turn().await
    }

    /// [`flush`](Self::flush) for who has the turn.
    pub(super) async fn flush_in_turn(&self) -> Result<(), ClientError> {
        let Some(path) = self.path() else {
            return Ok(());
        };
        if !self.is_changed() {
            return Ok(());
        }
        let target = self.core.target("write", &path).await?;
        let attributes = self.attributes_to_send(&target).await?;
        let metadata = match self.send(&target, &attributes).await {
            Ok(metadata) => metadata,
            // Somebody else made the file since: as if it had been there and were another now.
            Err(error) if self.is_loser(&error) => return Err(ClientError::Stale { path }),
            Err(error) => return Err(error),
        };
        self.take_over(&target, metadata).await
    }

    /// Whether another client made the file which is not to be replaced then.
    fn is_loser(&self, error: &ClientError) -> bool {
        error.refusal() == Some(Refusal::Exists) && !self.state().exclusive
    }

    /// What the new version is made with: what the one before has, with the changes.
    pub(crate) async fn attributes_to_send(
        &self,
        target: &Target,
    ) -> Result<Attributes, ClientError> {
        let (mut attributes, change, replaces) = {
            let state = self.state();
            let replaces = state.base.is_some();
            (state.attributes.clone(), state.change.clone(), replaces)
        };
        if target.abilities.attributes {
            if replaces {
                attributes = match target.ufs.attributes(&target.below).await {
                    Ok(kept) => kept,
                    // It was removed meanwhile: what is closed last is what is there.
                    Err(error) if error.kind() == ErrorKind::NotFound => attributes,
                    Err(error) => return Err(error.into()),
                };
                // Those are times of another content.
                attributes.mtime = None;
                attributes.atime = None;
            }
            attributes.apply(&change);
        }
        Ok(attributes)
    }

    /// Sends the file as it is now, with what was sent of it already.
    async fn send(
        &self,
        target: &Target,
        attributes: &Attributes,
    ) -> Result<Metadata, ClientError> {
        let (size, condition) = self.goal();
        if let Some(sending) = self.sent_so_far(target, size).await {
            return self.send_rest(target, sending, attributes).await;
        }
        if size <= parts::FIRST.min(target.abilities.parts.max) {
            let data = self.read_range(0..size).await?;
            let put = target.ufs.put(&target.below, data, attributes, &condition);
            return Ok(put.await?);
        }
        let upload = target.ufs.upload(&target.below, attributes).await?;
        let sent = self.send_all(target, &*upload).await;
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(
                path = target.path,
                upload = upload.id(),
                error = &error as &dyn std::error::Error,
                "an upload that failed could not be aborted; `millpond gc` removes what it left"
            );
        }
        sent
    }

    /// How long the file is, and what must hold for it to be replaced.
    fn goal(&self) -> (u64, Condition) {
        let state = self.state();
        let size = state.content.size();
        let condition = match (&state.base, self.core.config.if_match) {
            (None, _) if state.exclusive => Condition::Absent,
            (None, true) => Condition::Absent,
            (Some(base), true) => Condition::Version(base.source().version.clone()),
            (_, false) => Condition::Any,
        };
        (size, condition)
    }

    /// The upload that was begun while the file was written, when none of its parts is on its
    /// way any more; none if there is none that can be completed as `target`.
    async fn sent_so_far(&self, target: &Target, size: u64) -> Option<Arc<dyn Upload>> {
        self.when(|state| {
            let Some(sending) = &state.sending else {
                return Some(None);
            };
            if sending.is_under_way() {
                return None;
            }
            let fits = sending.below == target.below && size > sending.cut.part(0).end;
            if !fits {
                state.abandon();
                return Some(None);
            }
            Some(Some(Arc::clone(&sending.upload)))
        })
        .await
    }

    /// Sends the parts that were not sent while the file was written, and makes it visible.
    async fn send_rest(
        &self,
        target: &Target,
        upload: Arc<dyn Upload>,
        attributes: &Attributes,
    ) -> Result<Metadata, ClientError> {
        let (size, condition) = self.goal();
        let rest: Vec<(u32, Range<u64>)> = {
            let state = self.state();
            let sending = state.sending.as_ref();
            let numbered = sending.into_iter().flat_map(|sending| {
                let parts = (0..).zip(sending.cut.parts(size));
                parts.filter(|(number, _)| sending.parts.get(number) != Some(&Fate::Sent))
            });
            numbered.collect()
        };
        let parts = rest.into_iter().map(|(number, range)| {
            let upload = &upload;
            async move {
                // Until it is known to have arrived; also if nobody waits for that.
                self.note_fate(number, Fate::Failed);
                self.send_part(&**upload, number, range).await?;
                self.note_fate(number, Fate::Sent);
                Ok::<(), ClientError>(())
            }
        });
        let all = stream::iter(parts).buffer_unordered(AT_ONCE);
        let sent = async {
            all.try_collect::<()>().await?;
            Ok(upload.complete(size, &condition).await?)
        };
        let sent: Result<Metadata, ClientError> = sent.await;
        let begun_with = {
            let mut state = self.state();
            let must_go_on = state.content.has_given_up();
            match (&sent, &mut state.sending) {
                (Ok(_), Some(sending)) => {
                    sending.completed();
                    Some(std::mem::take(&mut sending.attributes))
                }
                // Where bytes were given up there is no other way than to go on with it.
                (Err(_), _) if !must_go_on => {
                    state.abandon();
                    state.ahead_failed = true;
                    None
                }
                _ => None,
            }
        };
        let metadata = sent?;
        self.mend_attributes(target, begun_with, attributes, metadata)
            .await
    }

    /// Gives the file the attributes that it got while it went up.
    async fn mend_attributes(
        &self,
        target: &Target,
        begun_with: Option<Attributes>,
        attributes: &Attributes,
        metadata: Metadata,
    ) -> Result<Metadata, ClientError> {
        if !target.abilities.attributes || begun_with.is_none_or(|with| with == *attributes) {
            return Ok(metadata);
        }
        let xattrs = attributes.xattrs.iter();
        let change = AttributeChange {
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: attributes.mtime,
            atime: attributes.atime,
            xattrs: xattrs
                .map(|(name, value)| (name.clone(), Some(value.clone())))
                .collect(),
        };
        match target.ufs.set_attributes(&target.below, &change).await {
            Ok(metadata) => Ok(metadata),
            Err(error) => {
                // All bytes are there: what failed is told, and no more.
                tracing::warn!(
                    path = target.path,
                    error = &error as &dyn std::error::Error,
                    "a file was written, but could not be given its attributes"
                );
                Ok(metadata)
            }
        }
    }

    /// Sends the file as a whole; what the store has of it is copied there.
    async fn send_all(
        &self,
        target: &Target,
        upload: &dyn Upload,
    ) -> Result<Metadata, ClientError> {
        let rules = &target.abilities.parts;
        let (size, condition) = self.goal();
        let (plan, base) = {
            let state = self.state();
            let base = state.base.as_ref().map(Arc::clone);
            let copies = target.abilities.copy_parts && base.is_some();
            let clean = |range: &Range<u64>| copies && state.content.is_clean(range);
            (parts::plan(Cut::of(rules), rules, size, clean), base)
        };
        let all = stream::iter((0..).zip(plan)).map(|(number, part): (u32, Part)| {
            let base = base.as_ref();
            async move {
                if let Some(base) = base.filter(|_| part.copied) {
                    let source = base.source();
                    let (from, version) = (&source.below, &source.version);
                    let (at, range) = (part.range.start, part.range.clone());
                    let copied = upload.copy_part(number, at, from, version, range).await;
                    match copied {
                        Err(error) if error.kind() == ErrorKind::Unsupported => {}
                        Err(error) => return Err(ClientError::of_ufs(error, &target.path)),
                        Ok(()) => return Ok(()),
                    }
                }
                self.send_part(upload, number, part.range).await
            }
        });
        all.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(upload.complete(size, &condition).await?)
    }

    /// The store has the file as it is now, as `metadata` says.
    async fn take_over(&self, target: &Target, metadata: Metadata) -> Result<(), ClientError> {
        let attr = Attr::of(metadata, target.mount, &*target.ufs, &target.below);
        let attr = Arc::new(attr);
        let file = self.core.file_of(target, &attr)?;
        let is_new = self.state().base.is_none();
        self.committed(FileHandle::new(
            Arc::clone(&self.core),
            file,
            Arc::clone(&attr),
        ));
        let mut changes = entry_changes(target);
        if !is_new {
            changes.truncate(1);
        }
        self.core
            .changed(&changes, Some((&target.path, attr)))
            .await;
        Ok(())
    }
}
