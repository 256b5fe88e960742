//! Files and directories over keys: the semantics that all object stores share.
//!
//! [`ObjectUfs`] holds the rules of the crate's documentation, over a [`Backend`] that knows
//! only keys. Real stores are in [`store`], the memory store in [`crate::memory`].

mod around;
mod attributed;
mod azure;
mod backend;
mod exact;
mod failure;
mod gcs;
mod listed;
mod network;
mod open;
mod pager;
mod posix;
mod s3;
mod store;
mod tap;
mod writing;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use millpond_proto::{ErrorKind, FileVersion, Refusal};

pub(crate) use backend::{Backend, Extra, ObjectMeta, RawPage, RawUploads};
pub(crate) use exact::exactly;
pub(crate) use open::{Rules, install_crypto, open};
pub(crate) use tap::is_refusal;

use crate::error::{Op, UfsError};
use crate::metadata::Metadata;
use crate::metrics::UfsMetrics;
use crate::name::{self, KeyPrefix};
use crate::object::around::{Around, NAMES};
use crate::object::pager::Pager;
use crate::object::posix::PosixAttributes;
use crate::object::writing::Directories;
use crate::ufs::{ByteStream, EntryStream, Ufs};
use crate::write::{
    Abilities, AttributeChange, Attributes, Condition, RenameMode, UnfinishedStream, Upload,
};

/// An object store, or the part of it below a prefix, as a file tree.
pub(crate) struct ObjectUfs<B>(Arc<Inner<B>>);

struct Inner<B> {
    uri: String,
    prefix: KeyPrefix,
    backend: B,
    page_size: usize,
    directories: Directories,
    attributes: PosixAttributes,
    metrics: Arc<UfsMetrics>,
    warned: AtomicBool,
    /// A HEAD and a listing are needed to tell what a key is.
    looks_apart: AtomicBool,
}

impl<B: Backend> ObjectUfs<B> {
    /// The keys of `backend` below `prefix`, known to users as `uri`.
    pub(crate) fn new(
        uri: String,
        prefix: &str,
        backend: B,
        rules: Rules,
        metrics: Arc<UfsMetrics>,
    ) -> Self {
        Self(Arc::new(Inner {
            uri,
            prefix: KeyPrefix::new(prefix),
            looks_apart: AtomicBool::new(!backend.pages_show_their_prefix()),
            backend,
            page_size: rules.page_size,
            directories: rules.directories,
            attributes: rules.attributes,
            metrics,
            warned: AtomicBool::new(false),
        }))
    }
}

#[async_trait]
impl<B: Backend> Ufs for ObjectUfs<B> {
    fn uri(&self) -> &str {
        &self.0.uri
    }

    fn object_uri(&self, path: &str) -> String {
        self.0.object_uri(path)
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        self.0.stat(path).await
    }

    fn list(&self, dir: &str) -> EntryStream {
        Arc::clone(&self.0).list(dir.to_owned())
    }

    async fn read(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let key = self.0.key(Op::Read, path)?;
        let len = range.end - range.start;
        let stream = self.0.backend.get(&key, version, range).await?;
        Ok(exactly(stream, len, self.0.object_uri(path)))
    }

    async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        self.0.check(Op::ReadLink, path)?;
        self.0.read_link(path).await
    }

    fn abilities(&self) -> Abilities {
        let abilities = self.0.backend.abilities();
        let kept = abilities.write && self.0.attributes.are_kept();
        Abilities {
            attributes: kept,
            symlinks: kept,
            ..abilities
        }
    }

    async fn put(
        &self,
        path: &str,
        data: Bytes,
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        self.0.put(path, data, attributes, condition).await
    }

    async fn upload(
        &self,
        path: &str,
        attributes: &Attributes,
    ) -> Result<Box<dyn Upload>, UfsError> {
        Arc::clone(&self.0).upload(path, attributes).await
    }

    fn unfinished_uploads(&self, dir: &str) -> UnfinishedStream {
        Arc::clone(&self.0).unfinished_uploads(dir)
    }

    async fn abort_upload(&self, path: &str, id: &str) -> Result<(), UfsError> {
        self.0.abort_upload(path, id).await
    }

    async fn copy(
        &self,
        from: &str,
        to: &str,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        self.0.copy(from, to, condition).await
    }

    async fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), UfsError> {
        self.0.rename(from, to, mode).await
    }

    async fn remove(&self, path: &str) -> Result<(), UfsError> {
        self.0.remove(path).await
    }

    async fn create_dir(&self, path: &str, attributes: &Attributes) -> Result<(), UfsError> {
        self.0.create_dir(path, attributes).await
    }

    async fn remove_dir(&self, path: &str) -> Result<(), UfsError> {
        self.0.remove_dir(path).await
    }

    async fn symlink(
        &self,
        path: &str,
        target: &str,
        attributes: &Attributes,
    ) -> Result<(), UfsError> {
        self.0.symlink(path, target, attributes).await
    }

    async fn hard_link(&self, _: &str, to: &str) -> Result<(), UfsError> {
        self.0.check(Op::Link, to)?;
        let cause = "an object has one name";
        Err(self.0.refused(Refusal::NotPermitted, Op::Link, to, cause))
    }

    async fn attributes(&self, path: &str) -> Result<Attributes, UfsError> {
        self.0.all_attributes(path).await
    }

    async fn set_attributes(
        &self,
        path: &str,
        change: &AttributeChange,
    ) -> Result<Metadata, UfsError> {
        self.0.set_attributes(path, change).await
    }
}

