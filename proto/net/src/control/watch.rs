//! Follows the cluster view.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_proto::{ClusterId, ClusterView, Epoch};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use super::client::{ControlClient, jittered};
use super::routing::Routing;
use super::view_file;
use crate::NetError;

/// The longest pause between two attempts to reach a coordinator.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a [`ViewWatch`] starts.
#[derive(Debug, Clone, Default)]
pub struct WatchConfig {
    /// Where the last view is kept; nowhere if none.
    pub file: Option<PathBuf>,
    /// The only cluster whose views are taken. Without it, the cluster of the first view
    /// that a coordinator sends.
    pub cluster: Option<ClusterId>,
    /// A view that is known already, from joining.
    pub initial: Option<ClusterView>,
}

/// The present routing, kept up to date by a task of its own for as long as this lives.
///
/// - Views only ever grow in version.
/// - While no coordinator answers, the last view stays.
#[derive(Debug)]
pub struct ViewWatch {
    routing: watch::Receiver<Option<Arc<Routing>>>,
    live: watch::Receiver<bool>,
    wake: Arc<Notify>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ViewWatch {
    /// Takes the view on disk (or `config.initial`) and begins to follow the coordinators.
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// [`NetError::OtherCluster`] when the view on disk belongs to another cluster than
    /// `config.cluster`. A damaged file is logged and ignored: the coordinators know better.
    pub async fn start(client: ControlClient, config: WatchConfig) -> Result<Self, NetError> {
        let stored = match config.file.clone() {
            Some(path) => load(path).await,
            None => None,
        };
        let initial = newest(config.initial, stored);
        if let (Some(expected), Some(view)) = (config.cluster, &initial)
            && view.cluster != expected
        {
            return Err(NetError::OtherCluster {
                expected,
                found: view.cluster,
            });
        }
        let first = initial.map(|view| Arc::new(Routing::first(view)));
        let (routing_tx, routing) = watch::channel(first);
        let (live_tx, live) = watch::channel(false);
        let wake = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let follower = Follower {
            client,
            file: config.file,
            cluster: config.cluster,
            routing: routing_tx,
            live: live_tx,
            wake: Arc::clone(&wake),
            unreachable_logged: false,
            saved: None,
        };
        let tasks = TaskTracker::new();
        let stopped = stop.clone();
        tasks.spawn(async move {
            stopped.run_until_cancelled(follower.run()).await;
        });
        tasks.close();
        Ok(Self {
            routing,
            live,
            wake,
            stop,
            tasks,
        })
    }

    /// The present routing; none before the first view.
    pub fn current(&self) -> Option<Arc<Routing>> {
        self.routing.borrow().as_ref().map(Arc::clone)
    }

    /// The present routing and every later one.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Routing>>> {
        self.routing.clone()
    }

    /// Whether a coordinator is connected and has sent its view.
    pub fn is_live(&self) -> bool {
        *self.live.borrow()
    }

    /// Whether a coordinator is connected, and every change of it.
    pub fn subscribe_live(&self) -> watch::Receiver<bool> {
        self.live.clone()
    }

    /// Waits up to `patience` for a view from a coordinator, then takes what there is.
    ///
    /// # Errors
    /// `Unavailable` when there is none, not even on disk.
    pub async fn first(&self, patience: Duration) -> Result<Arc<Routing>, NetError> {
        let mut live = self.live.clone();
        let start = Instant::now();
        // The outcome does not matter: what counts is whether there is a view.
        let _ = timeout_at(start + patience, live.wait_for(|live| *live)).await;
        self.current().ok_or_else(|| NetError::NoCoordinator {
            doing: "watch",
            tried: "all that were named".into(),
            after: start.elapsed(),
            last: "no view yet, and none kept on disk".into(),
        })
    }

    /// Somebody mentioned `epoch`. If it is news while no coordinator is connected, the next
    /// attempt is made at once.
    pub fn hint(&self, epoch: Epoch) {
        let news = self.current().is_none_or(|r| epoch > r.view.epoch);
        if news && !self.is_live() {
            self.wake.notify_one();
        }
    }

    /// Stops following.
    pub async fn shutdown(self) {
        self.stop().await;
    }

    /// Stops following, for those that share this. The last view stays.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for ViewWatch {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn load(path: PathBuf) -> Option<ClusterView> {
    let loaded = tokio::task::spawn_blocking(move || view_file::load(&path)).await;
    match loaded {
        Ok(Ok(view)) => view,
        Ok(Err(error)) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "last view ignored"
            );
            None
        }
        Err(_) => None,
    }
}

