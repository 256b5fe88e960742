//! A directory of this machine, over the real filesystem.
//!
//! - Modes, owners, link counts, times and links are those of the inodes.
//! - Every path is resolved by the kernel below the root (`openat2` with
//!   `RESOLVE_BENEATH`): a link on the way that leads out of the root, an absolute one
//!   included, is `Denied`, whatever happens to the tree meanwhile. `stat` describes a link
//!   itself, `read_link` gives its target wherever that is, `read` follows it within the root.
//! - Devices, sockets and pipes do not exist. Names that are not UTF-8 do not either; each
//!   directory that has any is warned about once.
//! - A listing is in the byte order of the names. The names of one directory are read at
//!   once and sorted, so memory grows with their number; their inodes are read page by page.
//! - The root is opened once: a directory that later takes its name is not seen.
//!
//! # Writing
//!
//! - A file is written beside its place, under a reserved name that no listing shows, and
//!   renamed into it when it is whole and on the disk; then its directory is synced. So a reader
//!   and a power failure find the old file or the new one. What a crash leaves behind is found
//!   by `unfinished_uploads`.
//! - The new file is another inode. It is given the mode, the owner and the extended attributes
//!   of the old one where nothing else is asked for, as if it had been written in place. A file
//!   that had several names has one less: the others keep the old content. Writing in place
//!   instead would show readers, and a power failure, something half written.
//! - Names are changed by single system calls below the open directory; `rename` is atomic, of
//!   directories too.
//! - [`Condition::Version`] is checked right before the rename, under a lock on the directory
//!   that all Millpond processes take. A program that writes to the directory by itself, in that
//!   very moment, is not kept out.
//!
//! # Versions
//! The version is (mtime, ctime, inode), compared on the open descriptor before a read and
//! after each piece of it, before the piece is handed out. The kernel stamps times with a
//! coarse clock (up to 10 ms), so a file that changed within the last 20 ms could change
//! again unseen: `stat` waits those out, and a listing gives such a file no version. A file that
//! was put into its place by this process is known at once, without a wait: it was given a
//! modification time to the nanosecond, and any later write would give it one of the coarse
//! clock, which is another. What
//! cannot be seen: writes through a shared memory mapping between two flushes of its pages,
//! and changes within the resolution of a filesystem whose times are coarser than 20 ms.

mod attributes;
mod failure;
mod inode;
mod leftover;
mod listing;
mod names;
mod place;
mod reading;
mod root;
mod unfinished;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use millpond_proto::{ErrorKind, FileVersion, Refusal};

use crate::error::{Op, UfsError};
use crate::local::root::Root;
use crate::local::upload::LocalUpload;
use crate::metadata::Metadata;
use crate::name::{self, UNFINISHED};
use crate::ufs::{ByteStream, EntryStream, Ufs};
use crate::uri::{UfsUri, encode_path};
use crate::write::{
    Abilities, AttributeChange, Attributes, Condition, PartRules, RenameMode, Space,
    UnfinishedStream, Upload,
};

/// A directory of this machine.
#[derive(Debug)]
pub(crate) struct LocalUfs {
    root: Arc<Root>,
}

impl LocalUfs {
    /// Opens the directory that `uri` names, which must exist.
    pub(crate) async fn open(uri: &UfsUri) -> Result<Self, UfsError> {
        let (text, path) = (uri.to_string(), uri.root().to_owned());
        let root = blocking(Op::Open, &text.clone(), move || Root::open(text, &path)).await?;
        Ok(Self {
            root: Arc::new(root),
        })
    }

    fn check_form(&self, op: Op, path: &str) -> Result<(), UfsError> {
        let error = |kind, cause: &str| UfsError::new(kind, op, self.object_uri(path), cause);
        if !name::is_well_formed(path) {
            let cause = "the path has empty, . or .. components";
            return Err(error(ErrorKind::Invalid, cause));
        }
        let reserved = path.split('/').any(|name| name.starts_with(UNFINISHED));
        match (reserved, op.changes()) {
            (false, _) => Ok(()),
            (true, false) => Err(error(ErrorKind::NotFound, "the name is reserved")),
            (true, true) => Err(error(ErrorKind::Invalid, "the name is reserved")),
        }
    }

