//! Consensus: the engine behind a replicated log on disk. The only module that names openraft
//! and redb.
//!
//! | module | holds |
//! |---|---|
//! | `db` | the database file |
//! | `log` | votes and entries in it |
//! | `machine` | the engine's state and its snapshots |
//! | `network` | messages to the other coordinators |
//! | `membership` | who is in the group, and who leads it |
//!
//! # Guarantees
//! - A command whose proposer got an answer is in the log on the disks of a majority: killing
//!   any minority of the processes or machines loses nothing that was acknowledged.
//! - The log is cut after every [`SNAPSHOT_EVERY`] entries, so the file stays small whatever
//!   the cluster's age.
#![allow(
    clippy::result_large_err,
    reason = "openraft's StorageError is large and fixed by its traits"
)]

mod db;
mod log;
mod machine;
mod membership;
mod network;
#[cfg(test)]
mod tests;

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_proto::wire::pb::ConsensusKind;
use millpond_proto::{ClusterView, ErrorKind};
use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError};
use openraft::{Config, Raft, SnapshotPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};

use crate::engine::{Applied, Command, Op, Refused};
use crate::group::Peers;
use crate::secret::Sealer;

pub use db::DbError;
pub use machine::Published;
pub use membership::{GroupError, GroupMember};

openraft::declare_raft_types!(
    /// How this cluster fills in openraft.
    pub(crate) Types: D = Command, R = Applied
);

/// How many entries after the last snapshot bring about the next.
pub const SNAPSHOT_EVERY: u64 = 256;

/// How many entries stay in the log behind a snapshot, for a follower that is a bit late.
const KEEP_BEHIND_SNAPSHOT: u64 = 64;

/// The most entries in one message to another coordinator. Each is at most as long as a request.
const ENTRIES_PER_MESSAGE: u64 = 16;

/// The most commands under way at once; more are answered Busy.
const MAX_PROPOSALS: usize = 256;

/// How long a command may take, its commit to the disks of a majority included.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(10);

/// How often a leader says that it leads, in milliseconds.
const HEARTBEAT: u64 = 150;

/// Within which time a follower that hears of no leader stands for election, in milliseconds:
/// a leader that dies is to be replaced within two seconds.
const ELECTION: std::ops::Range<u64> = 500..1000;

/// The name of the database file in the data directory.
const DB_FILE: &str = "raft.redb";

/// The value that holds this coordinator's number.
const MEMBER: &str = "member";

/// The number of a coordinator that begins a group alone.
pub const FIRST: u64 = 1;

/// A running member of the consensus.
pub struct Consensus {
    id: u64,
    raft: Raft<Types>,
    db: db::Db,
    published: watch::Receiver<Published>,
    proposals: Semaphore,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Consensus {
    /// Opens the log in `dir`, or begins one for the coordinator `fresh`; the number of a log
    /// that exists is kept. From now on it hears other coordinators; whether it is in a group
    /// with them is another question ([`begin`](Self::begin), [`enter`](Self::enter)).
    ///
    /// # Errors
    /// [`ConsensusError::Open`] when the database cannot be opened, [`ConsensusError::Start`]
    /// when openraft cannot go on from it.
    pub async fn open(
        dir: &Path,
        fresh: u64,
        sealer: Sealer,
        peers: Arc<Peers>,
    ) -> Result<Self, ConsensusError> {
        let path = dir.join(DB_FILE);
        let open = |source| ConsensusError::Open {
            path: path.display().to_string(),
            source,
        };
        let file = path.clone();
        let db = tokio::task::spawn_blocking(move || db::Db::open(&file, sealer));
        let db = db.await.unwrap_or(Err(DbError::Stopping)).map_err(open)?;
        let id = own_number(&db, fresh).await.map_err(open)?;
        let machine = machine::Machine::open(db.clone()).await.map_err(open)?;
        let published = machine.published();

        let log = log::LogStore::new(db.clone());
        let network = network::Network::new(peers);
        let raft = Raft::new(id, config()?, network, log, machine).await;
        Ok(Self {
            id,
            raft: raft.map_err(ConsensusError::start)?,
            db,
            published,
            proposals: Semaphore::new(MAX_PROPOSALS),
        })
    }

    /// This coordinator's number in its group.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Takes in a message of another coordinator, and answers it.
    ///
    /// # Errors
    /// When the message is none.
    pub async fn receive(
        &self,
        kind: ConsensusKind,
        body: &[u8],
    ) -> Result<Vec<u8>, serde_json::Error> {
        match kind {
            ConsensusKind::Append => answer(body, |m| self.raft.append_entries(m)).await,
            ConsensusKind::Vote => answer(body, |m| self.raft.vote(m)).await,
            ConsensusKind::Snapshot => answer(body, |m| self.raft.install_snapshot(m)).await,
            ConsensusKind::Unspecified => {
                Err(serde::de::Error::custom("a message of no known kind"))
            }
        }
    }

    /// Has `op` agreed on, written to the disks of a majority and applied.
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

    /// Returns once everything that was acknowledged before the call is in the published state:
    /// a majority has confirmed that this coordinator leads.
    ///
    /// # Errors
    /// [`ProposeError`]: it does not lead, or no majority answers.
    pub async fn catch_up(&self) -> Result<(), ProposeError> {
        let confirmed = tokio::time::timeout(PROPOSAL_DEADLINE, self.raft.ensure_linearizable());
        match confirmed.await.map_err(|_| ProposeError::Timeout)? {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => {
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

/// The number that the log belongs to; a log that has none yet is given `fresh`. Earlier
/// releases kept none: their groups had one member.
async fn own_number(db: &db::Db, fresh: u64) -> Result<u64, DbError> {
    if let Some(kept) = db.value(MEMBER).await? {
        return Ok(kept);
    }
    let id = if log::is_used(db).await? {
        FIRST
    } else {
        fresh
    };
    let sealer = db.sealer();
    db.write(move |tx| sealer.put(tx, MEMBER, &id)).await?;
    Ok(id)
}

/// What `handle` makes of the message in `body`, its failure included.
async fn answer<M, A, F>(
    body: &[u8],
    handle: impl FnOnce(M) -> F,
) -> Result<Vec<u8>, serde_json::Error>
where
    M: DeserializeOwned,
    A: Serialize,
    F: Future<Output = A>,
{
    let message = serde_json::from_slice(body)?;
    serde_json::to_vec(&handle(message).await)
}

fn config() -> Result<Arc<Config>, ConsensusError> {
    let config = Config {
        cluster_name: "millpond".to_owned(),
        heartbeat_interval: HEARTBEAT,
        election_timeout_min: ELECTION.start,
        election_timeout_max: ELECTION.end,
        install_snapshot_timeout: 5000,
        max_payload_entries: ENTRIES_PER_MESSAGE,
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
