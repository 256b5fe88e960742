//! The filesystem: paths in, attributes, listings and open files out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use millpond_net::block_client::BlockClient;
use millpond_proto::{Change, ClusterView, MountPath, NodeId, NodeStats, Trust};
use millpond_ufs::Space;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::attr::{Attr, DirEntry, FileKind, StatFs};
use crate::config::ClientConfig;
use crate::connect;
use crate::core::Core;
use crate::error::ClientError;
use crate::file::FileHandle;
use crate::listing::{self, Page};
use crate::load::Loaded;
use crate::location::{FileLocation, LocationReport};
use crate::lookup::Found;
use crate::metadata::{Believed, Directory, Known};
use crate::namespace::{self, Place};
use crate::news::Changes;
use crate::owner::Refreshed;
use crate::prefetch::{HintList, Trace};
use crate::sources::SourceBytes;
use crate::stats::ClientStats;
use crate::write::overlay;

/// The namespace of a cluster, or of one UFS. Clones share everything.
///
/// Paths are absolute and normalized: `/`, `/data/a b/c`. A trailing `/` is accepted.
#[derive(Debug, Clone)]
pub struct FileSystem {
    core: Arc<Core>,
}

impl FileSystem {
    /// Joins the cluster of `config.coordinators`; starts from the last view on disk if none
    /// of them answers. Must be called in a tokio runtime, which serves the client from then
    /// on.
    ///
    /// # Errors
    /// `Invalid` for wrong settings; `Unavailable` when no coordinator answers and no view is
    /// on disk; `Denied` when the coordinator gives this host no certificate.
    pub async fn connect(
        config: ClientConfig,
        registry: &Mutex<Registry>,
    ) -> Result<Self, ClientError> {
        let core = connect::connect(config, registry).await?;
        Ok(Self { core })
    }

    /// One UFS, mounted at `/`, without any node. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// `Invalid` for wrong settings or a wrong URI; the UFS's kind if its root cannot be
    /// listed.
    pub async fn standalone(
        uri: &str,
        options: BTreeMap<String, String>,
        config: ClientConfig,
        registry: &Mutex<Registry>,
    ) -> Result<Self, ClientError> {
        let core = connect::standalone(uri, options, config, registry).await?;
        Ok(Self { core })
    }

    #[cfg(test)]
    pub(crate) fn of(core: Arc<Core>) -> Self {
        Self { core }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The attributes of `path`, as old as the metadata mode of its mount allows. Does not
    /// follow links.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a path that is not absolute and normalized; the UFS's kind.
    pub async fn stat(&self, path: &str) -> Result<Attr, ClientError> {
        let found = self.look_up(path).await?;
        let absent = || ClientError::NotFound {
            path: path.to_owned(),
        };
        found.attr.map(|attr| (*attr).clone()).ok_or_else(absent)
    }

    /// The attributes of `path` if they are known and fresh. Never waits; may be called on
    /// any thread.
    pub fn stat_cached(&self, path: &str) -> Option<Attr> {
        Some((*self.look_up_cached(path)?.attr?).clone())
    }

    /// What `path` names, if anything, and for how long that may be believed without asking
    /// again. Does not follow links.
    ///
    /// # Errors
    /// As [`FileSystem::stat`], but absence is no error.
    pub async fn look_up(&self, path: &str) -> Result<Found, ClientError> {
        let path = namespace::normal(path)?;
        match self.core.drafted(path) {
            Some(drafted) => Ok(drafted),
            None => Ok(found(self.core.find(path).await?)),
        }
    }

    /// [`look_up`](Self::look_up) from memory alone: none if the store would have to be
    /// asked. Never waits; may be called on any thread. Allocates nothing.
    pub fn look_up_cached(&self, path: &str) -> Option<Found> {
        let path = namespace::normal(path).ok()?;
        let drafted = self.core.drafted(path);
        drafted.or_else(|| self.core.known(path).map(found))
    }

    /// The whole directory `path` if it was listed and is still believed, shared, not copied.
    /// Never waits; may be called on any thread.
    ///
    /// Directories in which mounts lie or files are being written, and those too large for the
    /// cache, are never there.
    pub fn list_cached(&self, path: &str) -> Option<Arc<Directory>> {
        let path = namespace::normal(path).ok()?;
        let drafted = self.core.drafted_in(path);
        drafted.is_empty().then(|| self.core.listed(path)).flatten()
    }

    /// Whether `path` is known, and fresh enough, not to exist. Never waits.
    pub fn is_known_absent(&self, path: &str) -> bool {
        let found = self.look_up_cached(path);
        found.is_some_and(|found| found.attr.is_none())
    }

    /// The directory `path`, page by page: first the names that exist because of mounts at or
    /// below them, then those of the UFS in its order. No name comes twice, no page is empty.
    ///
    /// The stream ends after its first error: `NotFound`; `Invalid` if it is no directory;
    /// the UFS's kind.
    pub fn list(&self, path: &str) -> BoxStream<'static, Result<Vec<DirEntry>, ClientError>> {
        let pages = self.pages(path);
        pages.map_ok(|page| page.entries().to_vec()).boxed()
    }