    /// That `path` has the right form, and if it is to be changed that it is not the root.
    fn check(&self, op: Op, path: &str) -> Result<(), UfsError> {
        self.check_form(op, path)?;
        if !op.changes() || !path.is_empty() {
            return Ok(());
        }
        let refusal = match op {
            Op::CreateDir | Op::Link => Refusal::Exists,
            Op::Rename | Op::RemoveDir => Refusal::InUse,
            _ => Refusal::IsADirectory,
        };
        let uri = self.object_uri(path);
        Err(UfsError::refused(
            refusal,
            op,
            uri,
            "it is the root of the mount",
        ))
    }

    /// Does `work` to `path` on a thread that may block.
    async fn change<T: Send + 'static>(
        &self,
        op: Op,
        path: &str,
        work: impl FnOnce(&Root, &str) -> Result<T, UfsError> + Send + 'static,
    ) -> Result<T, UfsError> {
        self.check(op, path)?;
        let (root, at) = (Arc::clone(&self.root), path.to_owned());
        blocking(op, &self.object_uri(path), move || work(&root, &at)).await
    }
}

#[async_trait]
impl Ufs for LocalUfs {
    fn uri(&self) -> &str {
        self.root.uri()
    }

    fn object_uri(&self, path: &str) -> String {
        self.root.uri_of(path)
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        self.check(Op::Stat, path)?;
        inode::settled(Arc::clone(&self.root), Op::Stat, path.to_owned()).await
    }

    fn list(&self, dir: &str) -> EntryStream {
        match self.check(Op::List, dir) {
            Ok(()) => listing::list(Arc::clone(&self.root), dir.to_owned()),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
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
        self.check(Op::Read, path)?;
        reading::read(
            Arc::clone(&self.root),
            path.to_owned(),
            version.clone(),
            range,
        )
        .await
    }

    async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        self.check(Op::ReadLink, path)?;
        let (root, path) = (Arc::clone(&self.root), path.to_owned());
        let uri = self.object_uri(&path);
        blocking(Op::ReadLink, &uri, move || root.read_link(&path)).await
    }

    fn abilities(&self) -> Abilities {
        if !self.root.is_writable() {
            return Abilities::default();
        }
        Abilities {
            write: true,
            attributes: true,
            symlinks: true,
            hard_links: true,
            atomic_rename: true,
            exchange: true,
            if_absent: true,
            if_version: true,
            copy_parts: true,
            parts: PartRules {
                min: 1,
                max: MAX_FILE,
                count: u32::MAX,
                object: MAX_FILE,
            },
        }
    }

    async fn put(
        &self,
        path: &str,
        data: Bytes,
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        self.check(Op::Put, path)?;
        let (root, path) = (Arc::clone(&self.root), path.to_owned());
        upload::put(root, path, data, attributes.clone(), condition.clone()).await
    }

    async fn upload(
        &self,
        path: &str,
        attributes: &Attributes,
    ) -> Result<Box<dyn Upload>, UfsError> {
        self.check(Op::Upload, path)?;
        let (root, path) = (Arc::clone(&self.root), path.to_owned());
        let upload = LocalUpload::begin(root, path, attributes.clone()).await?;
        Ok(Box::new(upload))
    }

