//! Changes of names and attributes: directories, links, renames, removals.
//!
//! | module | holds |
//! |---|---|
//! | `check` | what is refused before a store is asked |
//! | `make`, `remove` | directories, links; removal |
//! | `rename`, `tree`, `journal` | renames; those of directories in object stores, and notes of them |
//! | `marked` | directories that stay when they are emptied |
//! | `draft` | what all of this means for files that are being written |
//! | `attributes` | modes, owners, times, extended attributes |
//!
//! # Invariants
//! - A change that is refused has changed nothing.
//! - After a call that succeeded, or whose outcome is unknown, nobody goes on believing what
//!   was known before it.
//! - No call that may have taken place is made a second time, unless the second has the same
//!   outcome.

mod attributes;
pub(crate) mod check;
mod draft;
pub(crate) mod journal;
mod make;
pub(crate) mod marked;
mod remove;
mod rename;
mod tree;

use std::sync::Arc;

use millpond_proto::{Change, ErrorKind, Refusal};
use millpond_ufs::UfsError;

use crate::core::Core;
use crate::error::ClientError;
use crate::target::Target;

impl Core {
    /// Makes one change: `call` is what asks the store. `changes` are made known when it has
    /// taken place or may have.
    async fn change<T>(
        self: &Arc<Self>,
        action: &'static str,
        target: &Target,
        changes: &[Change],
        call: impl Future<Output = Result<T, UfsError>>,
    ) -> Result<T, ClientError> {
        let limit = self.config.deadline;
        let result = match tokio::time::timeout(limit, call).await {
            Ok(result) => result.map_err(ClientError::from),
            Err(_) => Err(self.too_late(action, &target.path)),
        };
        match &result {
            Ok(_) => self.changed(changes, None).await,
            Err(error) if is_ambiguous(error) => self.changed(changes, None).await,
            // Not as this client believed, else it would not have been asked.
            Err(_) => self.forget_all(changes),
        }
        result
    }
}

/// Whether the change that failed may have taken place.
fn is_ambiguous(error: &ClientError) -> bool {
    error.refusal().is_none()
        && matches!(
            error.kind(),
            ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Internal
        )
}

/// A refusal.
fn refused(action: &'static str, path: &str, refusal: Refusal) -> ClientError {
    ClientError::Refused {
        action,
        path: path.to_owned(),
        refusal,
    }
}

/// What changes for others when something comes or goes at `target`: the first is that itself;
/// its directory has another time where the store keeps times.
pub(crate) fn entry_changes(target: &Target) -> Vec<Change> {
    let mut changes = vec![Change {
        path: target.path.clone(),
        recursive: false,
    }];
    if target.abilities.attributes
        && let Some(parent) = millpond_proto::change::parent(&target.path)
    {
        changes.push(Change {
            path: parent.to_owned(),
            recursive: false,
        });
    }
    changes
}
