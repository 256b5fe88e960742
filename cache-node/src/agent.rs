//! The node's dealings with the coordinators: enter, say that it lives, leave.
//!
//! While no coordinator answers the node goes on serving from the view it has; the agent
//! keeps trying, for ever, and says so once per change of state.

mod address;
mod backoff;
mod join;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use millpond_net::control::{Access, ControlClient, ControlConfig, JoinToken};
use millpond_net::tls::{Identity, KeyRequest};
use millpond_process::Readiness;
use millpond_proto::{ErrorKind, NodeId, NodeStats};

use crate::data_dir::DataDir;
use crate::error::NodeError;
use crate::fill::error_chain;

pub use self::join::{About, Entry};

use self::backoff::Backoff;

/// How long one coordinator may take to answer the agent.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long leaving may take at shutdown.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Heartbeats before the first answer to a join tells the wanted interval.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

/// What the agent does to the node it speaks for.
pub trait Host: Send + Sync {
    /// What heartbeats carry.
    fn stats(&self) -> NodeStats;

    /// Shows `identity` to peers from now on.
    ///
    /// # Errors
    /// When it is unusable.
    fn adopt(&self, identity: &Identity) -> Result<(), NodeError>;

    /// A coordinator counts the node in: called after the first heartbeat that follows a
    /// join.
    fn counted_in(&self, node: NodeId);

    /// A heartbeat was answered, or was not.
    fn heartbeat(&self, answered: bool);
}

/// Whether a certificate has not ended.
fn is_good(identity: &Identity) -> bool {
    identity
        .expires_at()
        .is_ok_and(|ends| ends > SystemTime::now())
}

/// Speaks with the coordinators for one node.
#[derive(Debug)]
pub struct Agent {
    control: ControlClient,
    about: About,
    key: KeyRequest,
    data_dir: DataDir,
    readiness: Readiness,
}

impl Agent {
    /// An agent for the node of `data_dir`. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`NodeError::Net`] for a malformed coordinator address.
    pub fn new(about: About, data_dir: DataDir, readiness: Readiness) -> Result<Self, NodeError> {
        let config = ControlConfig {
            connect_timeout: CALL_TIMEOUT,
            call_timeout: CALL_TIMEOUT,
            // The agent itself decides when to try again.
            patience: Duration::ZERO,
        };
        let token = about.token_file.as_deref().map(JoinToken::read);
        let access = Access {
            token: token.transpose()?,
            identity: data_dir.identity()?.filter(is_good),
        };
        let coordinators = about.coordinators.clone();
        Ok(Self {
            control: ControlClient::with_access(coordinators, config, access)?,
            key: KeyRequest::generate()?,
            about,
            data_dir,
            readiness,
        })
    }

    /// The coordinators.
    pub fn control(&self) -> &ControlClient {
        &self.control
    }

    /// Where block requests are answered.
    pub fn listen(&self) -> SocketAddr {
        self.about.listen
    }

    /// The node's data directory.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// Enters the cluster, however long it takes; none if `stop` is cancelled first.
    ///
    /// # Errors
    /// When the cluster refuses the node or the data directory cannot be written.
    pub async fn enter(&mut self, stop: &CancellationToken) -> Result<Option<Entry>, NodeError> {
        let mut backoff = Backoff::new();
        let mut said = false;
        loop {
            let attempt = stop.run_until_cancelled(self.try_enter()).await;
            let error = match attempt {
                None => return Ok(None),
                Some(Ok(entry)) => {
                    info!(node = %entry.member.node, cluster = %entry.member.cluster, "joined");
                    return Ok(Some(entry));
                }
                Some(Err(error)) if join::is_final(&error) => return Err(error),
                Some(Err(error)) => error,
            };
            let why = error_chain(&error);
            self.readiness
                .set_not_ready(format!("not in a cluster yet: {why}"));
            if said {
                debug!(why, "still no coordinator");
            } else {
                warn!(why, "cannot join yet, will keep trying");
                said = true;
            }
            let pause = sleep(backoff.pause(rand::random()));
            if stop.run_until_cancelled(pause).await.is_none() {
                return Ok(None);
            }
        }
    }