    fn unfinished_uploads(&self, dir: &str) -> UnfinishedStream {
        match self.check(Op::List, dir) {
            Ok(()) => leftover::list(Arc::clone(&self.root), dir.to_owned()),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn abort_upload(&self, path: &str, id: &str) -> Result<(), UfsError> {
        let id = id.to_owned();
        self.change(Op::Upload, path, move |root, path| {
            unfinished::abort(root, path, &id)
        })
        .await
    }

    async fn copy(
        &self,
        from: &str,
        to: &str,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        self.check(Op::Copy, from)?;
        self.check(Op::Copy, to)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        upload::copy(Arc::clone(&self.root), from, to, condition.clone()).await
    }

    async fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), UfsError> {
        self.check(Op::Rename, to)?;
        let to = to.to_owned();
        self.change(Op::Rename, from, move |root, from| {
            names::rename(root, from, &to, mode)
        })
        .await
    }

    async fn remove(&self, path: &str) -> Result<(), UfsError> {
        self.change(Op::Remove, path, names::remove).await
    }

    async fn create_dir(&self, path: &str, attributes: &Attributes) -> Result<(), UfsError> {
        let attributes = attributes.clone();
        self.change(Op::CreateDir, path, move |root, path| {
            names::create_dir(root, path, &attributes)
        })
        .await
    }

    async fn remove_dir(&self, path: &str) -> Result<(), UfsError> {
        self.change(Op::RemoveDir, path, names::remove_dir).await
    }

    async fn symlink(
        &self,
        path: &str,
        target: &str,
        attributes: &Attributes,
    ) -> Result<(), UfsError> {
        let (target, attributes) = (target.to_owned(), attributes.clone());
        self.change(Op::Link, path, move |root, path| {
            names::symlink(root, path, &target, &attributes)
        })
        .await
    }

    async fn hard_link(&self, from: &str, to: &str) -> Result<(), UfsError> {
        self.check(Op::Link, to)?;
        let to = to.to_owned();
        self.change(Op::Link, from, move |root, from| {
            names::hard_link(root, from, &to)
        })
        .await
    }

    async fn space(&self) -> Result<Option<Space>, UfsError> {
        let root = Arc::clone(&self.root);
        let uri = self.object_uri("");
        blocking(Op::Stat, &uri, move || root.space().map(Some)).await
    }

    async fn attributes(&self, path: &str) -> Result<Attributes, UfsError> {
        self.check(Op::GetAttributes, path)?;
        let (root, path) = (Arc::clone(&self.root), path.to_owned());
        let uri = self.object_uri(&path);
        blocking(Op::GetAttributes, &uri, move || {
            attributes::read(&root, &path)
        })
        .await
    }

    async fn set_attributes(
        &self,
        path: &str,
        change: &AttributeChange,
    ) -> Result<Metadata, UfsError> {
        let op = Op::SetAttributes;
        self.check_form(op, path)?;
        let (root, at, change) = (Arc::clone(&self.root), path.to_owned(), change.clone());
        let uri = self.object_uri(path);
        let known = blocking(op, &uri, move || attributes::change(&root, &at, &change));
        match known.await? {
            Some(metadata) => Ok(metadata),
            None => inode::settled(Arc::clone(&self.root), op, path.to_owned()).await,
        }
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(
    op: Op,
    uri: &str,
    work: impl FnOnce() -> Result<T, UfsError> + Send + 'static,
) -> Result<T, UfsError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(UfsError::new(
            ErrorKind::Internal,
            op,
            uri,
            format!("the thread that did it ended: {error}"),
        )),
    }
}

/// The longest file of Linux.
const MAX_FILE: u64 = i64::MAX.unsigned_abs();

/// `root` and `path` as one `file://` URI.
fn join(root: &str, path: &str) -> String {
    match path {
        "" => root.to_owned(),
        path => format!(
            "{}/{}",
            root.strip_suffix('/').unwrap_or(root),
            encode_path(path)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_join_with_one_slash_also_at_the_root_of_the_machine() {
        assert_eq!(join("file:///", "a b"), "file:///a%20b");
        assert_eq!(join("file:///d", "a/b"), "file:///d/a/b");
        assert_eq!(join("file:///d", ""), "file:///d");
    }
}
