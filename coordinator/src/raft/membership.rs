//! Who is in the group, and who leads it.
//!
//! One change of the group is made at a time, by the leader; the consensus sees to it that two
//! majorities never decide side by side (joint consensus, Raft 6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millpond_proto::ErrorKind;
use openraft::error::{ClientWriteError, InitializeError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use tokio::time::{Instant, timeout};

use super::{Consensus, ConsensusError, ELECTION, PROPOSAL_DEADLINE};

/// How long a coordinator that enters may take to receive the log.
const ENTRY_DEADLINE: Duration = Duration::from_secs(50);

/// How long a coordinator that is to lead may take to be elected.
const STAND_DEADLINE: Duration = Duration::from_secs(8);

/// A coordinator of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its number.
    pub id: u64,
    /// Where it is reached.
    pub addr: String,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it votes; one that does not is catching up.
    pub votes: bool,
    /// How many entries of the log it is behind this coordinator, which must lead to know.
    pub behind: Option<u64>,
}

impl Consensus {
    /// Begins the group of `members`, by number with their addresses, unless the log has one.
    /// Exactly one coordinator of a group may do so.
    ///
    /// # Errors
    /// [`ConsensusError::Start`].
    pub async fn begin(&self, members: BTreeMap<u64, String>) -> Result<(), ConsensusError> {
        let initialized = self.raft.is_initialized().await;
        if initialized.map_err(ConsensusError::start)? {
            return Ok(());
        }
        let members: BTreeMap<_, _> = members
            .into_iter()
            .map(|(id, addr)| (id, BasicNode::new(addr)))
            .collect();
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(ConsensusError::start(error)),
        }
    }

    /// Whether this coordinator is, or ever was, in a group.
    pub fn has_group(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.nodes().next().is_some()
    }

    /// The coordinators of the group, as far as this one knows.
    pub fn group(&self) -> Vec<GroupMember> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let behind = |id: &u64| {
            let matched = metrics.replication.as_ref()?.get(id)?;
            let matched = matched.as_ref().map_or(0, |at| at.index);
            Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
        };
        let members = metrics.membership_config.nodes();
        members
            .map(|(id, node)| GroupMember {
                id: *id,
                addr: node.addr.clone(),
                leads: metrics.current_leader == Some(*id),
                votes: voters.contains(id),
                behind: behind(id),
            })
            .collect()
    }

    /// The coordinator that leads, by number and address, as far as this one knows.
    pub fn leader(&self) -> Option<(u64, String)> {
        let leader = self.group().into_iter().find(|member| member.leads)?;
        Some((leader.id, leader.addr))
    }

    /// Whether this coordinator leads, and has heard from a majority lately: one that was cut
    /// off does not know that another leads by now.
    pub fn is_leader(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.current_leader != Some(self.id) {
            return false;
        }
        let alone = metrics.membership_config.voter_ids().count() == 1;
        let heard = metrics.millis_since_quorum_ack;
        alone || heard.is_some_and(|ago| ago <= 2 * ELECTION.end)
    }

    /// Takes the coordinator `id` at `addr` into the group, as a voter once it has the log; or
    /// takes note of its new address. Only the leader can.
    ///
    /// # Errors
    /// [`GroupError`]; to be tried again, what was done already is found done.
    pub async fn enter(&self, id: u64, addr: &str) -> Result<(), GroupError> {
        let known = self.group().into_iter().find(|member| member.id == id);
        let node = BasicNode::new(addr);
        if known.as_ref().is_some_and(|known| known.addr != addr) {
            let moved = ChangeMembers::SetNodes([(id, node.clone())].into());
            self.change(moved, PROPOSAL_DEADLINE).await?;
        }
        if known.is_some_and(|known| known.votes) {
            return Ok(());
        }
        let taken_in = timeout(ENTRY_DEADLINE, self.raft.add_learner(id, node, true));
        match taken_in.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => return Err(GroupError::Late(ENTRY_DEADLINE)),
        }
        let promote = ChangeMembers::AddVoterIds([id].into());
        self.change(promote, PROPOSAL_DEADLINE).await
    }

    /// Takes the coordinator `id` out of the group. Only the leader can; it may be itself.
    ///
    /// # Errors
    /// [`GroupError::Unknown`], [`GroupError::Last`], or as [`enter`](Self::enter).
    pub async fn remove(&self, id: u64) -> Result<(), GroupError> {
        let group = self.group();
        let Some(member) = group.iter().find(|member| member.id == id) else {
            return Err(GroupError::Unknown(id));
        };
        let voters = group.iter().filter(|member| member.votes).count();
        if member.votes && voters == 1 {
            return Err(GroupError::Last(id));
        }
        let change = match member.votes {
            true => ChangeMembers::RemoveVoters([id].into()),
            false => ChangeMembers::RemoveNodes([id].into()),
        };
        self.change(change, PROPOSAL_DEADLINE).await
    }

    /// Is silent as a leader while `other` makes another coordinator stand for election.
    pub async fn step_aside<T>(&self, other: impl Future<Output = T>) -> T {
        let quiet = Quiet::begin(self);
        let done = other.await;
        drop(quiet);
        done
    }

    /// Stands for election until it leads. Followers turn a candidate down while they hear of
    /// a leader, so that takes as long as an election at least.
    ///
    /// # Errors
    /// [`GroupError::Late`].
    pub async fn stand(&self) -> Result<(), GroupError> {
        let deadline = Instant::now() + STAND_DEADLINE;
        let mut metrics = self.raft.metrics();
        while Instant::now() < deadline {
            if metrics.borrow().current_leader == Some(self.id) {
                return Ok(());
            }
            if let Err(error) = self.raft.trigger().elect().await {
                return Err(GroupError::Failed(error.to_string()));
            }
            let led = metrics.wait_for(|m| m.current_leader == Some(self.id));
            // The next round of the election comes after this.
            let _ = timeout(Duration::from_millis(ELECTION.start / 2), led).await;
        }
        Err(GroupError::Late(STAND_DEADLINE))
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, BasicNode>,
        limit: Duration,
    ) -> Result<(), GroupError> {
        match timeout(limit, self.raft.change_membership(change, false)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(GroupError::Late(limit)),
        }
    }
}

/// A leader that does not say that it leads; ends when dropped.
struct Quiet<'a>(&'a Consensus);

impl<'a> Quiet<'a> {
    fn begin(consensus: &'a Consensus) -> Self {
        consensus.raft.runtime_config().heartbeat(false);
        Self(consensus)
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.raft.runtime_config().heartbeat(true);
    }
}

fn failed(error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> GroupError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => GroupError::NotLeader,
        error => GroupError::Failed(error.to_string()),
    }
}

/// The group was not changed.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// There is no such coordinator.
    #[error("there is no coordinator {0} in the group; millpond coordinators ls shows them")]
    Unknown(u64),
    /// It is the only one that votes.
    #[error("coordinator {0} is the last one of its group and cannot be taken out")]
    Last(u64),
    /// Another coordinator leads by now.
    #[error("this coordinator does not lead any more; try again")]
    NotLeader,
    /// It takes too long: a majority does not answer, or the one that enters does not.
    #[error("the group did not agree within {0:?}; it may still do so")]
    Late(Duration),
    /// The consensus refuses, or has stopped.
    #[error("the group was not changed: {0}")]
    Failed(String),
}

impl GroupError {
    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_) => ErrorKind::NotFound,
            Self::Last(_) => ErrorKind::Invalid,
            Self::NotLeader | Self::Failed(_) => ErrorKind::Unavailable,
            Self::Late(_) => ErrorKind::Timeout,
        }
    }
}
