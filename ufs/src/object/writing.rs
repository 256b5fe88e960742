//! Changing files and directories over keys.
//!
//! A directory exists while any key begins with its own and a slash. With
//! [`Directories::Markers`] the last of them to go leaves a marker behind, so that a directory
//! which was emptied stays; that is one listing more for each removal. A directory that was
//! made always has a marker, for there is no other way to have it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use millpond_proto::{ErrorKind, FileVersion, Refusal};

use super::{Backend, Inner, ObjectMeta};
use crate::error::{Op, UfsError};
use crate::metadata::{FileKind, Metadata};
use crate::name::{self, NameFault};
use crate::object::backend::Extra;
use crate::options::OptionSet;
use crate::write::{Attributes, Condition, RenameMode, UnfinishedStream, Upload};

/// What becomes of a directory whose last file goes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Directories {
    /// It stays: it is given a marker.
    #[default]
    Markers,
    /// It goes too, unless it has a marker.
    Implicit,
}

impl Directories {
    pub(crate) fn of(options: &OptionSet<'_>) -> Result<Self, UfsError> {
        options.parsed(
            "directories",
            Self::default(),
            "markers or implicit",
            |text| match text {
                "markers" => Some(Self::Markers),
                "implicit" => Some(Self::Implicit),
                _ => None,
            },
        )
    }
}

impl<B: Backend> Inner<B> {
    pub(super) async fn put(
        &self,
        path: &str,
        data: Bytes,
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        let key = self.writable_key(Op::Put, path)?;
        let most = self.backend.abilities().parts.max;
        if data.len() as u64 > most {
            let cause = format!("the store takes {most} bytes at once");
            return Err(self.refused(Refusal::TooLarge, Op::Put, path, &cause));
        }
        let extra = self.extra_of(FileKind::File, attributes);
        self.check_weight(Op::Put, &key, &extra)?;
        let object = self
            .backend
            .put_object(Op::Put, &key, data, &extra, condition)
            .await?;
        Ok(self.described(object, &extra))
    }

    pub(super) async fn upload(
        self: Arc<Self>,
        path: &str,
        attributes: &Attributes,
    ) -> Result<Box<dyn Upload>, UfsError> {
        let key = self.writable_key(Op::Upload, path)?;
        let extra = self.extra_of(FileKind::File, attributes);
        self.check_weight(Op::Upload, &key, &extra)?;
        let inner = self.backend.upload(&key, &extra).await?;
        Ok(Box::new(TreeUpload {
            inner,
            tree: self,
            key,
            extra,
        }))
    }

