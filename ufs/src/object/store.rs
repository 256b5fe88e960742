//! Real object stores: keys over `object_store`'s concrete clients.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use millpond_proto::{ErrorKind, FileVersion, Refusal};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};

use crate::error::{Op, UfsError};
use crate::object::backend::{Backend, Extra, ObjectMeta, RawPage, RawUploads};
use crate::object::failure::{Failures, is_missing_object};
use crate::object::tap::CallLog;
use crate::ufs::ByteStream;
use crate::write::{Abilities, Condition, Upload};

/// A bucket or container. Debug output leaves out the client, which holds credentials.
pub(crate) struct StoreBackend<S> {
    store: S,
    /// The canonical URI of the bucket, endpoint included.
    identity: String,
    failures: Arc<Failures>,
    pages_show_their_prefix: bool,
    writer: Option<Box<dyn Writer>>,
}

impl<S> StoreBackend<S> {
    pub(crate) fn new(store: S, identity: String, failures: Failures) -> Self {
        Self {
            store,
            identity,
            failures: Arc::new(failures),
            pages_show_their_prefix: true,
            writer: None,
        }
    }

    /// For a client that leaves the object out whose key is the prefix of a listing.
    pub(crate) fn with_prefixes_left_out(mut self) -> Self {
        self.pages_show_their_prefix = false;
        self
    }

    /// For a store that can be written to.
    pub(crate) fn with_writer(mut self, writer: impl Writer) -> Self {
        self.writer = Some(Box::new(writer));
        self
    }

    pub(crate) fn failures(&self) -> Arc<Failures> {
        Arc::clone(&self.failures)
    }

    fn writer(&self, op: Op, key: &str) -> Result<&dyn Writer, UfsError> {
        self.writer.as_deref().ok_or_else(|| {
            let uri = format!("{}/{key}", self.identity);
            let cause = "stores of this kind can only be read";
            UfsError::refused(Refusal::ReadOnly, op, uri, cause)
        })
    }

    fn path(&self, op: Op, key: &str) -> Result<Path, UfsError> {
        // Neither parsing nor anything after it changes a key that can be shown.
        Path::parse(key).map_err(|error| {
            let uri = format!("{}/{key}", self.identity);
            UfsError::new(ErrorKind::Internal, op, uri, error.to_string())
        })
    }
}

#[async_trait]
impl<S: ObjectStore + PaginatedListStore> Backend for StoreBackend<S> {
    fn uri_of(&self, key: &str) -> String {
        format!("{}/{key}", self.identity)
    }

    fn pages_show_their_prefix(&self) -> bool {
        self.pages_show_their_prefix
    }

