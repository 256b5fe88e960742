//! What happens after this client changed something: whoever knows how it was before forgets
//! that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_proto::Change;

use crate::attr::Attr;
use crate::core::Core;
use crate::metadata::{Asked, Known};

/// How long a change waits for the nodes to take note of it. Those that take longer are told
/// all the same, after the call has returned.
const TELL_WITHIN: Duration = Duration::from_secs(2);

impl Core {
    /// To be called after `changes` were made in the store, and before the caller hears of it:
    /// the nodes and this client forget what they knew, and clients that follow are told.
    /// `known` is what this client itself has just put at a path: it is believed as if the store
    /// had been asked.
    ///
    /// Those who follow [`FileSystem::changes`](crate::FileSystem::changes) of this client
    /// itself hear nothing: whoever makes a change knows of it.
    pub(crate) async fn changed(
        self: &Arc<Self>,
        changes: &[Change],
        known: Option<(&str, Arc<Attr>)>,
    ) {
        // Also now: a node that hangs must not keep this client's own readers from what is new.
        self.forget_all(changes);
        if self.peers.is_some() && !self.snapshot().has_no_nodes() {
            self.tell_all(changes).await;
            // What nodes said meanwhile may be from before.
            self.forget_all(changes);
        }
        if let Some((path, attr)) = known {
            self.believe(path, attr);
        }
    }

    /// Forgets what `changes` concern, here alone.
    pub(crate) fn forget_all(&self, changes: &[Change]) {
        for change in changes {
            self.metadata.forget(change.clone());
        }
    }

    /// Has all nodes take note of `changes`, and waits for that a bounded time.
    async fn tell_all(self: &Arc<Self>, changes: &[Change]) {
        let (done, told) = tokio::sync::oneshot::channel();
        let core = Arc::clone(self);
        let changes = changes.to_vec();
        self.tasks.start(async move {
            let tells = changes.iter().map(|change| core.tell_nodes(change));
            for (refreshed, change) in futures::future::join_all(tells).await.iter().zip(&changes) {
                if !refreshed.silent.is_empty() {
                    tracing::warn!(
                        path = change.path,
                        nodes = ?refreshed.silent,
                        "nodes did not take note of a change; what they say of it may be as old \
                         as the mount's metadata mode allows"
                    );
                }
            }
            // The caller may have gone on.
            let _ = done.send(());
        });
        // Either way the call goes on: the change is made.
        let _ = tokio::time::timeout(TELL_WITHIN, told).await;
    }

    /// Takes `attr` for what is at `path` from now on.
    pub(crate) fn believe(&self, path: &str, attr: Arc<Attr>) {
        let snapshot = self.snapshot();
        let trust = match attr.mount {
            Some(mount) => snapshot.trust(mount, self.metadata.default_trust()),
            None => self.metadata.default_trust(),
        };
        let asked = Asked {
            generation: snapshot.generation,
            seq: self.metadata.seq(),
            at: Instant::now(),
            trust,
        };
        self.metadata.put(path, Known::Present(attr), asked);
    }
}
