//! A running coordinator: wires the parts together and holds no logic of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use millpond_process::{AdminServer, ProcessError, Readiness, shared_registry};
use millpond_proto::{BlockSize, ClusterId, ErrorKind};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::authority::{Authority, AuthorityError};
use crate::config::{Config, FirstStart};
use crate::data_dir::{DataDir, DataDirError};
use crate::engine::{Hidden, Op, Refused};
use crate::group::{GroupService, Incoming, Peers};
use crate::liveness::Liveness;
use crate::metrics::Metrics;
use crate::raft::{Consensus, ConsensusError, FIRST, GroupMember, ProposeError};
use crate::secret::{GroupSecret, SecretError};
use crate::service::{Service, Shared};

/// How long calls under way may hold up the end.
const DRAIN: Duration = Duration::from_secs(3);

/// How long a watcher or node may be gone before its connection is dropped.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The most streams of one connection.
const MAX_STREAMS: u32 = 256;

/// How long a member that cannot reach the others waits before it tries again.
const RETRY: Duration = Duration::from_millis(500);

/// How often a coordinator checks that the group knows its address.
const ANNOUNCE: Duration = Duration::from_secs(2);

/// A coordinator that serves. Drop it only after [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Coordinator {
    shared: Arc<Shared>,
    cluster: ClusterId,
    admin: Option<AdminServer>,
    readiness: Readiness,
    tasks: TaskTracker,
    // Last: the directory is released when everything else is gone.
    data_dir: DataDir,
}

impl Coordinator {
    /// Takes the data directory and the ports, begins or enters its group at the first start,
    /// waits until a majority of the group is there, and serves. The first leader of a cluster
    /// makes its identity and its certificate authority.
    ///
    /// # Errors
    /// [`StartError`] says what stands in the way and what to do.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let data_dir = DataDir::open(&config.data_dir)?;
        let secret = match &config.secret_file {
            Some(path) => GroupSecret::read(path)?,
            None => GroupSecret::read_or_draw(data_dir.path())?,
        };
        let listener = listen(config.listen).await?;
        let addr = listener.local_addr().map_err(|source| StartError::Listen {
            addr: config.listen,
            source,
        })?;
        if config.open_join && !addr.ip().is_loopback() {
            tracing::warn!(
                %addr,
                "open join: whoever reaches this port gets a certificate of this cluster and the \
                 options of its mounts, secrets included; protect it by other means"
            );
        }

        let registry = shared_registry();
        let metrics = Metrics::new(&mut registry.lock());
        let readiness = Readiness::new("recovering the cluster's state");
        let admin = match config.admin {
            Some(at) => Some(AdminServer::start(at, registry, readiness.clone()).await?),
            None => None,
        };

        let peers = Arc::new(Peers::new(&secret).map_err(AuthorityError::from)?);
        let fresh = first_number(&config.first_start);
        let consensus =
            Consensus::open(data_dir.path(), fresh, secret.sealer(), Arc::clone(&peers)).await?;
        let shared = Arc::new(Shared {
            consensus,
            peers,
            authority: OnceLock::new(),
            liveness: Mutex::new(Liveness::new(config.death_timeout)),
            metrics,
            heartbeat_interval: config.heartbeat_interval,
            open_join: config.open_join,
            addr,
            advertised: config.advertise.clone().unwrap_or_else(|| addr.to_string()),
            stop: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        let stopping = shared.stop.clone().drop_guard();
        // The others are heard before there is a majority: there would never be one otherwise.
        let incoming = Incoming::new(listener, &shared.peers, &tasks, shared.stop.clone());
        tasks.spawn(serve(Arc::clone(&shared), incoming));
        match prepare(&shared, &config, data_dir.path(), &readiness).await {
            Ok(cluster) => {
                tasks.spawn(follow_view(Arc::clone(&shared)));
                tasks.spawn(bury_the_dead(Arc::clone(&shared), config.death_timeout));
                tasks.spawn(announce(Arc::clone(&shared)));
                tasks.close();
                readiness.set_ready();
                let id = shared.consensus.id();
                tracing::info!(%cluster, id, %addr, data_dir = %data_dir.path().display(), "serving");
                stopping.disarm();
                Ok(Self {
                    shared,
                    cluster,
                    admin,
                    readiness,
                    tasks,
                    data_dir,
                })
            }
            Err(error) => {
                shared.consensus.shutdown().await;
                Err(error)
            }
        }
    }

    /// Where nodes, clients and the CLI reach it, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// Where metrics and health are, with the real port.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminServer::addr)
    }

