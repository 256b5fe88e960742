//! What came of a command.

use millpond_proto::mount::MountError;
use millpond_proto::{ClusterId, Epoch, ErrorKind, MemberState, Mount, NodeId};
use serde::{Deserialize, Serialize};

/// What came of a command. A refused command has changed nothing and has no effects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The answer to the one who asked.
    pub result: Result<Outcome, Refused>,
    /// What the shell should act on, in order.
    pub effects: Vec<Effect>,
}

impl Applied {
    /// Nothing was asked, nothing happened: a log entry without a command.
    pub const fn nothing() -> Self {
        Self {
            result: Ok(Outcome::Done),
            effects: Vec::new(),
        }
    }
}

/// The answer to a command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The state is as the command wants it, whether it was so before or not.
    Done,
    /// The node is a member under this id.
    Joined(NodeId),
    /// The mount as it is now, or as it was before its removal.
    Mount(Mount),
}

/// What the shell should act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A member is in a new state or has a new process.
    Member {
        /// The member.
        node: NodeId,
        /// The state before; none for a new member.
        from: Option<MemberState>,
        /// The state now.
        to: MemberState,
        /// The process now.
        incarnation: u64,
    },
    /// A process was replaced by a later one while it was believed alive.
    Fenced {
        /// The member.
        node: NodeId,
        /// The earlier process, which may no longer speak for the member.
        incarnation: u64,
    },
    /// A member that was gone was removed from the view to make room.
    Forgotten {
        /// The member.
        node: NodeId,
    },
    /// The mount table or the settings changed.
    Settings,
    /// A token was made, used or revoked.
    Tokens,
    /// The serving set, an address, a weight or a zone changed.
    EpochAdvanced(Epoch),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// The cluster has no identity yet.
    #[error("the cluster has not been bootstrapped yet; try again in a moment")]
    NotBootstrapped,
    /// The token is not good: unknown, ended, used up, revoked, or for another role.
    #[error(
        "the token is not good for this: it may have ended, be used up or revoked, or be for another \
         role; millpond token create makes a new one"
    )]
    BadToken,
    /// There is no token of that name.
    #[error("there is no token {id}; millpond token ls shows those that are good")]
    NoSuchToken {
        /// The name.
        id: String,
    },
    /// There are enough.
    #[error("there are 1000 tokens already; revoke some")]
    TooManyTokens,
    /// The node's data directory was made in another cluster.
    #[error(
        "data directory belongs to cluster {theirs}, this is {ours}; start the node with an \
         empty --data-dir, or point --join at the coordinator of its own cluster"
    )]
    WrongCluster {
        /// What the data directory says.
        theirs: ClusterId,
        /// This cluster.
        ours: ClusterId,
    },
    /// This cluster never gave out the id.
    #[error(
        "{node} was never given out by cluster {cluster}: the coordinator's data directory was \
         replaced by an older copy, or the node's identity file was edited"
    )]
    NeverGiven {
        /// The id.
        node: NodeId,
        /// This cluster.
        cluster: ClusterId,
    },
    /// The cluster does not know the node.
    #[error("{node} is not a member; it must join")]
    NotMember {
        /// The id.
        node: NodeId,
    },
    /// A later process of the same node has joined.
    #[error(
        "another process uses the data directory of {node}: it started later (incarnation \
         {current}, this process is {incarnation}) and has taken over; stop one of them, or \
         give each its own --data-dir"
    )]
    Superseded {
        /// The node.
        node: NodeId,
        /// The process that asked.
        incarnation: u64,
        /// The process that speaks for the node.
        current: u64,
    },
    /// The member is dead or has left.
    #[error("{node} is {state} to the cluster; it must join again")]
    NotLive {
        /// The node.
        node: NodeId,
        /// `dead` or `left`.
        state: String,
    },
    /// The process has not joined.
    #[error("this process of {node} has not joined (incarnation {incarnation}); it must join")]
    NotJoined {
        /// The node.
        node: NodeId,
        /// The process that asked.
        incarnation: u64,
    },
    /// The id belongs to a node with another data directory.
    #[error(
        "{node} belongs to another data directory; the identity file was copied: start the node \
         with an empty --data-dir"
    )]
    OtherDataDir {
        /// The id.
        node: NodeId,
    },
    /// There is no room for another member.
    #[error("the cluster has {limit} members that are not gone, which is the limit")]
    Full {
        /// How many.
        limit: usize,
    },
    /// The mount table does not allow it.
    #[error("{message}")]
    Mount {
        /// What to do about it.
        kind: ErrorKind,
        /// What is wrong.
        message: String,
    },
    /// The option to be removed is not set.
    #[error("cannot unset option {option:?} of the mount at {path}: it is not set")]
    OptionNotSet {
        /// The mount.
        path: String,
        /// The option.
        option: String,
    },
}

impl Refused {
    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotBootstrapped => ErrorKind::Unavailable,
            Self::WrongCluster { .. }
            | Self::NeverGiven { .. }
            | Self::OtherDataDir { .. }
            | Self::OptionNotSet { .. } => ErrorKind::Invalid,
            Self::NotMember { .. }
            | Self::Superseded { .. }
            | Self::NotLive { .. }
            | Self::NotJoined { .. } => ErrorKind::Stale,
            Self::BadToken => ErrorKind::Denied,
            Self::NoSuchToken { .. } => ErrorKind::NotFound,
            Self::Full { .. } | Self::TooManyTokens => ErrorKind::Busy,
            Self::Mount { kind, .. } => *kind,
        }
    }
}

impl From<MountError> for Refused {
    fn from(error: MountError) -> Self {
        Self::Mount {
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}
