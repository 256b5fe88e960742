//! The stream of views: the present one at once, then the latest whenever it changed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use millpond_proto::wire::pb;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use super::Shared;
use crate::raft::Published;

/// Views for one watcher.
///
/// - Holds no queue: a slow watcher skips views and always gets the latest.
/// - Ends when the coordinator stops.
pub struct Views {
    states: WatchStream<Published>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    last_version: Option<u64>,
    shared: Arc<Shared>,
    _seat: OwnedSemaphorePermit,
}

pub(super) fn views(shared: &Arc<Shared>, seat: OwnedSemaphorePermit) -> Views {
    shared.metrics.watchers.inc();
    Views {
        states: WatchStream::new(shared.consensus.published()),
        stopped: Box::pin(shared.stop.clone().cancelled_owned()),
        last_version: None,
        shared: Arc::clone(shared),
        _seat: seat,
    }
}

impl Stream for Views {
    type Item = Result<pb::View, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        loop {
            let Poll::Ready(state) = Pin::new(&mut this.states).poll_next(cx) else {
                return Poll::Pending;
            };
            let Some(state) = state else {
                return Poll::Ready(None);
            };
            let Some(view) = state.view else { continue };
            if this.last_version != Some(view.version) {
                this.last_version = Some(view.version);
                return Poll::Ready(Some(Ok(view.as_ref().into())));
            }
        }
    }
}

impl Drop for Views {
    fn drop(&mut self) {
        self.shared.metrics.watchers.dec();
    }
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views")
            .field("last_version", &self.last_version)
            .finish_non_exhaustive()
    }
}
