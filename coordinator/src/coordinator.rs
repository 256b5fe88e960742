//! A running coordinator: wires the parts together and holds no logic of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_process::{AdminServer, ProcessError, Readiness, shared_registry};
use millpond_proto::{BlockSize, ClusterId, ErrorKind};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::authority::{Authority, AuthorityError};
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};
use crate::engine::{Op, Refused};
use crate::liveness::Liveness;
use crate::metrics::Metrics;
use crate::raft::{Consensus, ConsensusError, ProposeError};
use crate::service::{Service, Shared};

/// How long calls under way may hold up the end.
const DRAIN: Duration = Duration::from_secs(3);

/// How long a watcher or node may be gone before its connection is dropped.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The most streams of one connection.
const MAX_STREAMS: u32 = 256;

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
    /// Takes the data directory and the ports, brings the state up to what was acknowledged
    /// last, makes cluster and certificate authority at the first start, and serves.
    ///
    /// # Errors
    /// [`StartError`] says what stands in the way and what to do.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let data_dir = DataDir::open(&config.data_dir)?;
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

        let consensus = Consensus::start(data_dir.path(), &addr.to_string()).await?;
        match prepare(&consensus, data_dir.path(), config.block_size).await {
            Ok((cluster, authority)) => {
                let shared = Arc::new(Shared {
                    consensus,
                    authority,
                    liveness: Mutex::new(Liveness::new(config.death_timeout)),
                    metrics,
                    heartbeat_interval: config.heartbeat_interval,
                    open_join: config.open_join,
                    addr,
                    stop: CancellationToken::new(),
                });
                let tasks = TaskTracker::new();
                tasks.spawn(follow_view(Arc::clone(&shared)));
                tasks.spawn(bury_the_dead(Arc::clone(&shared), config.death_timeout));
                tasks.spawn(serve(Arc::clone(&shared), listener));
                tasks.close();
                readiness.set_ready();
                tracing::info!(%cluster, %addr, data_dir = %data_dir.path().display(), "serving");
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
                consensus.shutdown().await;
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
        if tokio::time::timeout(DRAIN, self.tasks.wait())
            .await
            .is_err()
        {
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

/// Gives the cluster its identity and its authority, unless it has them.
async fn prepare(
    consensus: &Consensus,
    dir: &Path,
    asked: Option<BlockSize>,
) -> Result<(ClusterId, Authority), StartError> {
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
    let view = consensus.view()?;
    if let Some(asked) = asked
        && asked != view.block_size
    {
        return Err(StartError::BlockSize {
            asked,
            fixed: view.block_size,
        });
    }

    let recorded = consensus.published().borrow().ca_pem.clone();
    let authority = Authority::open(dir, &view.cluster, recorded.as_deref())?;
    if recorded.is_none() {
        let ca_pem = authority.cert_pem().to_owned();
        let record = Op::Authority { ca_pem };
        consensus.propose(record).await?.result?;
        tracing::info!("new certificate authority");
    }
    Ok((view.cluster, authority))
}

async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let stop = shared.stop.clone();
    let service = Service::new(Arc::clone(&shared)).into_server();
    let served = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(service)
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