    /// As [`list`](Self::list), with the pages as they are shared between all who read the
    /// directory, and how long they may be believed. However many read it at once, the store
    /// is asked once; it is asked for a page only when somebody wants that page.
    pub fn pages(&self, path: &str) -> BoxStream<'static, Result<Page, ClientError>> {
        match namespace::normal(path) {
            Ok(path) => {
                let drafted = self.core.drafted_in(path);
                overlay::over(
                    listing::list(Arc::clone(&self.core), path.to_owned()),
                    drafted,
                )
            }
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    /// Opens the file `path` in the version that the store has (as of the metadata TTL). What is
    /// being written of it here is read through [`draft`](Self::draft). Does not follow links.
    ///
    /// # Errors
    /// As [`FileSystem::stat`]; `Invalid` if it is no file.
    pub async fn open(&self, path: &str) -> Result<Arc<FileHandle>, ClientError> {
        let path = namespace::normal(path)?;
        let (file, attr) = self.core.open_file(path).await?;
        self.core.note_open(&file);
        Ok(Arc::new(FileHandle::new(
            Arc::clone(&self.core),
            file,
            attr,
        )))
    }

    /// Has the cache nodes hold the file `path`; returns when they do. Its data does not pass
    /// through this client.
    ///
    /// # Errors
    /// As [`FileSystem::open`]; `Stale` if it is replaced meanwhile; `Unavailable` if no node
    /// is in service; the kind of what kept a node from filling a block.
    pub async fn load(&self, path: &str) -> Result<Loaded, ClientError> {
        let (file, _) = self.core.open_file(namespace::normal(path)?).await?;
        self.core.load(&Arc::new(file)).await
    }

    /// Fetches the files of `list` ahead of their readers, in its order, in place of the list
    /// before. An empty list ends that.
    ///
    /// It stays a bounded number of files and bytes ahead of those that were opened here;
    /// files that were opened already are left out. What cannot be fetched is counted in
    /// [`PrefetchProgress::errors`](crate::PrefetchProgress::errors).
    pub fn prefetch(&self, list: HintList) {
        self.core.prefetch(list);
    }

    /// The most text of a hint list, in bytes: what a list takes is memory for data no more.
    pub fn hint_list_limit(&self) -> u64 {
        (self.core.config.memory / 32).clamp(1 << 20, 64 << 20)
    }

    /// Records from now on which files are opened, as a hint list of the name `name`. A
    /// record under way is ended.
    ///
    /// # Errors
    /// `Invalid` for a name that is no file name.
    pub fn record(&self, name: &str) -> Result<(), ClientError> {
        self.core.prefetch.recorder.start(name)
    }

    /// Ends the record under way, if there is one.
    pub fn stop_record(&self) {
        self.core.prefetch.recorder.stop();
    }

    /// The records that were ended, the oldest first; only the last few are kept.
    pub fn traces(&self) -> Vec<Trace> {
        self.core.prefetch.recorder.traces()
    }

    /// What this client did so far.
    pub fn stats(&self) -> ClientStats {
        self.core.stats()
    }

    /// Whether anything of the namespace can be written, as far as is known: false if all its
    /// mounts are read-only, or this client is. Opens the stores.
    pub async fn can_be_written(&self) -> bool {
        self.core.can_be_written().await
    }

    /// The settings of this client.
    pub fn config(&self) -> &ClientConfig {
        &self.core.config
    }

    /// The target of the symbolic link `path`, as it is stored.
    ///
    /// # Errors
    /// As [`FileSystem::stat`]; `Invalid` if it is no link.
    pub async fn read_link(&self, path: &str) -> Result<String, ClientError> {
        let path = namespace::normal(path)?;
        let attr = self.core.look_up(path).await?;
        let snapshot = self.core.snapshot();
        let place = Place::of(&snapshot.view().mounts, path);
        match (attr.kind, place.mount) {
            (FileKind::Symlink, Some((mount, below))) => {
                let ufs = self.core.open_store(&snapshot, mount).await?;
                let limit = self.core.config.deadline;
                match tokio::time::timeout(limit, ufs.read_link(&below)).await {
                    Ok(target) => Ok(target?),
                    Err(_) => Err(self.core.too_late("reading the link", path)),
                }
            }
            _ => Err(ClientError::NotALink {
                path: path.to_owned(),
            }),
        }
    }

    /// Figures for `statfs`.
    pub fn statfs(&self) -> StatFs {
        let view = self.view();
        let nodes = view.serving().count();
        let tiers = || {
            let disk = self.core.config.disk.as_ref().map_or(0, |(_, size)| *size);
            self.core.memory.capacity() + disk
        };
        StatFs {
            block_size: view.block_size.bytes() as u32,
            capacity: if nodes > 0 {
                view.serving().map(|member| member.capacity).sum()
            } else {
                tiers()
            },
            nodes,
            mounts: view.mounts.iter().len(),
        }
    }

    /// The room of the store that holds `path`, if it has so much and no more, and tells.
    ///
    /// # Errors
    /// The UFS's kind.
    pub async fn space(&self, path: &str) -> Result<Option<Space>, ClientError> {
        let snapshot = self.core.snapshot();
        let place = Place::of(&snapshot.view().mounts, namespace::normal(path)?);
        let Some((mount, _)) = place.mount else {
            return Ok(None);
        };
        let ufs = self.core.open_store(&snapshot, mount).await?;
        match tokio::time::timeout(self.core.config.deadline, ufs.space()).await {
            Ok(space) => Ok(space?),
            Err(_) => Err(self.core.too_late("asking for the room of", path)),
        }
    }

    /// The present view; that of a standalone client has no members, epoch 0, and the one
    /// mount.
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(self.core.snapshot().view())
    }

