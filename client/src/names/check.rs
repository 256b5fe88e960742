//! What is refused before a store is asked to change anything.

use std::sync::Arc;

use millpond_proto::{Refusal, change};
use millpond_ufs::Attributes;

use super::refused;
use crate::attr::Attr;
use crate::core::Core;
use crate::error::ClientError;
use crate::metadata::Known;
use crate::target::Target;

/// The bit that hands a directory's group down to what is made in it.
const SET_GID: u32 = 0o2000;

impl Core {
    /// Where something new is to be made: in a directory that exists, as far as this client
    /// knows, under a name that the store can hold.
    ///
    /// # Errors
    /// Those of [`Core::target`]; `NotFound` or refused as `NotADirectory` for the parent;
    /// refused as `Exists` for a mount; `Invalid` for a name that no key can have.
    pub(crate) async fn new_target(
        self: &Arc<Self>,
        action: &'static str,
        path: &str,
    ) -> Result<(Target, Arc<Attr>), ClientError> {
        let target = self.target(action, path).await?;
        if target.is_fixed {
            return Err(refused(action, path, Refusal::Exists));
        }
        check_name(&target)?;
        let parent = self.parent_of(path).await?;
        Ok((target, parent))
    }

    /// The attributes of the directory that holds `path`.
    pub(crate) async fn parent_of(self: &Arc<Self>, path: &str) -> Result<Arc<Attr>, ClientError> {
        let parent = change::parent(path).unwrap_or("/");
        match self.find(parent).await?.known {
            Known::Present(attr) if attr.is_dir() => Ok(attr),
            Known::Present(_) => Err(ClientError::NotADirectory {
                path: parent.to_owned(),
            }),
            Known::Absent => Err(ClientError::NotFound {
                path: parent.to_owned(),
            }),
        }
    }

    /// Where something that is there is to be changed or removed by its name.
    ///
    /// # Errors
    /// Those of [`Core::target`]; refused as `InUse` for a mount.
    pub(super) async fn old_target(
        &self,
        action: &'static str,
        path: &str,
    ) -> Result<Target, ClientError> {
        let target = self.target(action, path).await?;
        match target.is_fixed {
            true => Err(refused(action, path, Refusal::InUse)),
            false => Ok(target),
        }
    }
}

/// A key of an object store has no control characters: XML, in which stores list them, cannot
/// hold most of them.
pub(crate) fn check_name(target: &Target) -> Result<(), ClientError> {
    let is_key = !target.abilities.atomic_rename;
    if is_key && target.below.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(ClientError::BadPath {
            path: target.path.clone(),
            why: "a name in an object store must have no control character",
        });
    }
    Ok(())
}

/// What is made in a directory that hands its group down has that group, and a directory does
/// as its parent.
pub(crate) fn inherit(parent: &Attr, attributes: &Attributes, is_dir: bool) -> Attributes {
    let mut attributes = attributes.clone();
    if parent.mode.is_some_and(|mode| mode & SET_GID != 0) {
        attributes.gid = parent.gid.or(attributes.gid);
        if is_dir {
            attributes.mode = attributes.mode.map(|mode| mode | SET_GID);
        }
    }
    attributes
}
