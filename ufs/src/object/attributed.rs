//! Attributes and links over keys, where the mount has them.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use millpond_proto::{ErrorKind, Refusal};

use super::posix;
use super::{Backend, Inner, ObjectMeta};
use crate::error::{Op, UfsError};
use crate::metadata::{Entry, FileKind, Metadata};
use crate::object::backend::Extra;
use crate::write::{AttributeChange, Attributes, Condition};

impl<B: Backend> Inner<B> {
    pub(super) fn extra_of(&self, kind: FileKind, attributes: &Attributes) -> Extra {
        self.attributes.extra(kind, attributes, SystemTime::now())
    }

    /// What a stat would say of `object`, a file that was given `extra`.
    pub(super) fn described(&self, object: ObjectMeta, extra: &Extra) -> Metadata {
        match self.attributes.are_read() {
            true => posix::describe_file(object, extra),
            false => Metadata::file(object.size, object.version, object.mtime),
        }
    }

    /// What the marker `below` says of the directory that it marks, if there is one.
    pub(super) async fn directory_metadata(&self, below: &str) -> Result<Metadata, UfsError> {
        if !self.attributes.are_read() {
            return Ok(Metadata::directory());
        }
        let marker = self.backend.describe(below).await?;
        Ok(marker.map_or_else(Metadata::directory, |(_, extra)| {
            posix::describe_directory(&extra)
        }))
    }

    /// What a HEAD says of the file at `key`, which was `object` a moment ago.
    pub(super) async fn file_metadata(
        &self,
        key: &str,
        object: ObjectMeta,
    ) -> Result<Option<Metadata>, UfsError> {
        if !self.attributes.are_read() {
            return Ok(Some(self.described(object, &Extra::default())));
        }
        let described = self.backend.describe(key).await?;
        Ok(described.map(|(object, extra)| posix::describe_file(object, &extra)))
    }

    /// The entries of the directory whose keys begin with `below`, with their attributes. Those
    /// that are gone by now are left out.
    pub(super) async fn with_attributes(
        &self,
        below: &str,
        entries: Vec<Entry>,
    ) -> Result<Vec<Entry>, UfsError> {
        if !self.attributes.are_read() {
            return Ok(entries);
        }
        let described = entries.into_iter().map(|entry| async move {
            let key = format!("{below}{}", entry.name);
            let metadata = if entry.metadata.is_directory() {
                Some(self.directory_metadata(&format!("{key}/")).await?)
            } else {
                let described = self.backend.describe(&key).await?;
                described.map(|(object, extra)| posix::describe_file(object, &extra))
            };
            Ok(metadata.map(|metadata| Entry {
                name: entry.name,
                metadata,
            }))
        });
        let described: Vec<Option<Entry>> = futures::stream::iter(described)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(described.into_iter().flatten().collect())
    }