    /// Enters the cluster if a coordinator answers now; none if none does, or `stop` is
    /// cancelled first.
    ///
    /// # Errors
    /// As [`Agent::enter`].
    pub async fn enter_now(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<Entry>, NodeError> {
        match stop.run_until_cancelled(self.try_enter()).await {
            None => Ok(None),
            Some(Ok(entry)) => {
                info!(node = %entry.member.node, cluster = %entry.member.cluster, "joined");
                Ok(Some(entry))
            }
            Some(Err(error)) if join::is_final(&error) => Err(error),
            Some(Err(error)) => {
                debug!(why = error_chain(&error), "no coordinator answers yet");
                Ok(None)
            }
        }
    }

    async fn try_enter(&mut self) -> Result<Entry, NodeError> {
        join::enter(&self.control, &self.about, &self.key, &mut self.data_dir).await
    }

    /// Keeps the node in the cluster until `stop` is cancelled: heartbeats, and a new join
    /// whenever the cluster does not know the node any more or its certificate grows old.
    /// `entry` is the join of this process, if there was one already.
    ///
    /// # Errors
    /// When the cluster refuses a node that it never took since the process started. Later
    /// refusals are logged: a node that serves goes on serving.
    pub async fn stay(
        &mut self,
        entry: Option<&Entry>,
        host: &dyn Host,
        stop: &CancellationToken,
    ) -> Result<(), NodeError> {
        let mut standing = Standing::of(entry);
        let mut backoff = Backoff::new();
        loop {
            let started = Instant::now();
            let step = self.step(&mut standing, host);
            let Some(outcome) = stop.run_until_cancelled(step).await else {
                return Ok(());
            };
            let pause = match outcome {
                Ok(Step::CountedIn) => {
                    backoff.reset();
                    standing.interval.saturating_sub(started.elapsed())
                }
                Ok(Step::JoinAgain) => backoff.pause(rand::random()),
                Err(error) if join::is_final(&error) && !standing.ever_in => return Err(error),
                Err(error) => {
                    self.failed(&mut standing, &error);
                    backoff.pause(rand::random()).max(standing.interval / 2)
                }
            };
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// One call to a coordinator: a join if one is due, else a heartbeat.
    async fn step(&mut self, standing: &mut Standing, host: &dyn Host) -> Result<Step, NodeError> {
        let node = match standing.member {
            Some(node) if SystemTime::now() < standing.renew_at => node,
            _ => {
                let entry = self.try_enter().await?;
                host.adopt(&entry.identity)?;
                info!(node = %entry.member.node, cluster = %entry.member.cluster, "joined");
                *standing = Standing {
                    unanswered: standing.unanswered,
                    ..Standing::of(Some(&entry))
                };
                entry.member.node
            }
        };
        let stats = host.stats();
        let answer = self.control.heartbeat(node, self.about.incarnation, stats);
        match answer.await {
            Ok(_) => {
                host.heartbeat(true);
                if standing.unanswered {
                    info!(%node, "coordinator answers again");
                    standing.unanswered = false;
                }
                if !standing.counted_in {
                    standing.counted_in = true;
                    host.counted_in(node);
                }
                self.readiness.set_ready();
                Ok(Step::CountedIn)
            }
            Err(error) if is_unknown(error.kind()) => {
                host.heartbeat(false);
                info!(%node, %error, "the cluster does not count this node in, joining again");
                standing.member = None;
                Ok(Step::JoinAgain)
            }
            Err(error) => {
                host.heartbeat(false);
                Err(error.into())
            }
        }
    }

    /// Says once that things went wrong. What the watch of the view says, that no
    /// coordinator answers, is not said again.
    fn failed(&self, standing: &mut Standing, error: &NodeError) {
        let why = error_chain(error);
        self.readiness
            .set_not_ready(format!("no coordinator counts this node in: {why}"));
        if standing.unanswered {
            debug!(why, "still not counted in");
            return;
        }
        standing.unanswered = true;
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Timeout => {
                debug!(why, "no coordinator answers, serving from the last view");
            }
            _ => error!(why, "not counted in, serving from the last view"),
        }
    }

    /// Leaves the cluster in good order, if that can be done in a short time.
    pub async fn leave(&self) {
        let Some(member) = self.data_dir.member() else {
            return;
        };
        let left = self.control.leave(member.node, self.about.incarnation);
        match timeout(LEAVE_TIMEOUT, left).await {
            Ok(Ok(())) => info!(node = %member.node, "left the cluster"),
            Ok(Err(error)) => warn!(%error, "cannot leave; the cluster will notice"),
            Err(_) => warn!("no coordinator answers; the cluster will notice"),
        }
    }
}

/// What a call to a coordinator led to.
enum Step {
    CountedIn,
    JoinAgain,
}

/// How the node stands with the cluster.
#[derive(Debug)]
struct Standing {
    /// The node's number; none if a join is due.
    member: Option<NodeId>,
    interval: Duration,
    renew_at: SystemTime,
    /// Whether a heartbeat was answered since the last join.
    counted_in: bool,
    /// Whether this process ever joined.
    ever_in: bool,
    /// Whether the last call failed, which was said then.
    unanswered: bool,
}

impl Standing {
    fn of(entry: Option<&Entry>) -> Self {
        Self {
            member: entry.map(|e| e.member.node),
            interval: entry.map_or(DEFAULT_INTERVAL, |e| e.heartbeat_interval),
            renew_at: entry.map_or(SystemTime::UNIX_EPOCH, |e| e.renew_at),
            counted_in: false,
            ever_in: entry.is_some(),
            unanswered: false,
        }
    }
}

/// Whether a heartbeat's failure means that the node must join again.
const fn is_unknown(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Stale | ErrorKind::NotFound)
}
