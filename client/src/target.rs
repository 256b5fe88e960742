//! Where a change takes place: in which store, and whether it may be made there at all.

use std::sync::Arc;

use millpond_proto::{MountId, Refusal};
use millpond_ufs::{Abilities, Ufs};

use crate::core::Core;
use crate::error::ClientError;
use crate::namespace::Place;

/// A path that may be changed, and the store that it lies in.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The path in the namespace, normalized.
    pub(crate) path: String,
    /// The mount that holds it.
    pub(crate) mount: MountId,
    /// The path below the mount; empty for its root.
    pub(crate) below: String,
    /// The store behind the mount.
    pub(crate) ufs: Arc<dyn Ufs>,
    /// What that store is able to do: to be written, at least.
    pub(crate) abilities: Abilities,
    /// Whether it is a directory because of the mount table: the root of a mount, or a
    /// directory above one. Its name cannot be changed.
    pub(crate) is_fixed: bool,
}

impl Core {
    /// The store in which `action` would change what is at the normalized `path`.
    ///
    /// # Errors
    /// Refused as `ReadOnly`, before anything is asked of a store, if this client, the mount or
    /// its store is read-only, or the path lies above all mounts. The kind of what keeps the
    /// store from being opened.
    pub(crate) async fn target(
        &self,
        action: &'static str,
        path: &str,
    ) -> Result<Target, ClientError> {
        let read_only = || ClientError::Refused {
            action,
            path: path.to_owned(),
            refusal: Refusal::ReadOnly,
        };
        if self.config.read_only {
            return Err(read_only());
        }
        let snapshot = self.snapshot();
        let place = Place::of(&snapshot.view().mounts, path);
        let is_fixed = place.is_fixed_directory();
        let (mount, below) = place.mount.ok_or_else(read_only)?;
        let ufs = self.open_store(&snapshot, mount).await?;
        let abilities = ufs.abilities();
        if !abilities.write {
            return Err(read_only());
        }
        Ok(Target {
            path: path.to_owned(),
            mount,
            below,
            ufs,
            abilities,
            is_fixed,
        })
    }

    /// Whether anything of the namespace can be written, as far as is known: a store that
    /// cannot be opened now may well be writable, and so may mounts that come later.
    pub(crate) async fn can_be_written(&self) -> bool {
        if self.config.read_only {
            return false;
        }
        let snapshot = self.snapshot();
        let mut is_empty = true;
        for mount in snapshot.view().mounts.iter() {
            is_empty = false;
            match self.open_store(&snapshot, mount.id).await {
                Ok(ufs) if !ufs.abilities().write => {}
                Ok(_) | Err(_) => return true,
            }
        }
        is_empty
    }
}
