//! A running node: the parts, wired, and their orderly end.

mod disk;
mod startup;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use millpond_net::block_client::{BlockClient, BlockClientConfig};
use millpond_net::block_server::{BlockServer, LocalSocket, ServerLimits};
use millpond_net::control::Routing;
use millpond_net::metrics::{ClientMetrics, Component, ServerMetrics};
use millpond_net::quic;
use millpond_net::tls::Identity;
use millpond_process::{AdminServer, Readiness, shared_registry};
use millpond_proto::{Change, MemberState, NodeId, NodeStats};
use millpond_ufs::{UfsContext, UfsMetrics};

use crate::agent::Host;
use crate::config::NodeConfig;
use crate::error::NodeError;
use crate::fill::{FillLimits, Fills};
use crate::memory::MemoryPlan;
use crate::metadata::NodeMetadata;
use crate::metrics::{NodeMetrics, StoreCollector};
use crate::peers::PeerBlocks;
use crate::server::{Asked, NodeService};
use crate::ufs_table::UfsTable;
use crate::view::CurrentView;

use self::startup::{Parts, Start};

/// A node that has joined and serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Where it serves blocks, with the real port.
    pub listen: SocketAddr,
    /// Where metrics and health are, with the real port.
    pub admin: Option<SocketAddr>,
    /// Who it is in its cluster.
    pub node: NodeId,
}

/// Runs a node until `stop` is cancelled. Calls `on_ready` once, as soon as the cluster counts
/// it in.
///
/// # Errors
/// When it cannot start, or the cluster refuses it for good. What was started is ended first.
pub async fn run(
    config: NodeConfig,
    stop: CancellationToken,
    on_ready: impl FnOnce(Ready) + Send + 'static,
) -> anyhow::Result<()> {
    let registry = shared_registry();
    let readiness = Readiness::new("starting");
    let parts = startup::open(&config, &registry, readiness.clone()).await?;
    let Parts {
        mut agent,
        admin,
        endpoint,
        plan,
        disks,
        metrics,
    } = parts;

    let Some(Start {
        entry,
        member,
        watch,
        routing,
    }) = startup::first_view(&mut agent, &endpoint, &stop).await?
    else {
        info!("shutting down before any coordinator answered");
        end_admin(admin).await;
        return Ok(());
    };
    MemoryPlan::check(config.memory, routing.view.block_size)?;
    let cluster = routing.view.cluster;
    let store = startup::open_store(&plan, disks, config.scrub_rate, cluster).await?;

    let view = Arc::new(CurrentView::new(
        Arc::clone(&routing.view),
        Arc::clone(&routing.ring),
    ));
    let (peer_metrics, server_metrics, ufs_metrics) = {
        let mut registry = registry.lock();
        registry.register_collector(Box::new(StoreCollector(store.clone())));
        (
            Arc::new(ClientMetrics::new(&mut registry, Component::Node)),
            Arc::new(ServerMetrics::new(&mut registry)),
            Arc::new(UfsMetrics::new(&mut registry)),
        )
    };
    let peers = BlockClient::new(endpoint.clone(), BlockClientConfig::default(), peer_metrics);
    let ufs = Arc::new(UfsTable::new(UfsContext::new(ufs_metrics)));
    let fills = Fills::new(
        store.clone(),
        Arc::new(PeerBlocks::new(peers.clone(), Arc::clone(&view))),
        FillLimits::for_memory(plan.fills),
        Arc::clone(&metrics),
    );
    let metadata = NodeMetadata::new(plan.metadata, Arc::clone(&metrics));
    let service = Arc::new(NodeService {
        me: member,
        view: Arc::clone(&view),
        store: store.clone(),
        fills: fills.clone(),
        ufs: Arc::clone(&ufs),
        metadata: Arc::clone(&metadata),
        metrics: Arc::clone(&metrics),
        asked: Asked::default(),
    });
    let limits = ServerLimits {
        in_flight_bytes: plan.replies,
        ..ServerLimits::default()
    };
    let server = BlockServer::start_with(
        endpoint.clone(),
        local_socket(config.local_users, member),
        Arc::clone(&service),
        limits,
        server_metrics,
    );
    let listen = agent.listen();
    info!(node = %member, %listen, epoch = %view.load().epoch(), "serving blocks");

    let tasks = TaskTracker::new();
    let follower = Follower {
        view,
        ufs,
        metadata: Arc::clone(&metadata),
        peers: peers.clone(),
        metrics: Arc::clone(&metrics),
    };
    tasks.spawn(follower.run(watch.subscribe(), stop.child_token()));
    tasks.close();

    let host = NodeHost {
        service,
        endpoint,
        peers: peers.clone(),
        listen,
        admin: admin.as_ref().map(AdminServer::addr),
        on_ready: parking_lot::Mutex::new(Some(Box::new(on_ready))),
    };
    let outcome = agent.stay(entry.as_ref(), &host, &stop).await;

    readiness.set_not_ready("shutting down");
    stop.cancel();
    info!("shutting down: leaving the cluster");
    agent.leave().await;
    info!("shutting down: ending requests in flight");
    metadata.close();
    server.shutdown().await;
    info!("shutting down: ending fills");
    fills.shutdown().await;
    debug!("shutting down: closing connections");
    tasks.wait().await;
    watch.shutdown().await;
    peers.shutdown().await;
    info!("shutting down: closing the store");
    store.shutdown().await;
    end_admin(admin).await;
    info!("shut down");
    Ok(outcome?)
}

