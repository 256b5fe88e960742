//! What changes of names mean for files that are being written.

use std::sync::Arc;

use millpond_ufs::{AttributeChange, Attributes, RenameMode};

use crate::attr::Attr;
use crate::core::Core;
use crate::error::ClientError;
use crate::target::Target;

impl Core {
    /// Refuses to make something where a file is being written that its store does not have yet.
    pub(super) fn check_no_draft(
        &self,
        _action: &'static str,
        _path: &str,
    ) -> Result<(), ClientError> {
        Ok(())
    }

    /// Has the store get what was written to `path` so far, if it is being written.
    pub(super) async fn settle_draft(self: &Arc<Self>, _path: &str) -> Result<(), ClientError> {
        Ok(())
    }

    /// Takes the name from what is being written at `path`; `removed` is what its removal from
    /// the store came to, which need not have had it yet.
    pub(super) fn forget_draft(
        &self,
        _path: &str,
        removed: Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        removed
    }

    /// Whether something below `dir` is being written that its store does not have yet.
    pub(super) fn has_draft_below(&self, _dir: &str) -> bool {
        false
    }

    /// Renames a file that is being written and that its store does not have yet; false if
    /// there is none at `source`, and the store has to rename.
    pub(super) async fn rename_draft(
        self: &Arc<Self>,
        _source: &Target,
        _target: &Target,
        _mode: RenameMode,
    ) -> Result<bool, ClientError> {
        Ok(false)
    }

    /// What is being written at `from` and below has its new path.
    pub(super) fn drafts_renamed(&self, _from: &str, _to: &str, _mode: RenameMode) {}

    /// Changes the attributes of a file that is being written; they go to the store with it.
    pub(super) fn change_draft(&self, _path: &str, _change: &AttributeChange) -> Option<Attr> {
        None
    }

    /// The attributes of a file that is being written.
    pub(super) fn draft_attributes(&self, _path: &str) -> Option<Attributes> {
        None
    }
}
