//! Uploads in parts into the memory store.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use millpond_proto::{ErrorKind, FileVersion};

use super::MemoryStore;
use crate::error::{Op, UfsError};
use crate::metadata::Metadata;
use crate::object::{Backend, Extra};
use crate::write::{Condition, Unfinished, Upload};

/// An upload that has not ended.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) key: String,
    extra: Extra,
    parts: BTreeMap<u32, (u64, Bytes)>,
    started: SystemTime,
}

impl Pending {
    pub(super) fn described(&self, id: &str) -> Unfinished {
        Unfinished {
            path: self.key.clone(),
            id: id.to_owned(),
            started: Some(self.started),
        }
    }
}

/// One of the store's uploads, whose paths are keys.
#[derive(Debug)]
pub(super) struct MemoryUpload {
    store: Arc<MemoryStore>,
    key: String,
    id: String,
}

impl MemoryUpload {
    pub(super) fn begin(store: Arc<MemoryStore>, key: &str, extra: &Extra) -> Self {
        let mut objects = store.objects.write();
        objects.puts += 1;
        let id = format!("upload-{}", objects.puts);
        let pending = Pending {
            key: key.to_owned(),
            extra: extra.clone(),
            parts: BTreeMap::new(),
            started: SystemTime::now(),
        };
        objects.uploads.insert(id.clone(), pending);
        drop(objects);
        Self {
            store,
            key: key.to_owned(),
            id,
        }
    }

    fn error(&self, kind: ErrorKind, cause: &str) -> UfsError {
        UfsError::new(kind, Op::Upload, self.store.uri_of(&self.key), cause)
    }

    fn gone(&self) -> UfsError {
        self.error(ErrorKind::NotFound, "the upload has ended")
    }
}

#[async_trait]
impl Upload for MemoryUpload {
    fn id(&self) -> &str {
        &self.id
    }

    async fn part(&self, number: u32, offset: u64, data: Bytes) -> Result<(), UfsError> {
        let mut objects = self.store.objects.write();
        let pending = objects.uploads.get_mut(&self.id);
        let pending = pending.ok_or_else(|| self.gone())?;
        pending.parts.insert(number, (offset, data));
        Ok(())
    }

    async fn copy_part(
        &self,
        number: u32,
        offset: u64,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<(), UfsError> {
        let object = self.store.object(path);
        let object = object
            .ok_or_else(|| self.error(ErrorKind::NotFound, "there is no object to copy from"))?;
        if object.version() != *version {
            return Err(self.error(ErrorKind::Stale, "the object to copy from was replaced"));
        }
        let bounds = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok());
        match bounds.filter(|(start, end)| start <= end && *end <= object.data.len()) {
            Some((start, end)) => {
                self.part(number, offset, object.data.slice(start..end))
                    .await
            }
            None => Err(self.error(ErrorKind::Invalid, "the bytes are not within the object")),
        }
    }

    async fn complete(&self, size: u64, condition: &Condition) -> Result<Metadata, UfsError> {
        let mut objects = self.store.objects.write();
        let uri = self.store.uri_of(&self.key);
        objects.check(Op::Upload, &self.key, &uri, condition)?;
        let pending = objects.uploads.get(&self.id).ok_or_else(|| self.gone())?;
        let mut data = BytesMut::new();
        for (index, (number, (offset, part))) in (0_u32..).zip(&pending.parts) {
            if *number != index || *offset != data.len() as u64 {
                let cause = format!("part {number} does not follow the one before");
                return Err(self.error(ErrorKind::Invalid, &cause));
            }
            data.extend_from_slice(part);
        }
        if data.len() as u64 != size {
            let cause = format!("the parts have {} bytes, not {size}", data.len());
            return Err(self.error(ErrorKind::Invalid, &cause));
        }
        let extra = pending.extra.clone();
        objects.uploads.remove(&self.id);
        let meta = objects
            .insert(&self.key, data.freeze(), extra)
            .meta(&self.key);
        Ok(Metadata::file(meta.size, meta.version, meta.mtime))
    }

    async fn abort(&self) -> Result<(), UfsError> {
        self.store.objects.write().uploads.remove(&self.id);
        Ok(())
    }
}