    async fn page(
        &self,
        prefix: &str,
        token: Option<String>,
        max: usize,
    ) -> Result<RawPage, UfsError> {
        let log = CallLog::of_listing(prefix);
        let mut options = PaginatedListOptions {
            delimiter: Some("/".into()),
            max_keys: Some(max),
            page_token: token,
            ..PaginatedListOptions::default()
        };
        options.extensions.insert(Arc::clone(&log));
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        let page = self
            .store
            .list_paginated(prefix, options)
            .await
            .map_err(|error| {
                let uri = self.uri_of(prefix.unwrap_or_default());
                self.failures.explain(Op::List, uri, &log, &error)
            })?;

        let listed = log.state().listed.unwrap_or_default();
        let seen = listed.keys.len() + listed.prefixes.len();
        let mut raw = RawPage {
            prefixes: listed.prefixes,
            hidden: listed.hidden,
            next: page.page_token,
            ..RawPage::default()
        };
        raw.objects = page.result.objects.into_iter().map(meta).collect();
        // The client trims names; those read from the same document are whole. (Azure's
        // client also drops markers; then the names are as it gives them.)
        if raw.objects.len() == listed.keys.len() {
            for (object, key) in raw.objects.iter_mut().zip(listed.keys) {
                object.key = key;
            }
        }
        raw.has_marker = seen > raw.objects.len() + raw.prefixes.len();
        Ok(raw)
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, UfsError> {
        let log = CallLog::new();
        let mut options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        options.extensions.insert(Arc::clone(&log));
        let path = self.path(Op::Stat, key)?;
        match self.store.get_opts(&path, options).await {
            Ok(result) => {
                let mut object = meta(result.meta);
                object.version = object.version.or_else(|| object.mtime.map(modified));
                key.clone_into(&mut object.key);
                Ok(Some(object))
            }
            Err(_) if is_missing_object(&log.state()) => Ok(None),
            Err(error) => Err(self
                .failures
                .explain(Op::Stat, self.uri_of(key), &log, &error)),
        }
    }

    async fn get(
        &self,
        key: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        let log = CallLog::new();
        let uri = self.uri_of(key);
        let mut options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        match version {
            FileVersion::ETag(e_tag) => options.if_match = Some(e_tag.to_string()),
            FileVersion::Id(id) => options.version = Some(id.to_string()),
            FileVersion::Modified(mtime_ns) => {
                options.if_unmodified_since = Some(time(*mtime_ns).into());
            }
            FileVersion::Local { .. } => {
                return Err(UfsError::new(
                    ErrorKind::Stale,
                    Op::Read,
                    uri,
                    "the version is one of a local file, not of an object",
                ));
            }
        }
        options.extensions.insert(Arc::clone(&log));
        let path = self.path(Op::Read, key)?;
        let result = self
            .store
            .get_opts(&path, options)
            .await
            .map_err(|error| self.failures.explain(Op::Read, uri.clone(), &log, &error))?;

        let answered = meta(result.meta.clone());
        let is_asked_version = match version {
            FileVersion::Modified(_) => answered.mtime.map(modified).as_ref() == Some(version),
            FileVersion::Id(id) => result.meta.version.as_deref() == Some(id),
            _ => answered.version.as_ref() == Some(version),
        };
        if !is_asked_version {
            return Err(UfsError::new(
                ErrorKind::Stale,
                Op::Read,
                uri,
                "the object was replaced, and the store sent the new one",
            ));
        }
        if result.range != range {
            return Err(UfsError::new(
                ErrorKind::Invalid,
                Op::Read,
                uri,
                format!(
                    "bytes {range:?} are not within its {} bytes",
                    result.meta.size
                ),
            ));
        }
        let is_whole = range == (0..result.meta.size);
        let sum = log.state().sum.filter(|_| is_whole);
        let failures = Arc::clone(&self.failures);
        let object = uri.clone();
        let stream = result.into_stream().map(move |piece| {
            piece.map_err(|error| failures.explain(Op::Read, uri.clone(), &log, &error))
        });
        Ok(match sum {
            Some(sum) => sum.verify(stream.boxed(), range.end, object),
            None => stream.boxed(),
        })
    }

    fn abilities(&self) -> Abilities {
        self.writer
            .as_ref()
            .map_or_else(Abilities::default, |writer| writer.abilities())
    }

    async fn describe(&self, key: &str) -> Result<Option<(ObjectMeta, Extra)>, UfsError> {
        match &self.writer {
            Some(writer) => writer.describe(key).await,
            None => Ok(self.head(key).await?.map(|meta| (meta, Extra::default()))),
        }
    }

    async fn put_object(
        &self,
        op: Op,
        key: &str,
        data: Bytes,
        extra: &Extra,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError> {
        let writer = self.writer(op, key)?;
        writer.put_object(op, key, data, extra, condition).await
    }

    async fn delete(&self, op: Op, key: &str) -> Result<(), UfsError> {
        self.writer(op, key)?.delete(op, key).await
    }

    async fn copy(
        &self,
        op: Op,
        from: &ObjectMeta,
        key: &str,
        extra: Option<&Extra>,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError> {
        let writer = self.writer(op, key)?;
        writer.copy(op, from, key, extra, condition).await
    }

    async fn upload(&self, key: &str, extra: &Extra) -> Result<Box<dyn Upload>, UfsError> {
        self.writer(Op::Upload, key)?.upload(key, extra).await
    }

    async fn uploads(&self, prefix: &str, token: Option<String>) -> Result<RawUploads, UfsError> {
        self.writer(Op::Upload, prefix)?
            .uploads(prefix, token)
            .await
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), UfsError> {
        self.writer(Op::Upload, key)?.abort(key, id).await
    }
}

/// How a store is written to; see [`Backend`] for what the calls do.
#[async_trait]
pub(crate) trait Writer: fmt::Debug + Send + Sync + 'static {
    fn abilities(&self) -> Abilities;

    async fn describe(&self, key: &str) -> Result<Option<(ObjectMeta, Extra)>, UfsError>;

    async fn put_object(
        &self,
        op: Op,
        key: &str,
        data: Bytes,
        extra: &Extra,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError>;

    async fn delete(&self, op: Op, key: &str) -> Result<(), UfsError>;

    async fn copy(
        &self,
        op: Op,
        from: &ObjectMeta,
        key: &str,
        extra: Option<&Extra>,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError>;

    async fn upload(&self, key: &str, extra: &Extra) -> Result<Box<dyn Upload>, UfsError>;

    async fn uploads(&self, prefix: &str, token: Option<String>) -> Result<RawUploads, UfsError>;

    async fn abort(&self, key: &str, id: &str) -> Result<(), UfsError>;
}

impl<S> fmt::Debug for StoreBackend<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreBackend")
            .field("identity", &self.identity)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// The version is the ETag, in quotes, wherever there is one.
fn meta(meta: object_store::ObjectMeta) -> ObjectMeta {
    let version = match (meta.e_tag, meta.version) {
        (Some(e_tag), _) => Some(FileVersion::ETag(quoted(e_tag).into())),
        (None, Some(id)) => Some(FileVersion::Id(id.into())),
        (None, None) => None,
    };
    let mtime = SystemTime::from(meta.last_modified);
    ObjectMeta {
        key: meta.location.to_string(),
        size: meta.size,
        version,
        mtime: (mtime != SystemTime::UNIX_EPOCH).then_some(mtime),
    }
}

/// `e_tag` as HTTP writes it: Azure's listings, for one, leave the quotes out.
fn quoted(e_tag: String) -> String {
    match e_tag.ends_with('"') {
        true => e_tag,
        false => format!("\"{e_tag}\""),
    }
}

fn modified(mtime: SystemTime) -> FileVersion {
    let since = mtime.duration_since(SystemTime::UNIX_EPOCH);
    FileVersion::Modified(since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }))
}

fn time(nanos: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(nanos.unsigned_abs())
}
