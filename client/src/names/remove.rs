//! Removal of files, links and empty directories.

use std::sync::Arc;

use millpond_proto::{ErrorKind, Refusal, change};
use millpond_ufs::{Attributes, UfsError};

use super::{entry_changes, refused};
use crate::core::Core;
use crate::error::ClientError;
use crate::filesystem::FileSystem;
use crate::namespace;
use crate::target::Target;

impl FileSystem {
    /// Removes the file or link `path`. Whoever has the file open keeps it as far as its bytes
    /// are at hand.
    ///
    /// # Errors
    /// `NotFound`; refused as `IsADirectory`, `ReadOnly`, or `InUse` for a mount; the UFS's
    /// kind.
    pub async fn unlink(&self, path: &str) -> Result<(), ClientError> {
        let path = namespace::normal(path)?;
        let core = self.core();
        let target = core.old_target("remove", path).await?;
        let call = removed(target.ufs.remove(&target.below), || {
            target.ufs.stat(&target.below)
        });
        let changes = entry_changes(&target);
        let removal = core.change("removing", &target, &changes, call);
        core.without_draft(path, removal).await?;
        core.keep_emptied(&target).await;
        Ok(())
    }

    /// Removes the empty directory `path`.
    ///
    /// # Errors
    /// `NotFound`; refused as `NotEmpty`, `NotADirectory`, `ReadOnly`, or `InUse` for a mount
    /// and for what lies above one; the UFS's kind.
    pub async fn rmdir(&self, path: &str) -> Result<(), ClientError> {
        let path = namespace::normal(path)?;
        let core = self.core();
        let target = core.old_target("remove", path).await?;
        if core.has_draft_below(path) {
            return Err(refused("remove", path, Refusal::NotEmpty));
        }
        let call = removed(target.ufs.remove_dir(&target.below), || {
            target.ufs.stat(&target.below)
        });
        core.change("removing", &target, &entry_changes(&target), call)
            .await?;
        core.marked.remove(path);
        core.keep_emptied(&target).await;
        Ok(())
    }
}

/// What `remove` came to; where that is not known, what `stat` says is there.
async fn removed<S>(
    remove: impl Future<Output = Result<(), UfsError>>,
    stat: impl FnOnce() -> S,
) -> Result<(), UfsError>
where
    S: Future<Output = Result<millpond_ufs::Metadata, UfsError>>,
{
    let error = match remove.await {
        Err(error) if is_unsure(&error) => error,
        result => return result,
    };
    match stat().await {
        Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(()),
        Ok(_) | Err(_) => Err(error),
    }
}

/// Whether the call that failed may have taken place.
pub(super) fn is_unsure(error: &UfsError) -> bool {
    error.refusal().is_none() && matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable)
}

impl Core {
    /// A directory of an object store is there because of what lies in it, unless it has a
    /// marker. It stays when the last of that goes: `gone` has just gone.
    pub(super) async fn keep_emptied(self: &Arc<Self>, gone: &Target) {
        let (Some(parent), Some((below, _))) =
            (change::parent(&gone.path), gone.below.rsplit_once('/'))
        else {
            return;
        };
        if gone.abilities.atomic_rename || self.marked.contains(parent) {
            return;
        }
        match gone.ufs.create_dir(below, &Attributes::default()).await {
            Ok(()) => self.marked.insert(parent),
            // Something is left in it.
            Err(error) if error.refusal() == Some(Refusal::Exists) => {}
            Err(error) => tracing::debug!(
                path = parent,
                error = &error as &dyn std::error::Error,
                "an emptied directory may not stay"
            ),
        }
    }
}
