//! Consensus: the engine behind a replicated log on disk. The only module that names openraft
//! and redb.
//!
//! | module | holds |
//! |---|---|
//! | `db` | the database file |
//! | `log` | votes and entries in it |
//! | `machine` | the engine's state and its snapshots |
//! | `network` | the other coordinators (none yet) |
//!
//! # Guarantees
//! - A command whose proposer got an answer is in the log on disk: killing the process or the
//!   machine loses nothing that was acknowledged.
//! - The log is cut after every [`SNAPSHOT_EVERY`] entries, so the file stays small whatever
//!   the cluster's age.
#![allow(
    clippy::result_large_err,
    reason = "openraft's StorageError is large and fixed by its traits"
)]

mod db;
mod log;
mod machine;
mod network;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_proto::{ClusterView, ErrorKind};
use openraft::error::{CheckIsLeaderError, ClientWriteError, InitializeError, RaftError};
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use tokio::sync::{Semaphore, watch};

use crate::engine::{Applied, Command, Op, Refused};

pub use db::DbError;
pub use machine::Published;

openraft::declare_raft_types!(
    /// How this cluster fills in openraft.
    pub(crate) Types: D = Command, R = Applied
);

/// How many entries after the last snapshot bring about the next.
pub const SNAPSHOT_EVERY: u64 = 256;

/// How many entries stay in the log behind a snapshot, for a follower that is a bit late.
const KEEP_BEHIND_SNAPSHOT: u64 = 64;

/// The most commands under way at once; more are answered Busy.
const MAX_PROPOSALS: usize = 256;

/// How long a command may take, its commit to disk included.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(10);

/// How long the first election may take at start.
const ELECTION_DEADLINE: Duration = Duration::from_secs(20);

/// The name of the database file in the data directory.
const DB_FILE: &str = "raft.redb";

/// This coordinator's number among the coordinators.
const MEMBER: u64 = 1;

/// A running member of the consensus.
pub struct Consensus {
    raft: Raft<Types>,
    db: db::Db,
    published: watch::Receiver<Published>,
    proposals: Semaphore,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").finish_non_exhaustive()
    }
}

impl Consensus {
    /// Opens the log in `dir` (or begins one), elects a leader, and applies everything that
    /// was ever acknowledged. `addr` is where other coordinators would find this one.
    ///
    /// # Errors
    /// [`ConsensusError::Open`] when the database cannot be opened, [`ConsensusError::Start`]
    /// when openraft cannot go on from it.
    pub async fn start(dir: &Path, addr: &str) -> Result<Self, ConsensusError> {
        let path = dir.join(DB_FILE);
        let open = |source| ConsensusError::Open {
            path: path.display().to_string(),
            source,
        };
        let file = path.clone();
        let db = tokio::task::spawn_blocking(move || db::Db::open(&file));
        let db = db.await.unwrap_or(Err(DbError::Stopping)).map_err(open)?;
        let machine = machine::Machine::open(db.clone()).await.map_err(open)?;
        let published = machine.published();

        let log = log::LogStore::new(db.clone());
        let network = network::SingleMember;
        let raft = Raft::new(MEMBER, config()?, network, log, machine).await;
        let raft = raft.map_err(ConsensusError::start)?;
        let consensus = Self {
            raft,
            db,
            published,
            proposals: Semaphore::new(MAX_PROPOSALS),
        };
        match consensus.elect(addr).await {
            Ok(()) => Ok(consensus),
            Err(error) => {
                consensus.shutdown().await;
                Err(error)
            }
        }
    }