    pub(super) fn unfinished_uploads(self: Arc<Self>, dir: &str) -> UnfinishedStream {
        let below = match self.directory(dir) {
            Ok(below) => below,
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let state = (self, below, Some(None));
        futures::stream::try_unfold(state, |(tree, below, token)| async move {
            let Some(token) = token else {
                return Ok(None);
            };
            let page = tree.backend.uploads(&below, token).await?;
            let mut uploads = page.uploads;
            uploads.retain_mut(|upload| match tree.prefix.path(&upload.path) {
                Some(path) => {
                    upload.path = path.to_owned();
                    true
                }
                None => false,
            });
            Ok(Some((uploads, (tree, below, page.next.map(Some)))))
        })
        .boxed()
    }

    pub(super) async fn abort_upload(&self, path: &str, id: &str) -> Result<(), UfsError> {
        let key = self.writable_key(Op::Upload, path)?;
        self.backend.abort(&key, id).await
    }

    pub(super) async fn copy(
        &self,
        from: &str,
        to: &str,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        let source = self.object_at(Op::Copy, from).await?;
        let key = self.writable_key(Op::Copy, to)?;
        let object = self
            .backend
            .copy(Op::Copy, &source, &key, None, condition)
            .await?;
        if self.attributes.are_read() {
            return self.stat(to).await;
        }
        Ok(Metadata::file(object.size, object.version, object.mtime))
    }

    pub(super) async fn rename(
        &self,
        from: &str,
        to: &str,
        mode: RenameMode,
    ) -> Result<(), UfsError> {
        let (old, new) = (
            self.writable_key(Op::Rename, from)?,
            self.writable_key(Op::Rename, to)?,
        );
        let unsupported = |cause: &str| {
            let uri = self.object_uri(from);
            Err(UfsError::new(
                ErrorKind::Unsupported,
                Op::Rename,
                uri,
                cause,
            ))
        };
        if mode == RenameMode::Exchange {
            return unsupported("an object store cannot exchange two files in one step");
        }
        let (old_below, new_below) = (format!("{old}/"), format!("{new}/"));
        let (source, target) =
            futures::try_join!(self.look(&old, &old_below), self.look(&new, &new_below))?;
        let object = match source {
            (_, true) => {
                return unsupported("an object store cannot rename a directory in one step");
            }
            (Some(object), false) => object,
            (None, false) => return Err(self.not_found(Op::Rename, from)),
        };
        let condition = match (mode, target) {
            (RenameMode::NoReplace, (None, false)) => Condition::Absent,
            (RenameMode::NoReplace, _) => {
                return Err(self.refused(
                    Refusal::Exists,
                    Op::Rename,
                    to,
                    "there is something of the new name",
                ));
            }
            (_, (_, true)) => {
                let cause = "the new name is that of a directory";
                return Err(self.refused(Refusal::IsADirectory, Op::Rename, to, cause));
            }
            (_, (_, false)) => Condition::Any,
        };
        if old == new {
            return Ok(());
        }
        self.backend
            .copy(Op::Rename, &object, &new, None, &condition)
            .await?;
        self.keep_parent(Op::Rename, from).await?;
        self.backend.delete(Op::Rename, &old).await
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), UfsError> {
        let key = self.writable_key(Op::Remove, path)?;
        let below = format!("{key}/");
        let (what, keep) = futures::join!(
            self.look(&key, &below),
            self.needs_marker(path, self.directories)
        );
        match what? {
            (_, true) => {
                let cause = "it is a directory";
                return Err(self.refused(Refusal::IsADirectory, Op::Remove, path, cause));
            }
            (None, false) => return Err(self.not_found(Op::Remove, path)),
            (Some(_), false) => {}
        }
        if let Some(marker) = keep? {
            self.mark(Op::Remove, &marker).await?;
        }
        self.backend.delete(Op::Remove, &key).await
    }

    pub(super) async fn create_dir(
        &self,
        path: &str,
        attributes: &Attributes,
    ) -> Result<(), UfsError> {
        let exists = || {
            let cause = "there is something of that name";
            self.refused(Refusal::Exists, Op::CreateDir, path, cause)
        };
        if path.is_empty() {
            return Err(exists());
        }
        let key = self.writable_key(Op::CreateDir, path)?;
        let below = format!("{key}/");
        match self.look(&key, &below).await? {
            (None, false) => {}
            _ => return Err(exists()),
        }
        let extra = self.extra_of(FileKind::Directory, attributes);
        let (data, absent) = (Bytes::new(), self.if_absent());
        let put = self
            .backend
            .put_object(Op::CreateDir, &below, data, &extra, &absent);
        put.await.map(drop)
    }

    pub(super) async fn remove_dir(&self, path: &str) -> Result<(), UfsError> {
        let refused = |refusal, cause: &str| Err(self.refused(refusal, Op::RemoveDir, path, cause));
        if path.is_empty() {
            return refused(Refusal::InUse, "it is the root of the mount");
        }
        let key = self.writable_key(Op::RemoveDir, path)?;
        let below = format!("{key}/");
        let (page, keep) = futures::join!(
            self.backend.page(&below, None, 2),
            self.needs_marker(path, self.directories)
        );
        let page = page?;
        if !page.has_keys() {
            return match self.look(&key, &below).await? {
                (Some(_), false) => refused(Refusal::NotADirectory, "it is a file"),
                // Its first file came meanwhile.
                (_, true) => refused(Refusal::NotEmpty, "it is not empty"),
                (None, false) => Err(self.not_found(Op::RemoveDir, path)),
            };
        }
        let only_marker = page.prefixes.is_empty()
            && page.hidden == 0
            && page.next.is_none()
            && page.objects.iter().all(|object| object.key == below);
        if !only_marker {
            return refused(Refusal::NotEmpty, "it is not empty");
        }
        if let Some(marker) = keep? {
            self.mark(Op::RemoveDir, &marker).await?;
        }
        self.backend.delete(Op::RemoveDir, &below).await
    }

    /// Gives the directory that `path` is in a marker if `path` is all that it has.
    pub(super) async fn keep_parent(&self, op: Op, path: &str) -> Result<(), UfsError> {
        match self.needs_marker(path, self.directories).await? {
            Some(marker) => self.mark(op, &marker).await,
            None => Ok(()),
        }
    }

    /// The key of the marker that the directory of `path` needs to outlive it.
    async fn needs_marker(
        &self,
        path: &str,
        directories: Directories,
    ) -> Result<Option<String>, UfsError> {
        let Some((parent, _)) = path.rsplit_once('/') else {
            // The root needs none.
            return Ok(None);
        };
        if directories == Directories::Implicit {
            return Ok(None);
        }
        let below = self.directory(parent)?;
        let page = self.backend.page(&below, None, 2).await?;
        let key = self.prefix.key(path).unwrap_or_default();
        let others = page.hidden > 0
            || page.has_marker
            || page.next.is_some()
            || page.objects.iter().any(|object| object.key != key)
            || page
                .prefixes
                .iter()
                .any(|prefix| prefix.strip_suffix('/') != Some(key.as_str()));
        Ok((!others).then_some(below))
    }

    async fn mark(&self, op: Op, marker: &str) -> Result<(), UfsError> {
        let extra = self.extra_of(FileKind::Directory, &Attributes::default());
        let (data, absent) = (Bytes::new(), self.if_absent());
        let put = self.backend.put_object(op, marker, data, &extra, &absent);
        match put.await {
            Ok(_) => Ok(()),
            Err(error) if error.refusal() == Some(Refusal::Exists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn if_absent(&self) -> Condition {
        match self.backend.abilities().if_absent {
            true => Condition::Absent,
            false => Condition::Any,
        }
    }

    /// The object at `path`, which is a file.
    pub(super) async fn object_at(&self, op: Op, path: &str) -> Result<ObjectMeta, UfsError> {
        let key = self.writable_key(op, path)?;
        match self.look(&key, &format!("{key}/")).await? {
            (_, true) => Err(self.refused(Refusal::IsADirectory, op, path, "it is a directory")),
            (Some(object), false) => Ok(object),
            (None, false) => Err(self.not_found(op, path)),
        }
    }

    /// The key at `path` for something that may be made there.
    pub(super) fn writable_key(&self, op: Op, path: &str) -> Result<String, UfsError> {
        self.check(op, path)?;
        if path.is_empty() {
            let cause = "it is the root of the mount";
            return Err(self.refused(Refusal::IsADirectory, op, path, cause));
        }
        let fault = path
            .split('/')
            .find_map(|name| Some((name, name::fault(name)?)));
        let key = match fault {
            Some((name, NameFault::TooLong)) => {
                let cause = format!("the name {name:?} is longer than 255 bytes");
                return Err(self.refused(Refusal::NameTooLong, op, path, &cause));
            }
            Some((name, fault)) => {
                let uri = format!("{}/{path}", self.uri);
                let cause = format!("the name {name:?} {fault}");
                return Err(UfsError::new(ErrorKind::Invalid, op, uri, cause));
            }
            None => self.key(op, path)?,
        };
        if key.len() > MAX_KEY {
            let cause = "its key is longer than 1024 bytes";
            return Err(self.refused(Refusal::NameTooLong, op, path, cause));
        }
        Ok(key)
    }

    pub(super) fn refused(&self, refusal: Refusal, op: Op, path: &str, cause: &str) -> UfsError {
        UfsError::refused(refusal, op, self.object_uri(path), cause)
    }
}

/// An upload whose paths are those of the mount.
struct TreeUpload<B> {
    inner: Box<dyn Upload>,
    tree: Arc<Inner<B>>,
    key: String,
    extra: Extra,
}

#[async_trait]
impl<B: Backend> Upload for TreeUpload<B> {
    fn id(&self) -> &str {
        self.inner.id()
    }

    async fn part(&self, number: u32, offset: u64, data: Bytes) -> Result<(), UfsError> {
        self.inner.part(number, offset, data).await
    }

    async fn copy_part(
        &self,
        number: u32,
        offset: u64,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<(), UfsError> {
        let key = self.tree.key(Op::Upload, path)?;
        self.inner
            .copy_part(number, offset, &key, version, range)
            .await
    }

    async fn complete(&self, size: u64, condition: &Condition) -> Result<Metadata, UfsError> {
        let metadata = self.inner.complete(size, condition).await?;
        let object = ObjectMeta {
            key: self.key.clone(),
            size: metadata.size,
            version: metadata.version,
            mtime: metadata.mtime,
        };
        Ok(self.tree.described(object, &self.extra))
    }

    async fn abort(&self) -> Result<(), UfsError> {
        self.inner.abort().await
    }
}

impl<B> fmt::Debug for TreeUpload<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// The longest key of S3, in bytes; GCS and Azure have the same.
const MAX_KEY: usize = 1024;
