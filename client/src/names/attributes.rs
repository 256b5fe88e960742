//! Modes, owners, times and extended attributes.

use std::sync::Arc;

use millpond_proto::Change;
use millpond_ufs::{AttributeChange, Attributes};

use crate::attr::Attr;
use crate::core::Core;
use crate::error::ClientError;
use crate::filesystem::FileSystem;
use crate::namespace;
use crate::target::Target;

impl FileSystem {
    /// Changes attributes of `path`, of a link itself and not of what it points to; those that
    /// it has then. Where the store keeps none the call succeeds and changes nothing, as
    /// programs expect that copy files with their attributes.
    ///
    /// # Errors
    /// `NotFound`; `Denied`; refused as `NotPermitted`, `ReadOnly` or `TooLarge`;
    /// `Unsupported` for extended attributes that the store does not keep; the UFS's kind.
    pub async fn set_attributes(
        &self,
        path: &str,
        change: &AttributeChange,
    ) -> Result<Attr, ClientError> {
        let path = namespace::normal(path)?;
        let core = self.core();
        let target = core.target("change the attributes of", path).await?;
        if !target.abilities.attributes {
            if !change.xattrs.is_empty() {
                return Err(ClientError::NoAttributes {
                    path: path.to_owned(),
                });
            }
            return self.stat(path).await;
        }
        if change.is_empty() {
            return self.stat(path).await;
        }
        if let Some(attr) = core.change_draft(path, change) {
            return Ok(attr);
        }
        core.set_stored(&target, change).await
    }

    /// All attributes of `path`, extended ones included; what its store does not keep is
    /// absent.
    ///
    /// # Errors
    /// As [`FileSystem::stat`].
    pub async fn attributes(&self, path: &str) -> Result<Attributes, ClientError> {
        let path = namespace::normal(path)?;
        let core = self.core();
        let snapshot = core.snapshot();
        let place = namespace::Place::of(&snapshot.view().mounts, path);
        let Some((mount, below)) = place.mount else {
            self.stat(path).await?;
            return Ok(Attributes::default());
        };
        if let Some(attributes) = core.draft_attributes(path).await {
            return attributes;
        }
        let ufs = core.open_store(&snapshot, mount).await?;
        let limit = core.config.deadline;
        match tokio::time::timeout(limit, ufs.attributes(&below)).await {
            Ok(attributes) => Ok(attributes?),
            Err(_) => Err(core.too_late("reading the attributes of", path)),
        }
    }
}

impl Core {
    async fn set_stored(
        self: &Arc<Self>,
        target: &Target,
        change: &AttributeChange,
    ) -> Result<Attr, ClientError> {
        let changes = [Change {
            path: target.path.clone(),
            recursive: false,
        }];
        let call = target.ufs.set_attributes(&target.below, change);
        let metadata = self
            .change("changing the attributes of", target, &changes, call)
            .await?;
        let attr = Arc::new(Attr::of(
            metadata,
            target.mount,
            &*target.ufs,
            &target.below,
        ));
        if !target.is_fixed {
            self.believe(&target.path, Arc::clone(&attr));
        }
        self.draft_is_now(target, &attr).await;
        Ok((*attr).clone())
    }
}