    /// Whether a coordinator is connected: if not, the view is the last one known. A
    /// standalone client needs none.
    pub fn is_live(&self) -> bool {
        self.core.peers.as_ref().is_none_or(|peers| peers.is_live())
    }

    /// Whether there is a local disk tier.
    pub fn has_disk(&self) -> bool {
        self.core.disk.is_some()
    }

    /// The paths of the mounts that serve this namespace, in order.
    pub fn mount_paths(&self) -> Vec<MountPath> {
        let view = self.view();
        view.mounts.iter().map(|mount| mount.path.clone()).collect()
    }

    /// Forgets what is known of `path`, and of everything below it if `recursive`: here, at
    /// the nodes, and at all clients, whose next question goes to the store. What is open
    /// stays as it is.
    ///
    /// # Errors
    /// `Invalid` for a path that is not absolute and normalized. A node that does not answer
    /// is no error; it is named in the answer.
    pub async fn refresh(&self, path: &str, recursive: bool) -> Result<Refreshed, ClientError> {
        let change = Change {
            path: namespace::normal(path)?.to_owned(),
            recursive,
        };
        let refreshed = self.core.tell_nodes(&change).await;
        self.core.take_note(change);
        Ok(refreshed)
    }

    /// Forgets, here alone, what is known of `paths`: other names of a file that was changed.
    pub fn forget(&self, paths: &[String]) {
        for path in paths {
            self.core.metadata.forget(Change {
                path: path.clone(),
                recursive: false,
            });
        }
    }

