//! A handle that may write.

use std::ops::Deref;
use std::sync::Arc;

use crate::error::ClientError;

use super::draft::Draft;

/// A file that is open for writing.
///
/// [`close`](Self::close) sends what was not sent yet. Where a handle is dropped without it,
/// the last one of a file has that done in the background, and failures are only logged.
#[derive(Debug)]
pub struct Writer {
    draft: Arc<Draft>,
}

impl Writer {
    /// One more handle on `draft`.
    pub(super) fn of(draft: Arc<Draft>) -> Self {
        draft.state().writers += 1;
        Self { draft }
    }

    /// What it writes: for those who only read it.
    pub fn draft(&self) -> &Arc<Draft> {
        &self.draft
    }

    /// One more handle on what is being written as `draft`.
    pub fn again(draft: &Arc<Draft>) -> Self {
        Self::of(Arc::clone(draft))
    }

    /// Whether there are other handles that may write the file.
    pub fn is_shared(&self) -> bool {
        self.draft.state().writers > 1
    }

    /// Gives up what was not sent yet, for all handles: the store keeps what it has.
    pub fn discard(self) {
        if let Some(path) = self.draft.path() {
            self.draft.core.drafts.forget(&path, &self.draft);
            self.draft.rename(None);
        }
    }

    /// Sends what was not sent yet. The handle is closed either way.
    ///
    /// # Errors
    /// Those of [`flush`](Draft::flush).
    pub async fn close(self) -> Result<(), ClientError> {
        let flushed = self.draft.flush().await;
        if let Err(error) = &flushed {
            tracing::debug!(path = self.draft.path(), %error, "a file was closed without being sent");
        }
        flushed
    }
}

impl Deref for Writer {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.draft
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let is_last = {
            let mut state = self.draft.state();
            state.writers -= 1;
            state.writers == 0
        };
        if !is_last {
            return;
        }
        let draft = Arc::clone(&self.draft);
        if !draft.is_changed() {
            return draft.let_go();
        }
        let core = Arc::clone(&draft.core);
        core.tasks.start(async move {
            draft.finish().await;
        });
    }
}
