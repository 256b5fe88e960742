//! Keeps drafts from being changed while their names are.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use crate::core::Core;
use crate::error::ClientError;
use crate::file::FileHandle;

use super::draft::Draft;

/// Drafts that nobody else changes or sends while this is there.
#[derive(Debug)]
pub(crate) struct Turns(Vec<(Arc<Draft>, OwnedMutexGuard<()>)>);

impl Core {
    /// Sends what is being written at `path` and below it, so that the store has all of it, and
    /// keeps it as it is until the answer is dropped: to be held while the store gives it
    /// another name, and until [`Drafts::renamed`](super::Drafts::renamed) and
    /// [`Turns::moved`].
    ///
    /// # Errors
    /// Those of [`Draft::flush`].
    pub(crate) async fn hold_drafts(&self, path: &str) -> Result<Turns, ClientError> {
        let mut held = Vec::new();
        // In the order of their paths: two who hold do not wait for each other.
        for draft in self.drafts.at_and_below(path) {
            let turn = draft.turn().await;
            draft.flush_in_turn().await?;
            held.push((draft, turn));
        }
        Ok(Turns(held))
    }
}

impl Turns {
    /// The store has the drafts at their present paths now.
    pub(crate) async fn moved(self, core: &Arc<Core>) {
        for (draft, _turn) in self.0 {
            let Some(path) = draft.path() else { continue };
            match core.open_file(&path).await {
                Ok((file, attr)) => draft.same_bytes(FileHandle::new(Arc::clone(core), file, attr)),
                // Its next read of what was not written here says so.
                Err(error) => tracing::debug!(path, %error, "a file that was moved is not there"),
            }
        }
    }
}
