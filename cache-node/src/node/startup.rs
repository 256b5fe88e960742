//! From settings to everything a node needs before it can serve.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;
use tracing::info;

use millpond_net::ca::ClusterCa;
use millpond_net::control::{Routing, ViewWatch, WatchConfig};
use millpond_net::tls::PeerRole;
use millpond_net::{NetError, quic};
use millpond_process::{AdminServer, Readiness, SharedRegistry, Size};
use millpond_proto::{ClusterId, NodeId};
use millpond_store::{DiskConfig, Scrub, Store, StoreConfig};

use crate::agent::{About, Agent, Entry};
use crate::config::NodeConfig;
use crate::data_dir::DataDir;
use crate::error::NodeError;
use crate::memory::MemoryPlan;
use crate::metrics::NodeMetrics;

use super::disk::{self, Disk};

/// What a node has before it knows its cluster.
pub(super) struct Parts {
    pub(super) agent: Agent,
    pub(super) admin: Option<AdminServer>,
    pub(super) endpoint: quinn::Endpoint,
    pub(super) plan: MemoryPlan,
    pub(super) disks: Vec<Disk>,
    pub(super) metrics: Arc<NodeMetrics>,
}

/// What a node needs of its cluster before it can serve.
pub(super) struct Start {
    /// The join of this process; none if it starts from what it kept.
    pub(super) entry: Option<Entry>,
    pub(super) member: NodeId,
    pub(super) watch: ViewWatch,
    pub(super) routing: Arc<Routing>,
}

/// Takes directories, ports and memory. All that can be wrong with the settings comes out
/// here, before anybody hears of the node.
pub(super) async fn open(
    config: &NodeConfig,
    registry: &SharedRegistry,
    readiness: Readiness,
) -> anyhow::Result<Parts> {
    let data_dir = DataDir::open(&config.data_dir)?;
    let endpoint = listen(config.listen, &data_dir)?;
    let listen = endpoint.local_addr().map_err(|source| {
        let addr = config.listen;
        NetError::Bind { addr, source }
    })?;

    let plan = MemoryPlan::of(config.memory);
    let disks = disk::prepare(config)?;
    let disk_capacity = disks.iter().map(|(_, capacity)| *capacity).sum();
    let dirs: Vec<_> = disks.iter().map(|(dir, _)| dir).collect();
    info!(
        data_dir = %config.data_dir.display(),
        memory = %config.memory,
        disks = ?dirs,
        disk_capacity = %Size(disk_capacity),
        %listen,
        "starting"
    );
    let metrics = NodeMetrics::new(&mut registry.lock());
    let admin = match config.admin {
        Some(addr) => {
            let registry = Arc::clone(registry);
            Some(AdminServer::start(addr, registry, readiness.clone()).await?)
        }
        None => None,
    };
    let about = About {
        coordinators: config.coordinators.clone(),
        token_file: config.token_file.clone(),
        advertise: config.advertise.clone(),
        listen,
        admin: admin.as_ref().map(AdminServer::addr),
        zone: config.zone.clone(),
        weight: config.weight,
        capacity: plan.tier + disk_capacity,
        incarnation: incarnation(),
    };
    let agent = Agent::new(about, data_dir, readiness)?;
    Ok(Parts {
        agent,
        admin,
        endpoint,
        plan,
        disks,
        metrics,
    })
}

/// The view and identity to start with: those of a join if a coordinator answers at once;
/// else those kept from the last time if there are any, so that a node serves while no
/// coordinator answers; else those of a first join, whenever that is. None if `stop` is
/// cancelled first.
pub(super) async fn first_view(
    agent: &mut Agent,
    endpoint: &quinn::Endpoint,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Start>> {
    let kept = match (agent.data_dir().member(), agent.data_dir().identity()?) {
        (Some(member), Some(_)) => Some(member),
        _ => None,
    };
    if let Some(member) = kept {
        // The coordinator has the first word: whether the directory is of its cluster.
        if let Some(entry) = agent.enter_now(stop).await? {
            return begin(agent, endpoint, entry).await.map(Some);
        }
        let watch = follow(
            agent,
            WatchConfig {
                cluster: Some(member.cluster),
                ..WatchConfig::default()
            },
        )
        .await?;
        if let Some(routing) = watch.current() {
            return Ok(Some(Start {
                entry: None,
                member: member.node,
                watch,
                routing,
            }));
        }
        watch.shutdown().await;
    }
    let Some(entry) = agent.enter(stop).await? else {
        return Ok(None);
    };
    begin(agent, endpoint, entry).await.map(Some)
}

/// What a node that was just let in starts with.
async fn begin(agent: &Agent, endpoint: &quinn::Endpoint, entry: Entry) -> anyhow::Result<Start> {
    quic::replace_identity(endpoint, &entry.identity)?;
    let watch = follow(
        agent,
        WatchConfig {
            cluster: Some(entry.member.cluster),
            initial: Some(entry.view.clone()),
            ..WatchConfig::default()
        },
    )
    .await?;
    let routing = match watch.current() {
        Some(routing) => routing,
        None => Arc::new(Routing::first(entry.view.clone())),
    };
    Ok(Start {
        member: entry.member.node,
        entry: Some(entry),
        watch,
        routing,
    })
}

/// Opens the tiers, for the blocks of `cluster` alone.
pub(super) async fn open_store(
    plan: &MemoryPlan,
    disks: Vec<Disk>,
    scrub_rate: Size,
    cluster: ClusterId,
) -> Result<Store, NodeError> {
    let disk = |(dir, capacity)| DiskConfig::new(dir, capacity, Some(cluster));
    let config = StoreConfig {
        disks: disks.into_iter().map(disk).collect(),
        write_buffer: plan.writes,
        scrub: Scrub::at(scrub_rate.0),
        ..StoreConfig::new(plan.tier, None, Some(cluster))
    };
    Ok(Store::open(config).await?)
}

async fn follow(agent: &Agent, config: WatchConfig) -> Result<ViewWatch, NetError> {
    let config = WatchConfig {
        file: Some(agent.data_dir().view_file()),
        ..config
    };
    ViewWatch::start(agent.control().clone(), config).await
}

/// Takes the port for block requests. A node that was never in a cluster has no certificate
/// yet; until it joins it shows one that nobody trusts, and nobody is told its address.
fn listen(addr: SocketAddr, data_dir: &DataDir) -> Result<quinn::Endpoint, NodeError> {
    let identity = match data_dir.identity()? {
        Some(identity) => identity,
        None => ClusterCa::create(&ClusterId([0; 16]))?.issue(PeerRole::Node(NodeId(0)))?,
    };
    quic::server_endpoint(addr, &identity).map_err(|error| match error {
        error @ NetError::Bind { .. } => NodeError::Listen {
            addr,
            source: error,
        },
        error => NodeError::Net(error),
    })
}

/// Nanoseconds since 1970: grows with each start.
fn incarnation() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