    async fn elect(&self, addr: &str) -> Result<(), ConsensusError> {
        let initialized = self.raft.is_initialized().await;
        if !initialized.map_err(ConsensusError::start)? {
            let members = BTreeMap::from([(MEMBER, BasicNode::new(addr))]);
            match self.raft.initialize(members).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(ConsensusError::start(error)),
            }
        }
        let wait = self.raft.wait(Some(ELECTION_DEADLINE));
        let led = wait
            .metrics(|m| m.current_leader.is_some(), "a leader")
            .await;
        led.map_err(ConsensusError::start)?;
        match self.raft.ensure_linearizable().await {
            Ok(_) => Ok(()),
            // Another coordinator leads: its entries are applied as they come.
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => Ok(()),
            Err(error) => Err(ConsensusError::start(error)),
        }
    }

    /// Has `op` agreed on, written to disk and applied.
    ///
    /// # Errors
    /// The inner error is the engine's refusal; nothing has changed then. The outer one says
    /// why no answer can be given: after [`ProposeError::Timeout`] the command may still be
    /// applied.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have been applied.
    pub async fn propose(&self, op: Op) -> Result<Applied, ProposeError> {
        let permit = self.proposals.try_acquire();
        let _permit = permit.map_err(|_| ProposeError::Busy {
            limit: MAX_PROPOSALS,
        })?;
        let write = self.raft.client_write(Command::new(op));
        let written = tokio::time::timeout(PROPOSAL_DEADLINE, write).await;
        match written.map_err(|_| ProposeError::Timeout)? {
            Ok(written) => Ok(written.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                let leader = to.leader_node.map(|n| n.addr);
                Err(ProposeError::NotLeader { leader })
            }
            Err(error) => Err(ProposeError::Failed(error.to_string())),
        }
    }

    /// What the state looks like now, and how to hear of changes. Only the latest value is
    /// kept, so a slow reader skips some.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.clone()
    }

    /// The present view.
    ///
    /// # Errors
    /// [`Refused::NotBootstrapped`] before there is one.
    pub fn view(&self) -> Result<Arc<ClusterView>, Refused> {
        let view = self.published.borrow().view.clone();
        view.ok_or(Refused::NotBootstrapped)
    }

    /// Whether this member leads, and so may judge who is alive.
    pub fn is_leader(&self) -> bool {
        let metrics = self.raft.metrics();
        let leader = metrics.borrow().current_leader;
        leader == Some(MEMBER)
    }

    /// The index of the last applied log entry.
    pub fn last_applied_index(&self) -> u64 {
        let metrics = self.raft.metrics();
        let applied = metrics.borrow().last_applied;
        applied.map_or(0, |id| id.index)
    }

    /// Returns when consensus cannot go on (the disk failed, say), with the reason. The
    /// process should end then, so that a supervisor starts it afresh.
    pub async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        let failed = metrics.wait_for(|m| m.running_state.is_err()).await;
        match failed {
            Ok(metrics) => match &metrics.running_state {
                Err(fatal) => fatal.to_string(),
                Ok(()) => "unknown".to_owned(),
            },
            Err(_) => "stopped".to_owned(),
        }
    }

    /// Stops and releases the files; what was acknowledged is on disk already.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "consensus did not stop in good order");
        }
        self.db.close().await;
    }
}

fn config() -> Result<Arc<Config>, ConsensusError> {
    let config = Config {
        cluster_name: "millpond".to_owned(),
        heartbeat_interval: 250,
        election_timeout_min: 1000,
        election_timeout_max: 2000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEEP_BEHIND_SNAPSHOT,
        purge_batch_size: 32,
        ..Config::default()
    };
    let config = config.validate().map_err(ConsensusError::start)?;
    Ok(Arc::new(config))
}

/// Consensus cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The database cannot be opened.
    #[error("cannot open the log in {path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        source: DbError,
    },
    /// openraft cannot go on from what is on disk.
    #[error("cannot start consensus: {0}")]
    Start(String),
}

impl ConsensusError {
    fn start(error: impl std::fmt::Display) -> Self {
        Self::Start(error.to_string())
    }

    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Open { .. } | Self::Start(_) => ErrorKind::Internal,
        }
    }
}

/// A command got no answer from the engine.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Too many are under way.
    #[error("{limit} changes are under way already; try again in a moment")]
    Busy {
        /// How many.
        limit: usize,
    },
    /// The commit took too long; it may still happen.
    #[error(
        "the change was not committed within {}s; it may still take effect",
        PROPOSAL_DEADLINE.as_secs()
    )]
    Timeout,
    /// Another coordinator leads.
    #[error("this coordinator does not lead; {}", Leader(leader))]
    NotLeader {
        /// Where the leader is, if known.
        leader: Option<String>,
    },
    /// Consensus has stopped.
    #[error("the change could not be committed: {0}")]
    Failed(String),
}

impl ProposeError {
    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Timeout => ErrorKind::Timeout,
            Self::NotLeader { .. } | Self::Failed(_) => ErrorKind::Unavailable,
        }
    }
}

struct Leader<'a>(&'a Option<String>);

impl std::fmt::Display for Leader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(addr) => write!(f, "ask {addr}"),
            None => f.write_str("no leader is known, try again in a moment"),
        }
    }
}