/// The socket for clients on this host. A node without one serves all of them over QUIC.
fn local_socket(users: Option<Vec<u32>>, node: NodeId) -> Option<LocalSocket> {
    match LocalSocket::bind(node, users?) {
        Ok(socket) => Some(socket),
        Err(error) => {
            warn!(%node, %error, "no Unix socket for clients on this host");
            None
        }
    }
}

async fn end_admin(admin: Option<AdminServer>) {
    if let Some(admin) = admin {
        admin.shutdown().await;
    }
}

/// Takes new views into use.
struct Follower {
    view: Arc<CurrentView>,
    ufs: Arc<UfsTable>,
    metadata: Arc<NodeMetadata>,
    peers: BlockClient,
    metrics: Arc<NodeMetrics>,
}

impl Follower {
    async fn run(
        self,
        mut views: tokio::sync::watch::Receiver<Option<Arc<Routing>>>,
        stop: CancellationToken,
    ) {
        loop {
            let routing = views.borrow_and_update().as_ref().map(Arc::clone);
            if let Some(routing) = routing {
                self.follow(&routing);
            }
            match stop.run_until_cancelled(views.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
    }

    fn follow(&self, routing: &Routing) {
        let view = Arc::clone(&routing.view);
        let epoch = i64::try_from(view.epoch.0).unwrap_or(i64::MAX);
        self.metrics.epoch.set(epoch);
        self.ufs.retain(&view.mounts);
        let answers = |id: NodeId| {
            let state = view.member(id).map(|m| m.state);
            matches!(state, Some(MemberState::Active | MemberState::Draining))
        };
        self.peers.retain(answers);
        // The same path may be of another store now.
        let moved = self.view.load().view().mounts != view.mounts;
        let ring = Arc::clone(&routing.ring);
        if self.view.advance(Arc::clone(&view), ring, Instant::now()) {
            let mounts = view.mounts.iter().len();
            debug!(
                version = view.version,
                epoch = view.epoch.0,
                mounts,
                "view in use"
            );
            if moved {
                self.metadata.forget(&Change::everything(), 0, false);
            }
        }
    }
}

/// What is called when the node is ready.
type OnReady = Box<dyn FnOnce(Ready) + Send>;

/// The node as its agent sees it.
struct NodeHost {
    service: Arc<NodeService>,
    endpoint: quinn::Endpoint,
    peers: BlockClient,
    listen: SocketAddr,
    admin: Option<SocketAddr>,
    /// None once it was called.
    on_ready: parking_lot::Mutex<Option<OnReady>>,
}

impl Host for NodeHost {
    fn stats(&self) -> NodeStats {
        self.service.metrics.node_stats(&self.service.store)
    }

    fn adopt(&self, identity: &Identity) -> Result<(), NodeError> {
        quic::replace_identity(&self.endpoint, identity)?;
        self.peers.replace_identity(identity)?;
        Ok(())
    }

    fn counted_in(&self, node: NodeId) {
        let on_ready = self.on_ready.lock().take();
        if let Some(on_ready) = on_ready {
            on_ready(Ready {
                listen: self.listen,
                admin: self.admin,
                node,
            });
        }
    }

    fn heartbeat(&self, answered: bool) {
        let metrics = &self.service.metrics;
        if answered {
            metrics.heartbeats.inc();
        } else {
            metrics.heartbeat_failures.inc();
        }
    }
}
