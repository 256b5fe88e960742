//! The cache nodes as this client knows them: connections, and how fast each one answers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use millpond_net::block_client::{BlockClient, Peer};
use millpond_net::control::ViewWatch;
use millpond_proto::{ClusterView, Epoch, NodeId};
use parking_lot::Mutex;

use crate::detour::Detours;

/// No node is suspected earlier than this.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);

/// Every node is asked whether it lives after this, however slow it has been.
const MOST_PATIENCE: Duration = Duration::from_millis(500);

/// A node that lives is given this long at least, because it may wait for the UFS on behalf
/// of all clients: asking the UFS as well would double its work.
const LEAST_SLOW: Duration = Duration::from_secs(3);

/// A node that lives is given this long at most.
const MOST_SLOW: Duration = Duration::from_secs(15);

/// How long a node that was silent is trusted less.
const SUSPICION: Duration = Duration::from_secs(30);

/// Answers that the recent past consists of.
const RECENT: usize = 64;

/// Connections to the cache nodes.
pub(crate) struct Peers {
    pub(crate) client: BlockClient,
    watch: ViewWatch,
    recent: Mutex<HashMap<NodeId, Recent>>,
    /// Nodes that gave no sign of life, and when; until they answer.
    silent: Mutex<HashMap<NodeId, Instant>>,
    /// Nodes that are slower than the UFS.
    pub(crate) detours: Mutex<Detours>,
}

impl Peers {
    pub(crate) fn new(client: BlockClient, watch: ViewWatch) -> Self {
        Self {
            client,
            watch,
            recent: Mutex::default(),
            silent: Mutex::default(),
            detours: Mutex::default(),
        }
    }

    /// Somebody spoke of `epoch`: is it news?
    pub(crate) fn hint(&self, epoch: Epoch) {
        self.watch.hint(epoch);
    }

    /// Whether a coordinator is connected.
    pub(crate) fn is_live(&self) -> bool {
        self.watch.is_live()
    }

    /// Takes note of how long `node` took for a piece.
    pub(crate) fn answered(&self, node: NodeId, took: Duration) {
        self.recent.lock().entry(node).or_default().add(took);
        self.silent.lock().remove(&node);
    }

    /// Takes note of a request that begins.
    pub(crate) fn begin(&self, node: NodeId) -> UnderWay {
        let all = Arc::clone(&self.recent.lock().entry(node).or_default().under_way);
        let before = all.fetch_add(1, Ordering::Relaxed);
        UnderWay { all, before }
    }

    /// How many requests are under way to `node`.
    pub(crate) fn load(&self, node: NodeId) -> u32 {
        let recent = self.recent.lock();
        let load = |r: &Recent| r.under_way.load(Ordering::Relaxed);
        recent.get(&node).map_or(0, load)
    }

    /// Takes note that `node` gave no sign of life when it was asked for one.
    pub(crate) fn suspect(&self, node: NodeId) {
        self.silent.lock().insert(node, Instant::now());
    }

    /// Whether `node` was silent a moment ago and has not answered since: one reader found
    /// out, so that others need not wait as long as it did.
    pub(crate) fn is_suspect(&self, node: NodeId) -> bool {
        let silent = self.silent.lock();
        silent.get(&node).is_some_and(|at| at.elapsed() < SUSPICION)
    }

    /// When to suspect `peer` of not answering any more.
    pub(crate) fn patience(&self, peer: &Peer) -> Duration {
        let p95 = self.p95(peer.id);
        (p95 * 2).clamp(LEAST_PATIENCE, MOST_PATIENCE)
    }

    /// When to read elsewhere too although `peer` lives.
    pub(crate) fn slow_after(&self, peer: &Peer) -> Duration {
        (self.p95(peer.id) * 4).clamp(LEAST_SLOW, MOST_SLOW)
    }

    /// The nodes that are gone round because the UFS is faster.
    pub(crate) fn gone_round(&self) -> Vec<NodeId> {
        self.detours.lock().around()
    }

    fn p95(&self, node: NodeId) -> Duration {
        self.recent
            .lock()
            .get(&node)
            .map_or(Duration::ZERO, Recent::p95)
    }

    /// Forgets nodes that `view` does not have in service.
    pub(crate) fn retain(&self, view: &ClusterView) {
        let serves = |id: NodeId| view.serving().any(|member| member.id == id);
        self.client.retain(serves);
        self.recent.lock().retain(|id, _| serves(*id));
        self.silent.lock().retain(|id, _| serves(*id));
        let is_mounted = |mount| view.mounts.by_id(mount).is_some();
        self.detours.lock().retain(serves, is_mounted);
    }

    /// Ends following the coordinators, whose going away is no news any more.
    pub(crate) async fn stop_watching(&self) {
        self.watch.stop().await;
    }

    /// Closes all connections.
    pub(crate) async fn shutdown(&self) {
        self.client.clone().shutdown().await;
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// The latest answers of one node.
#[derive(Debug, Default)]
struct Recent {
    micros: Vec<u32>,
    next: usize,
    /// Requests for data that are under way.
    under_way: Arc<AtomicU32>,
}

/// A request that is under way to a node, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    all: Arc<AtomicU32>,
    before: u32,
}

impl UnderWay {
    /// How many were under way at a time, this one included, from its start until now.
    pub(crate) fn load(&self) -> u32 {
        (self.before + 1).midpoint(self.all.load(Ordering::Relaxed))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Recent {
    fn add(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if self.micros.len() < RECENT {
            self.micros.push(micros);
        } else {
            self.micros[self.next] = micros;
        }
        self.next = (self.next + 1) % RECENT;
    }

    fn p95(&self) -> Duration {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * 95).div_ceil(100).saturating_sub(1);
        let micros = sorted.get(rank).copied().unwrap_or_default();
        Duration::from_micros(u64::from(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p95_is_of_the_recent_past() {
        let mut recent = Recent::default();
        assert_eq!(recent.p95(), Duration::ZERO);
        for ms in 1..=100 {
            recent.add(Duration::from_millis(ms));
        }
        // The last 64 are 37..=100; the 61st of them is 97.
        assert_eq!(recent.p95(), Duration::from_millis(97));
    }
}
