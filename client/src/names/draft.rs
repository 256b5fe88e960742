//! What changes of names and attributes mean for files that are being written.

use std::sync::Arc;

use millpond_proto::{ErrorKind, Refusal};
use millpond_ufs::{AttributeChange, Attributes, RenameMode};

use super::refused;
use crate::attr::Attr;
use crate::core::Core;
use crate::error::ClientError;
use crate::file::FileHandle;
use crate::target::Target;
use crate::write::Turns;

/// A path that nothing has: NUL is in no name.
const NOWHERE: &str = "/\0";

impl Core {
    /// Refuses to make something where a file is being written that its store does not have yet.
    pub(super) fn check_no_draft(
        &self,
        action: &'static str,
        path: &str,
    ) -> Result<(), ClientError> {
        match self.drafts.changed(path) {
            Some(_) => Err(refused(action, path, Refusal::Exists)),
            None => Ok(()),
        }
    }

    /// Whether something below `dir` is being written that its store does not have yet.
    pub(super) fn has_draft_below(&self, dir: &str) -> bool {
        let below = self.drafts.below(dir);
        below.iter().any(|(_, draft)| draft.is_changed())
    }

    /// Runs `removal` of what is at `path` while nothing of it is being sent; what is being
    /// written there has no name after that.
    pub(super) async fn without_draft(
        &self,
        path: &str,
        removal: impl Future<Output = Result<(), ClientError>>,
    ) -> Result<(), ClientError> {
        let Some(draft) = self.drafts.get(path) else {
            return removal.await;
        };
        let _turn = draft.turn().await;
        match removal.await {
            // The store did not have it yet.
            Err(error) if error.kind() == ErrorKind::NotFound && draft.is_changed() => {}
            result => result?,
        }
        self.drafts.removed(path);
        Ok(())
    }

    /// Has the stores get what is being written at and below the paths of a rename, and keeps
    /// it as it is until [`renamed`](Self::drafts_renamed).
    pub(super) async fn hold_for_rename(
        &self,
        from: &str,
        to: &str,
        mode: RenameMode,
    ) -> Result<Vec<Turns>, ClientError> {
        if self.drafts.is_empty() {
            return Ok(Vec::new());
        }
        let mut paths = vec![from];
        if mode == RenameMode::Exchange {
            paths.push(to);
        }
        // In one order, whatever is renamed to what.
        paths.sort_unstable();
        let mut held = Vec::new();
        for path in paths {
            held.push(self.hold_drafts(path).await?);
        }
        Ok(held)
    }

    /// What is being written at `from` and below has its new path.
    pub(super) async fn drafts_renamed(
        self: &Arc<Self>,
        from: &str,
        to: &str,
        mode: RenameMode,
        held: Vec<Turns>,
    ) {
        match mode {
            RenameMode::Exchange => {
                self.drafts.renamed(to, NOWHERE);
                self.drafts.renamed(from, to);
                self.drafts.renamed(NOWHERE, from);
            }
            RenameMode::Replace | RenameMode::NoReplace => self.drafts.renamed(from, to),
        }
        for turns in held {
            turns.moved(self).await;
        }
    }

    /// Changes the attributes of a file of which there is something to be sent: they go with
    /// that. None if the store is to change them.
    pub(super) fn change_draft(&self, path: &str, change: &AttributeChange) -> Option<Attr> {
        let draft = self.drafts.get(path)?;
        draft.attributes_changed(change).then(|| draft.attr())
    }

    /// The store has the file at `target` with other attributes now.
    pub(super) async fn draft_is_now(self: &Arc<Self>, target: &Target, attr: &Arc<Attr>) {
        let Some(draft) = self.drafts.get(&target.path) else {
            return;
        };
        let _turn = draft.turn().await;
        if let Ok(file) = self.file_of(target, attr) {
            let base = FileHandle::new(Arc::clone(self), file, Arc::clone(attr));
            draft.same_bytes(base);
        }
    }

    /// The attributes of a file of which there is something to be sent.
    pub(super) async fn draft_attributes(
        &self,
        path: &str,
    ) -> Option<Result<Attributes, ClientError>> {
        let draft = self.drafts.changed(path)?;
        let target = match self.target("read the attributes of", path).await {
            Ok(target) => target,
            Err(error) => return Some(Err(error)),
        };
        Some(draft.attributes_to_send(&target).await)
    }
}