    /// The changes from now on: those made known here by [`refresh`](Self::refresh) or by
    /// readers who came upon them, and those that others make known. Not those that are made
    /// through this client.
    pub fn changes(&self) -> Changes {
        self.core.teller.follow()
    }

    /// Whether a node tells this client now of changes that others make known. While none does,
    /// they are seen as the metadata mode of the mount allows.
    pub fn hears_changes(&self) -> bool {
        self.core.teller.is_following()
    }

    /// How long attributes are believed on mounts that do not say it themselves.
    pub fn metadata_ttl(&self) -> Duration {
        self.core.metadata.default_trust().presence()
    }

    /// How long what is said of `path` is believed: by the mount that holds it.
    pub fn trust(&self, path: &str) -> Trust {
        self.core.trust_of(path)
    }

    /// Bytes handed to readers so far, by where they came from.
    pub fn sources(&self) -> SourceBytes {
        self.core.metrics.sources()
    }

    /// Bytes of file data that this client itself read from the UFS so far.
    pub fn ufs_bytes(&self) -> u64 {
        self.core.metrics.ufs_read_bytes.get()
    }

    /// The client's connections to the cache nodes; none for a standalone client.
    pub fn block_client(&self) -> Option<BlockClient> {
        self.core.peers.as_ref().map(|peers| peers.client.clone())
    }

    /// Where blocks `blocks` (cut at the file's end) of the file `path` should be and are.
    ///
    /// # Errors
    /// As [`FileSystem::open`]. A node that does not answer is no error.
    pub async fn locate(
        &self,
        path: &str,
        blocks: Range<u64>,
    ) -> Result<FileLocation, ClientError> {
        let (file, attr) = self.core.open_file(namespace::normal(path)?).await?;
        Ok(FileLocation {
            block_size: self.core.layout.block_size(),
            blocks: self.core.locate(file.id, attr.size, blocks).await,
            attr: (*attr).clone(),
        })
    }

    /// The same, as it is told to others.
    ///
    /// # Errors
    /// As [`FileSystem::locate`].
    pub async fn location_report(
        &self,
        path: &str,
        blocks: Range<u64>,
    ) -> Result<LocationReport, ClientError> {
        let location = self.locate(path, blocks).await?;
        let epoch = self.view().epoch.0;
        Ok(LocationReport::new(path.to_owned(), epoch, location))
    }

    /// What `node` counts, asked of the node itself.
    ///
    /// # Errors
    /// `NotFound` if the view has no such node; `Unavailable` or `Timeout` if it does not
    /// answer.
    pub async fn node_stats(&self, node: NodeId) -> Result<NodeStats, ClientError> {
        self.core.node_stats(node).await
    }

    /// Ends all tasks and closes all connections, within about a second; what was written and
    /// not closed is sent first, within the deadline of a call. Reads under way
    /// fail with [`ClientError::ShutDown`]; blocks on their way to the local disk tier are
    /// given a moment to arrive.
    pub async fn shutdown(&self) {
        self.core.drafts.drain(self.core.config.deadline).await;
        if let Some(peers) = &self.core.peers {
            peers.stop_watching().await;
        }
        if let Some(disk) = &self.core.disk {
            disk.drain(Duration::from_millis(600)).await;
        }
        self.core.tasks.stop(Duration::from_millis(300)).await;
        if let Some(peers) = &self.core.peers {
            peers.shutdown().await;
        }
        if let Some(disk) = &self.core.disk {
            disk.close();
        }
    }
}

fn found(believed: Believed) -> Found {
    Found {
        attr: match believed.known {
            Known::Present(attr) => Some(attr),
            Known::Absent => None,
        },
        valid: believed.valid,
    }
}
