//! The filesystem: paths in, attributes, listings and open files out.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use millpond_proto::{ClusterView, NodeId, NodeStats};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::attr::{Attr, DirEntry, StatFs};
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::file::FileHandle;
use crate::location::FileLocation;
use crate::sources::SourceBytes;

/// The namespace of a cluster, or of one UFS. Clones share everything.
///
/// Paths are absolute and normalized: `/`, `/data/a b/c`. A trailing `/` is accepted.
#[derive(Debug, Clone)]
pub struct FileSystem {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {}

#[allow(clippy::unused_async, unused_variables, reason = "signatures first")]
impl FileSystem {
    /// Joins the cluster of `config.coordinators`; starts from the last view on disk if none
    /// of them answers. Must be called in a tokio runtime, which serves the client from then
    /// on.
    ///
    /// # Errors
    /// `Invalid` for wrong settings; `Unavailable` when no coordinator answers and no view is
    /// on disk.
    pub async fn connect(
        config: ClientConfig,
        registry: &Mutex<Registry>,
    ) -> Result<Self, ClientError> {
        Err(ClientError::ShutDown)
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
        Err(ClientError::ShutDown)
    }

    /// The attributes of `path`, at most the metadata TTL old. Does not follow links.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a path that is not absolute and normalized; the UFS's kind.
    pub async fn stat(&self, path: &str) -> Result<Attr, ClientError> {
        Err(ClientError::ShutDown)
    }

    /// The attributes of `path` if they are known and fresh. Never waits, may be called on
    /// any thread.
    pub fn stat_cached(&self, path: &str) -> Option<Attr> {
        None
    }

    /// The directory `path`, page by page: first the names that exist because of mounts at or
    /// below them, then those of the UFS in its order. No name comes twice.
    pub fn list(&self, path: &str) -> BoxStream<'static, Result<Vec<DirEntry>, ClientError>> {
        futures::stream::empty().boxed()
    }

    /// Opens the file `path` in its present version (as of the metadata TTL).
    ///
    /// # Errors
    /// As [`FileSystem::stat`]; `Invalid` if it is no file.
    pub async fn open(&self, path: &str) -> Result<Arc<FileHandle>, ClientError> {
        Err(ClientError::ShutDown)
    }

    /// The target of the symbolic link `path`, as it is stored.
    ///
    /// # Errors
    /// As [`FileSystem::stat`]; `Invalid` if it is no link.
    pub async fn read_link(&self, path: &str) -> Result<String, ClientError> {
        Err(ClientError::ShutDown)
    }

    /// Figures for `statfs`.
    pub fn statfs(&self) -> StatFs {
        StatFs {
            block_size: 0,
            capacity: 0,
            nodes: 0,
            mounts: 0,
        }
    }

    /// The present view; that of a standalone client has no members, epoch 0, and the one
    /// mount.
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::new(ClusterView {
            cluster: millpond_proto::ClusterId([0; 16]),
            version: 0,
            epoch: millpond_proto::Epoch(0),
            block_size: millpond_proto::BlockSize::DEFAULT,
            members: Vec::new(),
            mounts: millpond_proto::MountTable::default(),
        })
    }

    /// Bytes handed to readers so far, by where they came from.
    pub fn sources(&self) -> SourceBytes {
        SourceBytes::default()
    }

    /// Bytes of file data that this client itself read from the UFS so far.
    pub fn ufs_bytes(&self) -> u64 {
        0
    }

    /// Where blocks `blocks` (cut at the file's end) of the file `path` should be and are.
    ///
    /// # Errors
    /// As [`FileSystem::open`].
    pub async fn locate(
        &self,
        path: &str,
        blocks: std::ops::Range<u64>,
    ) -> Result<FileLocation, ClientError> {
        Err(ClientError::ShutDown)
    }

    /// What `node` counts, asked of the node itself.
    ///
    /// # Errors
    /// `NotFound` if the view has no such node; `Unavailable` or `Timeout` if it does not
    /// answer.
    pub async fn node_stats(&self, node: NodeId) -> Result<NodeStats, ClientError> {
        Err(ClientError::ShutDown)
    }

    /// Ends all tasks and closes all connections. Reads under way fail with
    /// [`ClientError::ShutDown`].
    pub async fn shutdown(&self) {}
}
