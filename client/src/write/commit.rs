//! A draft becomes a version of its file.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use millpond_ufs::{Attributes, Condition, Metadata};

use crate::attr::Attr;
use crate::error::ClientError;
use crate::file::FileHandle;
use crate::names::entry_changes;
use crate::target::Target;

use super::draft::Draft;

/// A file of no more bytes is sent in one request.
const ONE_PUT: u64 = 8 << 20;

/// The longest part that is sent from memory.
const PART: u64 = 8 << 20;

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
        let metadata = self.send(&target, &attributes).await?;
        self.take_over(&target, metadata).await
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
                    Err(error) if error.kind() == millpond_proto::ErrorKind::NotFound => attributes,
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

    async fn send(
        &self,
        target: &Target,
        attributes: &Attributes,
    ) -> Result<Metadata, ClientError> {
        let (size, condition) = {
            let state = self.state();
            let condition = match state.exclusive {
                true => Condition::Absent,
                false => Condition::Any,
            };
            (state.content.size(), condition)
        };
        if size <= ONE_PUT.min(target.abilities.parts.max) {
            let data = self.bytes(0, size).await?;
            let put = target.ufs.put(&target.below, data, attributes, &condition);
            return Ok(put.await?);
        }
        let upload = target.ufs.upload(&target.below, attributes).await?;
        let sent = async {
            let rules = target.abilities.parts;
            let least = size.div_ceil(u64::from(rules.count.max(1)));
            let len = PART.max(least).max(rules.min).min(rules.max);
            for number in 0..size.div_ceil(len) {
                let offset = number * len;
                let data = self.bytes(offset, len.min(size - offset)).await?;
                upload.part(number as u32, offset, data).await?;
            }
            Ok(upload.complete(size, &condition).await?)
        };
        let sent: Result<Metadata, ClientError> = sent.await;
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(
                path = target.path,
                upload = upload.id(),
                error = &error as &dyn std::error::Error,
                "an upload that failed could not be aborted"
            );
        }
        sent
    }

    /// Exactly the bytes of so long a stretch of the file.
    async fn bytes(&self, offset: u64, len: u64) -> Result<Bytes, ClientError> {
        let mut whole = BytesMut::new();
        let mut at = offset;
        while at < offset + len {
            let step = (offset + len - at).min(1 << 20) as u32;
            let part = self.read(at, step).await?;
            if u64::from(step) == len {
                return Ok(part);
            }
            at += part.len() as u64;
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
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
