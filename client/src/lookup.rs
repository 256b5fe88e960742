//! Attributes of paths: from the cache, or from the UFS, once however many ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_proto::{ErrorKind, MountId};
use millpond_ufs::Ufs;
use tokio::time::timeout;

use crate::attr::{Attr, FileKind};
use crate::core::Core;
use crate::error::ClientError;
use crate::metadata::Known;
use crate::metrics::Answer;
use crate::namespace::Place;
use crate::snapshot::Snapshot;

/// How a look-up ended.
pub(crate) type Looked = Result<Known, ClientError>;

/// How long the root of a mount may take to tell its attributes before it is shown without
/// them: a store that is down must not hide the mounts beside it.
const ROOT_PATIENCE: Duration = Duration::from_secs(2);

impl Core {
    /// The attributes of the normalized `path`, from the cache alone.
    pub(crate) fn known(&self, path: &str) -> Option<Known> {
        let generation = self.snapshot().generation;
        let known = self.metadata.get(path, generation, Instant::now())?;
        match &known {
            // An entry of a listing that does not tell the version: not enough to open.
            Known::Present(attr) if attr.is_file() && attr.version.is_none() => None,
            Known::Present(_) | Known::Absent => Some(known),
        }
    }

    /// The attributes of the normalized `path`, at most the TTL old.
    pub(crate) async fn look_up(self: &Arc<Self>, path: &str) -> Result<Arc<Attr>, ClientError> {
        let known = match self.known(path) {
            Some(known) => {
                self.metrics.count_metadata(Answer::Hit);
                known
            }
            None => {
                self.metrics.count_metadata(Answer::Miss);
                self.ask(path).await?
            }
        };
        match known {
            Known::Present(attr) => Ok(attr),
            Known::Absent => Err(ClientError::NotFound {
                path: path.to_owned(),
            }),
        }
    }

    async fn ask(self: &Arc<Self>, path: &str) -> Looked {
        let snapshot = self.snapshot();
        let key = (snapshot.generation, path.to_owned());
        let flight = self.lookups.join(key, &self.tasks, || {
            let (core, path) = (Arc::clone(self), path.to_owned());
            async move {
                if let Some(known) = core.known(&path) {
                    return Ok(known);
                }
                let asked_at = Instant::now();
                let known = core.ask_store(&snapshot, &path).await?;
                let generation = snapshot.generation;
                core.metadata
                    .put(&path, generation, known.clone(), asked_at);
                Ok(known)
            }
        });
        match timeout(self.config.deadline, flight).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(ClientError::ShutDown),
            Err(_) => Err(self.too_late("looking up", path)),
        }
    }

    async fn ask_store(&self, snapshot: &Snapshot, path: &str) -> Looked {
        let place = Place::of(&snapshot.view().mounts, path);
        if let Some(mount) = place.mount_here() {
            let attr = self.root_of(snapshot, mount).await;
            return Ok(Known::Present(Arc::new(attr)));
        }
        if place.is_fixed_directory() {
            return Ok(Known::Present(Arc::new(Attr::virtual_directory())));
        }
        let Some((mount, below)) = place.mount else {
            return Ok(Known::Absent);
        };
        let ufs = self.open_store(snapshot, mount).await?;
        match ufs.stat(&below).await {
            Ok(metadata) => {
                let attr = Attr::of(metadata, mount, &*ufs, &below);
                Ok(Known::Present(Arc::new(attr)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Known::Absent),
            Err(error) => Err(error.into()),
        }
    }

    /// The root of a mount is a directory, whatever its store says or fails to say.
    async fn root_of(&self, snapshot: &Snapshot, mount: MountId) -> Attr {
        let asked = timeout(ROOT_PATIENCE, async {
            let ufs = self.open_store(snapshot, mount).await.ok()?;
            let metadata = ufs.stat("").await.ok();
            let attr = metadata.map(|m| Attr::of(m, mount, &*ufs, ""));
            Some(match attr {
                Some(attr) if attr.kind == FileKind::Directory => attr,
                _ => Attr::mount_root(mount, ufs.uri()),
            })
        });
        let named = snapshot.view().mounts.by_id(mount).map(|m| m.ufs.as_str());
        let unknown = || Attr::mount_root(mount, named.unwrap_or_default());
        asked.await.ok().flatten().unwrap_or_else(unknown)
    }

    /// The store behind `mount`, opened if need be.
    pub(crate) async fn open_store(
        &self,
        snapshot: &Snapshot,
        mount: MountId,
    ) -> Result<Arc<dyn Ufs>, ClientError> {
        let store = snapshot.store(mount).ok_or_else(|| ClientError::NotFound {
            path: format!("mount {mount}"),
        })?;
        Ok(store.open(&self.ufs_context).await?)
    }
}