impl<B: Backend> Inner<B> {
    fn object_uri(&self, path: &str) -> String {
        match self.prefix.key(path) {
            Some(key) => self.backend.uri_of(&key),
            None => format!("{}/{path}", self.uri),
        }
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        if path.is_empty() {
            return Ok(Metadata::directory());
        }
        let key = self.key(Op::Stat, path)?;
        let below = format!("{key}/");
        let (object, is_directory) = self.look(&key, &below).await?;
        let metadata = match object {
            _ if is_directory => Some(self.directory_metadata(&below).await?),
            Some(object) => self.file_metadata(&key, object).await?,
            None => None,
        };
        metadata.ok_or_else(|| self.not_found(Op::Stat, path))
    }

    /// What is at `key`, and whether anything is at `below`, which is the key with a slash. One
    /// request nearly always: a listing of what begins with the key tells both.
    async fn look(&self, key: &str, below: &str) -> Result<(Option<ObjectMeta>, bool), UfsError> {
        if !self.looks_apart.load(Ordering::Relaxed) {
            match self.backend.page(key, None, NAMES).await {
                Ok(page) => {
                    return self
                        .look_closer(Around::of(key, below, page), key, below)
                        .await;
                }
                // It may list whole directories only.
                Err(error) if error.kind() == ErrorKind::Invalid => {}
                Err(error) => return Err(error),
            }
        }
        let (object, page) =
            futures::join!(self.backend.head(key), self.backend.page(below, None, 1));
        // Of two errors that of the listing says more: a HEAD has no body.
        let (page, object) = (page?, object?);
        self.looks_apart.store(true, Ordering::Relaxed);
        Ok((object, page.has_keys()))
    }

    /// Asks for what `around` leaves open.
    async fn look_closer(
        &self,
        around: Around,
        key: &str,
        below: &str,
    ) -> Result<(Option<ObjectMeta>, bool), UfsError> {
        let is_directory = match around.is_directory {
            Some(is_directory) => is_directory,
            None => self.backend.page(below, None, 1).await?.has_keys(),
        };
        let object = match around.object {
            Some(object) if object.version.is_none() && !is_directory => {
                self.backend.head(key).await?
            }
            object => object,
        };
        Ok((object, is_directory))
    }

    fn list(self: Arc<Self>, dir: String) -> EntryStream {
        let below = match self.directory(&dir) {
            Ok(below) => below,
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let state = Listing {
            pager: Pager::new(&below),
            inner: self,
            dir,
            below,
            next: Next::First,
        };
        futures::stream::try_unfold(state, |mut state| async move {
            let token = match std::mem::replace(&mut state.next, Next::Done) {
                Next::First => None,
                Next::After(token) => Some(token),
                Next::Done => return Ok(None),
            };
            let inner = &state.inner;
            let raw = inner
                .backend
                .page(&state.below, token, inner.page_size)
                .await?;
            if let Some(token) = &raw.next {
                state.next = Next::After(token.clone());
            }
            let page = state.pager.take(raw);
            inner.note_hidden(&state.dir, page.hidden);
            if matches!(state.next, Next::Done) && !state.pager.exists() && !state.dir.is_empty() {
                return Err(inner.not_found(Op::List, &state.dir));
            }
            let entries = inner.with_attributes(&state.below, page.entries).await?;
            Ok(Some((entries, state)))
        })
        .boxed()
    }

    /// The key at `path`: `Invalid` for a malformed path, `NotFound` for one that no key
    /// that can be shown maps to.
    fn key(&self, op: Op, path: &str) -> Result<String, UfsError> {
        self.check(op, path)?;
        self.prefix
            .key(path)
            .ok_or_else(|| self.not_found(op, path))
    }

    fn directory(&self, path: &str) -> Result<String, UfsError> {
        self.check(Op::List, path)?;
        self.prefix
            .directory(path)
            .ok_or_else(|| self.not_found(Op::List, path))
    }

    fn check(&self, op: Op, path: &str) -> Result<(), UfsError> {
        if name::is_well_formed(path) {
            return Ok(());
        }
        Err(UfsError::new(
            ErrorKind::Invalid,
            op,
            format!("{}/{path}", self.uri),
            "the path has empty, . or .. components",
        ))
    }

    fn not_found(&self, op: Op, path: &str) -> UfsError {
        UfsError::new(
            ErrorKind::NotFound,
            op,
            self.object_uri(path),
            "there is neither an object nor a directory",
        )
    }

    fn note_hidden(&self, dir: &str, hidden: u64) {
        if hidden == 0 {
            return;
        }
        self.metrics.add_hidden_names(hidden);
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ufs = self.uri,
                dir,
                hidden,
                "some keys cannot be shown as files and are hidden: names that are empty, . or \
                 .., too long, with control characters, or objects beside a directory of the \
                 same name; said once per mount, counted in millpond_ufs_hidden_names_total"
            );
        }
    }
}

struct Listing<B> {
    inner: Arc<Inner<B>>,
    dir: String,
    below: String,
    pager: Pager,
    next: Next,
}

enum Next {
    First,
    After(String),
    Done,
}

impl<B: Backend> fmt::Debug for ObjectUfs<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectUfs")
            .field("uri", &self.0.uri)
            .field("backend", &self.0.backend)
            .finish_non_exhaustive()
    }
}
