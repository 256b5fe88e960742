//! Opening files for writing.

use std::sync::Arc;

use millpond_proto::{ErrorKind, Refusal};
use millpond_ufs::Attributes;

use crate::attr::{Attr, FileKind};
use crate::core::Core;
use crate::error::ClientError;
use crate::file::FileHandle;
use crate::filesystem::FileSystem;
use crate::metadata::Known;
use crate::names::check::{check_name, inherit};
use crate::namespace;
use crate::target::Target;

use super::draft::Draft;
use super::writer::Writer;

impl FileSystem {
    /// Makes the file `path` with `attributes`, or opens the one that is there. With
    /// `exclusive` there must be none: the store is asked now, and once more when the file is
    /// sent. A new file is in the store when it was flushed or closed, and shows in this
    /// client from now on.
    ///
    /// # Errors
    /// Refused: `ReadOnly`, `Exists`, `IsADirectory`. `Invalid` for a symbolic link. The kinds
    /// of [`stat`](Self::stat).
    pub async fn create(
        &self,
        path: &str,
        attributes: Attributes,
        exclusive: bool,
    ) -> Result<Writer, ClientError> {
        let core = self.core();
        let target = core.target("create", namespace::normal(path)?).await?;
        check_name(&target)?;
        if core.drafts.changed(&target.path).is_some() && exclusive {
            return Err(refused("create", &target.path, Refusal::Exists));
        }
        if exclusive {
            core.check_absent(&target).await?;
        } else if let Known::Present(attr) = core.find(&target.path).await?.known {
            return core.write_over(&target, attr);
        }
        let parent = core.parent_of(&target.path).await?;
        let attributes = inherit(&parent, &attributes, false);
        let draft = Draft::new_file(core, &target, attributes, exclusive);
        let joined = core
            .drafts
            .join_or_insert(&target.path, draft, |there| there.is_changed());
        Ok(Writer::of(joined))
    }

    /// Opens the file `path` for reading and writing. With `truncate` it is empty from now on.
    ///
    /// # Errors
    /// Refused: `ReadOnly`, `IsADirectory`. `NotFound`; `Invalid` for a symbolic link. The
    /// kinds of [`stat`](Self::stat).
    pub async fn open_for_writing(
        &self,
        path: &str,
        truncate: bool,
    ) -> Result<Writer, ClientError> {
        let core = self.core();
        let target = core.target("write", namespace::normal(path)?).await?;
        let writer = match core.drafts.changed(&target.path) {
            Some(draft) => Writer::of(draft),
            None => {
                let attr = core.look_up(&target.path).await?;
                core.write_over(&target, attr)?
            }
        };
        if truncate {
            writer.truncate(0).await?;
        }
        Ok(writer)
    }

    /// Cuts the file `path` to `size`, or makes it longer with zeros; the store has it so when
    /// this returns, unless the file is open for writing: then it has when that is flushed.
    ///
    /// # Errors
    /// Those of [`open_for_writing`](Self::open_for_writing) and of [`Draft::flush`].
    pub async fn truncate(&self, path: &str, size: u64) -> Result<(), ClientError> {
        let writer = self.open_for_writing(path, false).await?;
        writer.truncate(size).await?;
        if writer.is_shared() {
            return Ok(());
        }
        writer.close().await
    }

    /// What is being written at `path` in this client and is not in the store yet.
    pub fn draft(&self, path: &str) -> Option<Arc<Draft>> {
        self.core().drafts.changed(namespace::normal(path).ok()?)
    }
}

impl Core {
    /// A handle on the file that is in the store as `attr` says.
    fn write_over(
        self: &Arc<Self>,
        target: &Target,
        attr: Arc<Attr>,
    ) -> Result<Writer, ClientError> {
        match attr.kind {
            FileKind::File => {}
            FileKind::Directory => {
                return Err(refused("write", &target.path, Refusal::IsADirectory));
            }
            FileKind::Symlink => {
                return Err(ClientError::NotAFile {
                    path: target.path.clone(),
                });
            }
        }
        let file = self.file_of(target, &attr)?;
        let id = file.id;
        let base = FileHandle::new(Arc::clone(self), file, attr);
        let draft = Draft::over(self, target, base);
        let is_same = |there: &Draft| there.is_changed() || there.version() == Some(id);
        let joined = self.drafts.join_or_insert(&target.path, draft, is_same);
        Ok(Writer::of(joined))
    }

    /// Asks the store itself whether there is nothing at the path.
    async fn check_absent(&self, target: &Target) -> Result<(), ClientError> {
        match target.ufs.stat(&target.below).await {
            Ok(_) => Err(refused("create", &target.path, Refusal::Exists)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn refused(action: &'static str, path: &str, refusal: Refusal) -> ClientError {
    ClientError::Refused {
        action,
        path: path.to_owned(),
        refusal,
    }
}
