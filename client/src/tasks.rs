//! The client's tasks: tracked, cancelled together, started from any thread.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks on the runtime that the client was made in.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    runtime: Handle,
}

impl Tasks {
    /// Tasks on the current runtime.
    pub(crate) fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            token: CancellationToken::new(),
            runtime: Handle::current(),
        }
    }

    /// Runs `task` until it ends or the client shuts down. May be called on any thread.
    pub(crate) fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        let task = async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = task => {}
            }
        };
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// Asks all tasks to end. Does not wait.
    pub(crate) fn cancel(&self) {
        self.token.cancel();
        self.tracker.close();
    }

    /// Whether all tasks were asked to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Cancels all tasks and waits for them, at most `limit`.
    pub(crate) async fn stop(&self, limit: Duration) {
        self.cancel();
        if tokio::time::timeout(limit, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(tasks = self.tracker.len(), "tasks did not end in time");
        }
    }
}