    /// Its number in its group.
    pub fn id(&self) -> u64 {
        self.shared.consensus.id()
    }

    /// Whether it leads its group.
    pub fn is_leader(&self) -> bool {
        self.shared.consensus.is_leader()
    }

    /// The cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Returns when the coordinator cannot go on by itself, with the reason.
    pub async fn failed(&self) -> String {
        tokio::select! {
            reason = self.shared.consensus.failed() => reason,
            () = self.shared.stop.cancelled() => "the listener failed".to_owned(),
        }
    }

    /// Stops serving, lets calls under way end, and closes the log.
    pub async fn shutdown(self) {
        self.readiness.set_not_ready("shutting down");
        tracing::info!("stops serving");
        self.shared.stop.cancel();
        if timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("calls under way were cut off");
        }
        self.shared.consensus.shutdown().await;
        if let Some(admin) = self.admin {
            admin.shutdown().await;
        }
        drop(self.data_dir);
        tracing::info!("log closed");
    }
}

async fn listen(addr: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(addr).await;
    listener.map_err(|source| StartError::Listen { addr, source })
}

/// The number of a coordinator that was in no group yet.
fn first_number(first_start: &FirstStart) -> u64 {
    match first_start {
        FirstStart::Alone => FIRST,
        FirstStart::Together { own, .. } => FIRST + *own as u64,
        // Never one that was given before, also to a coordinator that is gone.
        FirstStart::Enter(_) => rand::random_range(1_000_000..1 << 48),
    }
}

/// Sees to it that this coordinator is in a group, and that the cluster has its identity and
/// its authority.
async fn prepare(
    shared: &Shared,
    config: &Config,
    dir: &Path,
    readiness: &Readiness,
) -> Result<ClusterId, StartError> {
    let consensus = &shared.consensus;
    match &config.first_start {
        FirstStart::Alone => {
            let alone = [(FIRST, shared.advertised.clone())];
            consensus.begin(alone.into()).await?;
        }
        // The first of the list begins; the others are voters as soon as it reaches them.
        FirstStart::Together { peers, own: 0 } => {
            let members = (FIRST..).zip(peers.iter().cloned());
            consensus.begin(members.collect()).await?;
        }
        FirstStart::Together { .. } => {}
        FirstStart::Enter(addrs) => enter(shared, addrs, readiness).await,
    }
    let (cluster, authority) = identity(shared, config.block_size, dir, readiness).await?;
    let own = authority.identity().map_err(AuthorityError::from)?;
    shared
        .peers
        .serve_cluster(&own)
        .map_err(AuthorityError::from)?;
    if shared.authority.set(authority).is_err() {
        tracing::error!("the authority was set twice");
    }
    Ok(cluster)
}

