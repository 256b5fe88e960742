//! Directories, page by page: what the UFS holds, with the mounts on top.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use millpond_proto::{ErrorKind, MountId};
use millpond_ufs::{Entry, Ufs, UfsError};
use tokio::time::timeout;

use crate::attr::{Attr, DirEntry};
use crate::core::Core;
use crate::error::ClientError;
use crate::metadata::Known;
use crate::namespace::{self, Place};
use crate::prefetch::Names;

/// Pages of a directory.
pub(crate) type Pages = BoxStream<'static, Result<Vec<DirEntry>, ClientError>>;

/// The directory at the normalized `path`. What the pages say of files is entered into the
/// metadata cache, so that opening what was listed asks the UFS nothing.
pub(crate) fn list(core: Arc<Core>, path: String) -> Pages {
    stream::once(async move { begin(core, path).await })
        .try_flatten()
        .boxed()
}

async fn begin(core: Arc<Core>, path: String) -> Result<Pages, ClientError> {
    let snapshot = core.snapshot();
    let place = Place::of(&snapshot.view().mounts, &path);
    let fixed = place.is_fixed_directory();
    let first = mounted(&core, &path, &place.children).await;
    let first = stream::iter((!first.is_empty()).then_some(Ok(first)));
    let Some((mount, below)) = place.mount else {
        return if fixed {
            Ok(first.boxed())
        } else {
            Err(ClientError::NotFound { path })
        };
    };

    let ufs = core.open_store(&snapshot, mount).await?;
    let pages = Listing {
        pages: ufs.list(&below),
        hidden: place.children.into_iter().collect(),
        generation: snapshot.generation,
        mount,
        ufs,
        below,
        path,
        core,
        // A directory that exists because of mounts need not exist in the store around it.
        may_be_absent: fixed,
        ended: false,
        names: Names::default(),
    };
    Ok(first.chain(pages.into_stream()).boxed())
}

/// The names that exist because of mounts.
async fn mounted(core: &Arc<Core>, path: &str, names: &[String]) -> Vec<DirEntry> {
    let entry = |name: &String| {
        let (core, name) = (Arc::clone(core), name.clone());
        let child = namespace::join(path, &name);
        async move {
            let attr = match core.look_up(&child).await {
                Ok(attr) => (*attr).clone(),
                // It went away between two views, or the client is shutting down.
                Err(_) => Attr::virtual_directory(),
            };
            DirEntry { name, attr }
        }
    };
    futures::future::join_all(names.iter().map(entry)).await
}

struct Listing {
    core: Arc<Core>,
    ufs: Arc<dyn Ufs>,
    mount: MountId,
    generation: u64,
    path: String,
    below: String,
    hidden: HashSet<String>,
    pages: BoxStream<'static, Result<Vec<Entry>, UfsError>>,
    may_be_absent: bool,
    ended: bool,
    /// The names of its files so far.
    names: Names,
}

impl Listing {
    fn into_stream(self) -> Pages {
        stream::unfold(self, |mut listing| async {
            let page = listing.next().await?;
            Some((page, listing))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<Vec<DirEntry>, ClientError>> {
        while !self.ended {
            let asked_at = Instant::now();
            let page = timeout(self.core.config.deadline, self.pages.next()).await;
            let answer = match page {
                Ok(None) => {
                    let names = std::mem::take(&mut self.names);
                    self.core.prefetch.learn(&self.path, names);
                    return None;
                }
                Ok(Some(Ok(page))) => {
                    self.may_be_absent = false;
                    let entries = self.entries(page, asked_at);
                    let files = entries.iter().filter(|entry| entry.attr.is_file());
                    files.for_each(|entry| self.names.push(&entry.name));
                    Ok(entries)
                }
                Ok(Some(Err(error))) => {
                    self.ended = true;
                    if error.kind() == ErrorKind::NotFound && self.may_be_absent {
                        return None;
                    }
                    let at_root = self.below.is_empty();
                    let path = self.path.clone();
                    Err(explain(&self.core, path, at_root, self.generation, error).await)
                }
                Err(_) => {
                    self.ended = true;
                    Err(self.core.too_late("listing", &self.path))
                }
            };
            if !matches!(&answer, Ok(entries) if entries.is_empty()) {
                return Some(answer);
            }
        }
        None
    }

    fn entries(&self, page: Vec<Entry>, asked_at: Instant) -> Vec<DirEntry> {
        let shown = page
            .into_iter()
            .filter(|entry| !self.hidden.contains(&entry.name));
        let entry = |entry: Entry| {
            let below = if self.below.is_empty() {
                entry.name.clone()
            } else {
                format!("{}/{}", self.below, entry.name)
            };
            let attr = Attr::of(entry.metadata, self.mount, &*self.ufs, &below);
            let path = namespace::join(&self.path, &entry.name);
            let attr = self
                .core
                .metadata
                .put_listed(&path, self.generation, attr, asked_at);
            DirEntry {
                name: entry.name,
                attr: (*attr).clone(),
            }
        };
        shown.map(entry).collect()
    }
}

/// Says what is wrong with `path` in terms of the namespace, where that is known.
async fn explain(
    core: &Arc<Core>,
    path: String,
    at_root: bool,
    generation: u64,
    error: UfsError,
) -> ClientError {
    if at_root || !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) {
        return error.into();
    }
    match core.look_up(&path).await {
        Ok(attr) if !attr.is_dir() => ClientError::NotADirectory { path },
        Err(ClientError::NotFound { path }) => {
            let at = Instant::now();
            core.metadata.put(&path, generation, Known::Absent, at);
            ClientError::NotFound { path }
        }
        Ok(_) | Err(_) => error.into(),
    }
}