    pub(super) async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        let op = Op::ReadLink;
        let error = |kind, cause: &str| UfsError::new(kind, op, self.object_uri(path), cause);
        if !self.attributes.are_read() {
            let cause = "this mount has no symbolic links: see the option posix_attributes";
            return Err(error(ErrorKind::Unsupported, cause));
        }
        let key = self.key(op, path)?;
        let described = self.backend.describe(&key).await?;
        let (object, extra) = described.ok_or_else(|| self.not_found(op, path))?;
        let size = object.size;
        let version = object.version.clone();
        if posix::describe_file(object, &extra).kind != FileKind::Symlink {
            return Err(error(ErrorKind::Invalid, "it is not a symbolic link"));
        }
        let Some(version) = version.filter(|_| size <= LONGEST_TARGET) else {
            let cause = "its target is longer than any path";
            return Err(error(ErrorKind::Invalid, cause));
        };
        let target = self.backend.get(&key, &version, 0..size).await?;
        let target: BytesMut = target
            .try_fold(BytesMut::new(), |mut all, piece| async move {
                all.extend_from_slice(&piece);
                Ok(all)
            })
            .await?;
        // The tools that write links so trim what they read.
        let text = String::from_utf8(target.to_vec());
        let text = text.map_err(|_| error(ErrorKind::Unsupported, "the target is not UTF-8"))?;
        Ok(text.trim().to_owned())
    }

    pub(super) async fn symlink(
        &self,
        path: &str,
        target: &str,
        attributes: &Attributes,
    ) -> Result<(), UfsError> {
        let op = Op::Link;
        let key = self.writable_key(op, path)?;
        if !self.attributes.are_kept() {
            let cause = "this mount keeps no symbolic links: see the option posix_attributes";
            return Err(self.refused(Refusal::NotPermitted, op, path, cause));
        }
        if target.is_empty() || target.trim() != target || target.len() as u64 > LONGEST_TARGET {
            let uri = self.object_uri(path);
            let cause = "the target is empty, too long, or has spaces at an end";
            return Err(UfsError::new(ErrorKind::Invalid, op, uri, cause));
        }
        if let (_, true) = self.look(&key, &format!("{key}/")).await? {
            let cause = "there is a directory of that name";
            return Err(self.refused(Refusal::Exists, op, path, cause));
        }
        let extra = self.extra_of(FileKind::Symlink, attributes);
        let data = Bytes::copy_from_slice(target.as_bytes());
        let put = self
            .backend
            .put_object(op, &key, data, &extra, &Condition::Absent);
        put.await.map(drop)
    }

    pub(super) async fn all_attributes(&self, path: &str) -> Result<Attributes, UfsError> {
        let op = Op::GetAttributes;
        let metadata = self.stat(path).await?;
        if !self.attributes.are_read() || path.is_empty() {
            return Ok(posix::attributes(&metadata, &Extra::default()));
        }
        let mut key = self.key(op, path)?;
        if metadata.is_directory() {
            key.push('/');
        }
        let extra = self.backend.describe(&key).await?;
        let extra = extra.map_or_else(Extra::default, |(_, extra)| extra);
        Ok(posix::attributes(&metadata, &extra))
    }

    pub(super) async fn set_attributes(
        &self,
        path: &str,
        change: &AttributeChange,
    ) -> Result<Metadata, UfsError> {
        let op = Op::SetAttributes;
        let unsupported = |cause: &str| {
            let uri = self.object_uri(path);
            Err(UfsError::new(ErrorKind::Unsupported, op, uri, cause))
        };
        if !self.attributes.are_kept() {
            let cause = "this mount keeps no attributes: see the option posix_attributes";
            return unsupported(cause);
        }
        if path.is_empty() {
            return unsupported("the root of the mount has no object to keep them");
        }
        let key = self.writable_key(op, path)?;
        let below = format!("{key}/");
        let mut tries = 0;
        loop {
            let changed = match self.look(&key, &below).await? {
                (_, true) => self.change_directory(op, &below, change).await,
                (Some(_), false) => self.change_file(op, &key, change).await,
                (None, false) => return Err(self.not_found(op, path)),
            };
            match changed {
                // Somebody wrote it meanwhile: theirs are changed then.
                Err(error) if error.kind() == ErrorKind::Stale && tries < MAX_RACES => tries += 1,
                Ok(None) => return Err(self.not_found(op, path)),
                Ok(Some(metadata)) => return Ok(metadata),
                Err(error) => return Err(error),
            }
        }
    }

    async fn change_directory(
        &self,
        op: Op,
        below: &str,
        change: &AttributeChange,
    ) -> Result<Option<Metadata>, UfsError> {
        let kind = FileKind::Directory;
        let there = self.backend.describe(below).await?;
        // One that no object marked is marked by it.
        let mut extra = match there {
            Some((_, extra)) => extra,
            None => self.extra_of(kind, &Attributes::default()),
        };
        posix::change(&mut extra, kind, change, SystemTime::now());
        self.check_weight(op, below, &extra)?;
        self.backend
            .put_object(op, below, Bytes::new(), &extra, &Condition::Any)
            .await?;
        Ok(Some(posix::describe_directory(&extra)))
    }

    async fn change_file(
        &self,
        op: Op,
        key: &str,
        change: &AttributeChange,
    ) -> Result<Option<Metadata>, UfsError> {
        let Some((object, mut extra)) = self.backend.describe(key).await? else {
            return Ok(None);
        };
        let mtime = object.mtime;
        let metadata = posix::describe_file(object.clone(), &extra);
        if metadata.mtime == mtime && change.mtime.is_none() {
            // A copy is younger than what it is of.
            let keep = AttributeChange {
                mtime,
                ..AttributeChange::default()
            };
            posix::change(&mut extra, metadata.kind, &keep, SystemTime::now());
        }
        posix::change(&mut extra, metadata.kind, change, SystemTime::now());
        self.check_weight(op, key, &extra)?;
        let changed = self
            .backend
            .copy(op, &object, key, Some(&extra), &Condition::Any)
            .await?;
        Ok(Some(posix::describe_file(changed, &extra)))
    }

    pub(super) fn check_weight(&self, op: Op, key: &str, extra: &Extra) -> Result<(), UfsError> {
        if posix::weight(extra) <= MOST_METADATA {
            return Ok(());
        }
        let uri = self.backend.uri_of(key);
        let cause = "its attributes are more than the 2 KiB that a store keeps with an object";
        Err(UfsError::refused(Refusal::TooLarge, op, uri, cause))
    }
}

/// The longest path of Linux.
const LONGEST_TARGET: u64 = 4096;

/// What S3 keeps: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>
const MOST_METADATA: usize = 2 << 10;

/// How many entries of a listing are asked for at once.
const AT_ONCE: usize = 32;
const MAX_RACES: usize = 4;