/// Asks the coordinators at `addrs` in turn until the group has taken this one in.
async fn enter(shared: &Shared, addrs: &[String], readiness: &Readiness) {
    let consensus = &shared.consensus;
    let mut told = String::new();
    for addr in addrs.iter().cycle() {
        // From an earlier start.
        if consensus
            .group()
            .iter()
            .any(|member| member.id == consensus.id() && member.votes)
        {
            return;
        }
        readiness.set_not_ready("entering the group of coordinators");
        let entered = shared.peers.enter(addr, consensus.id(), &shared.advertised);
        match entered.await {
            Ok(()) => return,
            Err(error) => {
                let error = error.to_string();
                if error != told {
                    tracing::warn!(error, "not in the group yet, will keep trying");
                    told = error;
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The cluster's identity and authority, as its state holds them. Whichever coordinator leads
/// puts into the state what is missing.
async fn identity(
    shared: &Shared,
    asked: Option<BlockSize>,
    dir: &Path,
    readiness: &Readiness,
) -> Result<(ClusterId, Authority), StartError> {
    let consensus = &shared.consensus;
    let mut published = consensus.published();
    let mut waited = false;
    loop {
        // What was acknowledged earlier may be in the log and not applied yet.
        let caught_up = consensus.is_leader() && consensus.catch_up().await.is_ok();
        if caught_up {
            match found(consensus, asked, dir).await {
                Ok(()) => {}
                // Another leads by now, say.
                Err(StartError::NoAnswer(error)) => {
                    tracing::warn!(%error, "the cluster's identity is not recorded yet");
                }
                Err(error) => return Err(error),
            }
        }
        let (view, cert, key) = {
            let state = published.borrow_and_update();
            (
                state.view.clone(),
                state.ca_pem.clone(),
                state.ca_key.clone(),
            )
        };
        let follows = !consensus.is_leader() && consensus.leader().is_some();
        if let (true, Some(view), Some(cert), Some(key)) = (caught_up || follows, view, cert, key) {
            if let Some(asked) = asked
                && asked != view.block_size
            {
                return Err(StartError::BlockSize {
                    asked,
                    fixed: view.block_size,
                });
            }
            Authority::forget_file(dir);
            return Ok((view.cluster, Authority::recorded(&cert, &key.0)?));
        }
        if waited {
            readiness.set_not_ready("waiting for a majority of the group of coordinators");
        }
        waited |= timeout(RETRY, published.changed()).await.is_err();
    }
}

/// Puts into the state what a cluster needs and this one does not have.
async fn found(
    consensus: &Consensus,
    asked: Option<BlockSize>,
    dir: &Path,
) -> Result<(), StartError> {
    if consensus.view().is_err() {
        let cluster = ClusterId(rand::random());
        let block_size = asked.unwrap_or_default();
        let bootstrap = Op::Bootstrap {
            cluster,
            block_size,
        };
        consensus.propose(bootstrap).await?.result?;
        tracing::info!(%cluster, %block_size, "new cluster");
    }
    let known = {
        let published = consensus.published();
        let state = published.borrow();
        if state.ca_key.is_some() {
            return Ok(());
        }
        state.ca_pem.clone()
    };
    let cluster = consensus.view()?.cluster;
    let authority = Authority::to_record(dir, &cluster, known.as_deref())?;
    let record = Op::AuthorityKey {
        ca_pem: known.map_or_else(|| authority.cert_pem().to_owned(), |pem| pem.to_string()),
        key_pem: Hidden(authority.key_pem().to_owned()),
    };
    consensus.propose(record).await?.result?;
    tracing::info!("the cluster's certificate authority is recorded");
    Ok(())
}

/// Sees to it that the group knows where this coordinator is reached: its address may be
/// another than at its last start.
async fn announce(shared: Arc<Shared>) {
    let (consensus, own) = (&shared.consensus, &shared.advertised);
    loop {
        let group = consensus.group();
        let known = group.iter().find(|member| member.id == consensus.id());
        // One that was taken out of the group stays out.
        if known.is_some_and(|known| known.addr != *own) {
            let told = match consensus.leader() {
                Some((leader, _)) if leader == consensus.id() => {
                    let told = consensus.enter(consensus.id(), own).await;
                    told.map_err(|e| e.to_string())
                }
                Some((_, leader)) => {
                    let told = shared.peers.enter(&leader, consensus.id(), own).await;
                    told.map_err(|e| e.to_string())
                }
                // One that nobody reaches hears of no leader.
                None => ask_all(&shared, &group).await,
            };
            match told {
                Ok(()) => tracing::info!(addr = own, "the group knows the new address"),
                Err(error) => tracing::debug!(error, "the group does not know the new address yet"),
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(ANNOUNCE) => {}
        }
    }
}

async fn ask_all(shared: &Shared, group: &[GroupMember]) -> Result<(), String> {
    let own = shared.consensus.id();
    let mut last = String::new();
    for member in group.iter().filter(|member| member.id != own) {
        let told = shared.peers.enter(&member.addr, own, &shared.advertised);
        match told.await {
            Ok(()) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let stop = shared.stop.clone();
    let service = Service::new(Arc::clone(&shared)).into_server();
    let served = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(service)
        .add_service(GroupService::server(Arc::clone(&shared)))
        .serve_with_incoming_shutdown(incoming, stop.cancelled())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "cannot serve");
        shared.stop.cancel();
    }
}

/// Keeps the gauges at the present view.
async fn follow_view(shared: Arc<Shared>) {
    let mut published = shared.consensus.published();
    loop {
        let view = published.borrow_and_update().view.clone();
        if let Some(view) = view {
            shared.metrics.set_view(&view);
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            changed = published.changed() => if changed.is_err() { return },
        }
    }
}

/// Proposes the death of members that have been silent for too long.
async fn bury_the_dead(shared: Arc<Shared>, death_timeout: Duration) {
    // Well below half the timeout, see `Liveness::sweep`.
    let period = (death_timeout / 10).clamp(Duration::from_millis(5), Duration::from_millis(500));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let metrics = &shared.metrics;
        let index = shared.consensus.last_applied_index();
        metrics.raft_last_applied_index.set(index as i64);
        let leads = shared.consensus.is_leader();
        metrics.raft_leader.set(leads.into());
        let Ok(view) = shared.consensus.view() else {
            continue;
        };
        if !leads {
            shared.liveness.lock().follow();
            continue;
        }
        let overdue = shared.liveness.lock().sweep(&view, Instant::now());
        for (node, incarnation) in overdue {
            tracing::warn!(%node, silent_for = ?death_timeout, "no heartbeat: declared dead");
            let mark = Op::MarkDead { node, incarnation };
            if let Err(error) = shared.propose(mark).await {
                tracing::warn!(%node, %error, "death not recorded, will try again");
            }
        }
    }
}

/// A coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The group's secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The port cannot be had.
    #[error(
        "cannot listen on {addr}: {source}; stop what uses the port, or choose another address \
         with --listen IP:PORT"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The admin endpoint cannot be had.
    #[error(transparent)]
    Admin(#[from] ProcessError),
    /// The log cannot be opened or gone on from.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// The certificate authority cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The cluster has another block size.
    #[error(
        "block size {asked} differs from the cluster's {fixed}: the block size is fixed at \
         bootstrap, by the first start; leave out --block-size, or make a new cluster with \
         another --data-dir"
    )]
    BlockSize {
        /// The size that was asked for.
        asked: BlockSize,
        /// The size that the cluster has.
        fixed: BlockSize,
    },
    /// The first commands were refused.
    #[error("cannot bootstrap the cluster: {0}")]
    Refused(#[from] Refused),
    /// The first commands got no answer.
    #[error("cannot bootstrap the cluster: {0}")]
    NoAnswer(#[from] ProposeError),
}

impl StartError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DataDir(source) => source.kind(),
            Self::Secret(source) => source.kind(),
            Self::Listen { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                std::io::ErrorKind::AddrInUse => ErrorKind::Busy,
                _ => ErrorKind::Unavailable,
            },
            Self::Admin(source) => source.kind(),
            Self::Consensus(source) => source.kind(),
            Self::Authority(source) => source.kind(),
            Self::BlockSize { .. } => ErrorKind::Invalid,
            Self::Refused(source) => source.kind(),
            Self::NoAnswer(source) => source.kind(),
        }
    }
}
