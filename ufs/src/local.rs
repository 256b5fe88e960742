//! A directory of this machine, over the real filesystem.
//!
//! - Modes, owners, link counts, times and links are those of the inodes.
//! - Every path is resolved by the kernel below the root (`openat2` with
//!   `RESOLVE_BENEATH`): a link on the way that leads out of the root, an absolute one
//!   included, is `Denied`, whatever happens to the tree meanwhile. `stat` describes a link
//!   itself, `read_link` gives the target of one that stays below the root and is `Denied`
//!   for any other, `read` follows it within the root.
//! - Devices, sockets and pipes do not exist. Names that are not UTF-8 do not either; each
//!   directory that has any is warned about once.
//! - A listing is in the byte order of the names. The names of one directory are read at
//!   once and sorted, so memory grows with their number; their inodes are read page by page.
//! - The root is opened once: a directory that later takes its name is not seen.
//!
//! # Versions
//! The version is (mtime, ctime, inode), compared on the open descriptor before a read and
//! after each piece of it, before the piece is handed out. The kernel stamps times with a
//! coarse clock (up to 10 ms), so a file that changed within the last 20 ms could change
//! again unseen: `stat` waits those out, and a listing gives such a file no version. What
//! cannot be seen: writes through a shared memory mapping between two flushes of its pages,
//! and changes within the resolution of a filesystem whose times are coarser than 20 ms.

mod inode;
mod listing;
mod reading;
mod root;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use millpond_proto::{ErrorKind, FileVersion};

use crate::error::{Op, UfsError};
use crate::local::root::Root;
use crate::metadata::Metadata;
use crate::name;
use crate::ufs::{ByteStream, EntryStream, Ufs};
use crate::uri::{UfsUri, encode_path};

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

    fn check(&self, op: Op, path: &str) -> Result<(), UfsError> {
        if name::is_well_formed(path) {
            return Ok(());
        }
        Err(UfsError::new(
            ErrorKind::Invalid,
            op,
            self.object_uri(path),
            "the path has empty, . or .. components",
        ))
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
        inode::settled(Arc::clone(&self.root), path.to_owned()).await
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
