//! What can go wrong in the client.

use std::sync::Arc;
use std::time::Duration;

use millpond_disk::DiskError;
use millpond_net::NetError;
use millpond_proto::{ErrorKind, NodeId, Refusal};
use millpond_ufs::UfsError;

/// A call to the client failed. Cheap to clone, because several readers may wait for one
/// fetch.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// A setting is wrong.
    #[error("setting {setting} is not usable: {why}")]
    Config {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The text is not a path of the namespace.
    #[error("path {path:?} is not usable: {why}")]
    BadPath {
        /// The text.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nothing has this path.
    #[error("{path} does not exist")]
    NotFound {
        /// The path.
        path: String,
    },
    /// A file or link was used as a directory.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// The path.
        path: String,
    },
    /// Something else than a file was used as a file.
    #[error("{path} is not a file")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// Something else than a symbolic link was used as one.
    #[error("{path} is not a symbolic link")]
    NotALink {
        /// The path.
        path: String,
    },
    /// The object was replaced or removed after it was opened.
    #[error("{path} changed in its store since it was opened; open it again")]
    Stale {
        /// The path.
        path: String,
    },
    /// The time for the call ran out.
    #[error("{action} {path} did not end within {after:?}")]
    Timeout {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: String,
        /// The time it had.
        after: Duration,
    },
    /// A file of the client's own could not be read or written.
    #[error("cannot {action} {path}")]
    State {
        /// What was being done.
        action: &'static str,
        /// The client's file or directory.
        path: String,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// The store failed.
    #[error(transparent)]
    Ufs(#[from] UfsError),
    /// A node or a coordinator failed.
    #[error(transparent)]
    Net(Arc<NetError>),
    /// A node's answer makes no sense to this client.
    #[error("{node} gave an answer that this client cannot read")]
    Answer {
        /// The node.
        node: NodeId,
    },
    /// The view has no node of that name.
    #[error("{node} is no member of this cluster")]
    NoSuchNode {
        /// The node.
        node: NodeId,
    },
    /// No cache node is in service, and one is needed.
    #[error("there is no cache node to load {path} into: start one, or wait until it has joined")]
    NoNodes {
        /// The file.
        path: String,
    },
    /// The local disk tier could not be opened.
    #[error(transparent)]
    Disk(Arc<DiskError>),
    /// Bytes of a file that is being written are in the store, and not here any more.
    #[error(
        "these bytes of {path} were sent and given up to stay within the staging size; they can be \
         read when the file is closed"
    )]
    Sent {
        /// The file.
        path: String,
    },
    /// A change is refused.
    #[error("cannot {action} {path}: {refusal}")]
    Refused {
        /// What was to be done.
        action: &'static str,
        /// To what.
        path: String,
        /// Why not.
        refusal: Refusal,
    },
    /// A directory was to come to lie below itself.
    #[error("cannot rename {path} to a place below itself")]
    BelowItself {
        /// The directory.
        path: String,
    },
    /// The store cannot exchange two paths.
    #[error("cannot exchange {path} with another path: its store cannot do that in one step")]
    NoExchange {
        /// One of the two.
        path: String,
    },
    /// The store keeps no such attributes.
    #[error(
        "{path} can have no extended attributes: its store keeps none, or does not with the \
         option posix_attributes of this mount"
    )]
    NoAttributes {
        /// The path.
        path: String,
    },
    /// The store would have to copy more than it may.
    #[error(
        "cannot rename the directory {path}: its store has to copy each file, and it has more \
         than {limit} (see --rename-limit)"
    )]
    TooManyToRename {
        /// The directory.
        path: String,
        /// The limit.
        limit: u64,
    },
    /// The client was shut down.
    #[error("the client is shut down")]
    ShutDown,
}

impl ClientError {
    /// The UFS could not give the bytes of a file that was open.
    pub(crate) fn of_ufs(error: UfsError, path: &str) -> Self {
        match error.kind() {
            ErrorKind::Stale | ErrorKind::NotFound => Self::Stale {
                path: path.to_owned(),
            },
            _ => error.into(),
        }
    }

    /// Why a change was refused, where that is what happened. A path that is used as a
    /// directory, or as a file, and is none, counts as one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(*refusal),
            Self::NotADirectory { .. } => Some(Refusal::NotADirectory),
            // So programs that move files go on to copy and remove.
            Self::TooManyToRename { .. } => Some(Refusal::OtherMount),
            Self::Ufs(source) => source.refusal(),
            _ => None,
        }
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. }
            | Self::BadPath { .. }
            | Self::NotADirectory { .. }
            | Self::NotAFile { .. }
            | Self::NotALink { .. }
            | Self::BelowItself { .. }
            | Self::NoExchange { .. }
            | Self::TooManyToRename { .. } => ErrorKind::Invalid,
            Self::NoAttributes { .. } => ErrorKind::Unsupported,
            Self::Refused { refusal, .. } => refusal.kind(),
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Stale { .. } => ErrorKind::Stale,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::State { .. } => ErrorKind::Internal,
            Self::Ufs(source) => source.kind(),
            Self::Net(source) => source.kind(),
            Self::Answer { .. } => ErrorKind::Unsupported,
            Self::NoSuchNode { .. } => ErrorKind::NotFound,
            Self::Sent { .. } => ErrorKind::Busy,
            Self::Disk(source) => source.kind(),
            Self::NoNodes { .. } | Self::ShutDown => ErrorKind::Unavailable,
        }
    }
}

impl From<NetError> for ClientError {
    fn from(error: NetError) -> Self {
        Self::Net(Arc::new(error))
    }
}