/// The view to start from: one that was just received before one of the disk, unless that
/// is newer.
fn newest(received: Option<ClusterView>, stored: Option<ClusterView>) -> Option<ClusterView> {
    match (received, stored) {
        (Some(r), Some(s)) if s.cluster == r.cluster && s.version > r.version => Some(s),
        (Some(r), _) => Some(r),
        (None, stored) => stored,
    }
}

/// The task behind a [`ViewWatch`].
struct Follower {
    client: ControlClient,
    file: Option<PathBuf>,
    cluster: Option<ClusterId>,
    routing: watch::Sender<Option<Arc<Routing>>>,
    live: watch::Sender<bool>,
    wake: Arc<Notify>,
    unreachable_logged: bool,
    /// Cluster and version of the view on disk.
    saved: Option<(ClusterId, u64)>,
}

impl Follower {
    async fn run(mut self) {
        let mut pause = Duration::from_millis(100);
        loop {
            let why = match self.client.watch().await {
                Ok((addr, views)) => {
                    let (why, got_views) = self.follow(&addr, views).await;
                    if got_views {
                        pause = Duration::from_millis(100);
                    }
                    why
                }
                Err(error) => error.to_string(),
            };
            self.disconnected(&why);
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                () = self.wake.notified() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Takes views until the stream ends; says why it ended and whether any view came.
    async fn follow(
        &mut self,
        addr: &str,
        mut views: tonic::Streaming<millpond_proto::wire::pb::View>,
    ) -> (String, bool) {
        let mut any = false;
        loop {
            let view = match views.message().await {
                Ok(Some(view)) => view,
                Ok(None) => return ("the coordinator ended the stream".into(), any),
                Err(status) => return (status.message().to_owned(), any),
            };
            match ClusterView::try_from(view) {
                Ok(view) => {
                    if !self.accept(addr, view).await {
                        return ("it belongs to another cluster".into(), any);
                    }
                    any = true;
                }
                Err(error) => {
                    warn!(%error, addr, "malformed view ignored");
                }
            }
        }
    }

    /// Publishes a view if it is news; false if it is another cluster's.
    async fn accept(&mut self, addr: &str, view: ClusterView) -> bool {
        if let Some(expected) = self.cluster
            && view.cluster != expected
        {
            error!(
                addr,
                found = %view.cluster,
                %expected,
                "coordinator of another cluster: check the address"
            );
            return false;
        }
        self.cluster = Some(view.cluster);
        self.connected(addr, &view);
        let present = self.routing.borrow().as_ref().map(Arc::clone);
        let next = match &present {
            // A coordinator that lags behind what we know.
            Some(p) if p.view.cluster == view.cluster && p.view.version > view.version => None,
            Some(p) if *p.view == view => None,
            Some(p) => Some(p.advance(view)),
            None => Some(Routing::first(view)),
        };
        if let Some(next) = next {
            let next = Arc::new(next);
            let epoch_before = present.as_ref().map(|p| p.view.epoch);
            if epoch_before != Some(next.view.epoch) {
                let nodes = next.ring.len();
                info!(epoch = %next.view.epoch, nodes, "cluster epoch changed");
            }
            debug!(version = next.view.version, epoch = %next.view.epoch, "view received");
            self.routing.send_replace(Some(next));
        }
        self.live.send_replace(true);
        self.save().await;
        true
    }

    /// Keeps the present view on disk if it is not there yet.
    async fn save(&mut self) {
        let present = self.routing.borrow().as_ref().map(Arc::clone);
        let (Some(path), Some(routing)) = (&self.file, present) else {
            return;
        };
        let key = (routing.view.cluster, routing.view.version);
        if self.saved == Some(key) {
            return;
        }
        let path = path.clone();
        let written =
            tokio::task::spawn_blocking(move || view_file::save(&path, &routing.view)).await;
        match written {
            Ok(Ok(())) => self.saved = Some(key),
            Ok(Err(error)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "view not kept on disk"
                );
            }
            Err(_) => {}
        }
    }

    fn connected(&mut self, addr: &str, view: &ClusterView) {
        self.unreachable_logged = false;
        if !*self.live.borrow() {
            info!(addr, version = view.version, epoch = %view.epoch, "coordinator connected");
        }
    }

    /// One line per loss, however many attempts follow.
    fn disconnected(&mut self, why: &str) {
        self.live.send_replace(false);
        if !self.unreachable_logged {
            self.unreachable_logged = true;
            let kept = self.routing.borrow().is_some();
            warn!(
                why,
                kept_view = kept,
                "no coordinator reachable, will keep trying"
            );
        }
    }
}
