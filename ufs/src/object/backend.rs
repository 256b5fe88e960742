//! What an object store must do for us.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_proto::FileVersion;

use crate::error::{Op, UfsError};
use crate::ufs::ByteStream;
use crate::write::{Abilities, Condition, Unfinished, Upload};

/// A flat space of keys. Knows nothing of files, directories or mounts.
#[async_trait]
pub(crate) trait Backend: Debug + Send + Sync + 'static {
    /// The canonical URI of the object with `key`, in this store and no other.
    fn uri_of(&self, key: &str) -> String;

    /// Whether [`page`](Self::page) shows the object whose key is the prefix itself, where the
    /// prefix does not end in a slash.
    fn pages_show_their_prefix(&self) -> bool;

    /// Up to `max` keys and common prefixes (delimiter `/`) that begin with `prefix`, in
    /// byte order, after the page that gave `token`.
    async fn page(
        &self,
        prefix: &str,
        token: Option<String>,
        max: usize,
    ) -> Result<RawPage, UfsError>;

    /// What is at `key`; `None` if there is nothing.
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, UfsError>;

    /// The bytes `range`, which is not empty, of the object at `key` in `version`. The
    /// caller counts them.
    async fn get(
        &self,
        key: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError>;

    /// What it can do, attributes and links apart, which are not its business.
    fn abilities(&self) -> Abilities;

    /// What is at `key`, which may be a marker, with what it was given beside its bytes; `None`
    /// if there is nothing.
    async fn describe(&self, key: &str) -> Result<Option<(ObjectMeta, Extra)>, UfsError>;

    /// Makes `data` the object at `key`, in the course of `op`.
    async fn put_object(
        &self,
        op: Op,
        key: &str,
        data: Bytes,
        extra: &Extra,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError>;

    /// Removes the object at `key`, in the course of `op`. One that is not there is no error.
    async fn delete(&self, op: Op, key: &str) -> Result<(), UfsError>;

    /// Copies `from`, which is not changed, whatever its size, to `key` in the course of `op`,
    /// with what it was given beside its bytes, or with `extra` instead.
    async fn copy(
        &self,
        op: Op,
        from: &ObjectMeta,
        key: &str,
        extra: Option<&Extra>,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError>;

    /// Begins an upload; its paths are keys.
    async fn upload(&self, key: &str, extra: &Extra) -> Result<Box<dyn Upload>, UfsError>;

    /// The uploads below `prefix` that have not ended, after the page that gave `token`. Their
    /// paths are keys.
    async fn uploads(&self, prefix: &str, token: Option<String>) -> Result<RawUploads, UfsError>;

    /// Ends an upload. One that is not there is no error.
    async fn abort(&self, key: &str, id: &str) -> Result<(), UfsError>;
}

/// What an object is given beside its bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Extra {
    /// Headers of its own that the store keeps and gives back: `content-type` and the like.
    pub(crate) system: BTreeMap<&'static str, String>,
    /// User metadata, names in lower case and without the store's prefix.
    pub(crate) user: BTreeMap<String, String>,
}

/// One page of unfinished uploads.
#[derive(Debug, Default)]
pub(crate) struct RawUploads {
    pub(crate) uploads: Vec<Unfinished>,
    /// How to get the next page; `None` after the last.
    pub(crate) next: Option<String>,
}

/// One object of a listing or a HEAD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectMeta {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) version: Option<FileVersion>,
    pub(crate) mtime: Option<SystemTime>,
}

/// One page of keys as the store gave it.
#[derive(Debug, Default)]
pub(crate) struct RawPage {
    pub(crate) objects: Vec<ObjectMeta>,
    /// Common prefixes, each ending in `/`.
    pub(crate) prefixes: Vec<String>,
    /// Keys and prefixes that the backend itself left out because they cannot be shown.
    pub(crate) hidden: u64,
    /// Whether the store has the marker of the listed directory, but did not list it.
    pub(crate) has_marker: bool,
    /// How to get the next page; `None` after the last.
    pub(crate) next: Option<String>,
}

impl RawPage {
    /// Whether any key begins with the prefix, shown or not.
    pub(crate) fn has_keys(&self) -> bool {
        !self.objects.is_empty() || !self.prefixes.is_empty() || self.hidden > 0 || self.has_marker
    }
}
