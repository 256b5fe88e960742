//! What keeps a node from working.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use millpond_net::NetError;
use millpond_proto::{ClusterId, ErrorKind};

/// A node cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another process has the data directory.
    #[error(
        "data directory {path} is in use by another cache-node{}; stop it, or give this one a \
         directory of its own with --data-dir",
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        path = .path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, if known.
        pid: Option<u32>,
    },
    /// The data directory belongs to a node of another cluster.
    #[error(
        "data directory {path} belongs to cluster {ours}, but the coordinator is of cluster \
         {theirs}; give another --data-dir, or --join the right coordinator",
        path = .path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it belongs to.
        ours: ClusterId,
        /// The cluster that was joined.
        theirs: ClusterId,
    },
    /// A file of the data directory makes no sense.
    #[error("{path} is damaged: {why}; move it away to start as a new node", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file or directory cannot be used.
    #[error("cannot {doing} {path}", path = .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The block address is taken.
    #[error(
        "cannot listen on {addr} (UDP) for block requests; another process has the port: stop \
         it, or choose another with --listen ADDR:PORT"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why it failed.
        source: NetError,
    },
    /// The cluster refuses this node.
    #[error("the cluster does not take this node with data directory {path}", path = .path.display())]
    Refused {
        /// The data directory.
        path: PathBuf,
        /// What the coordinator said.
        source: NetError,
    },
    /// No address to advertise.
    #[error(
        "cannot tell which address others reach this node at; name it with --advertise HOST:PORT"
    )]
    NoAddress {
        /// Why.
        source: io::Error,
    },
    /// The network layer failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The block store failed to open.
    #[error(transparent)]
    Store(#[from] millpond_store::DiskError),
}

impl NodeError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::Busy,
            Self::OtherCluster { .. } | Self::Damaged { .. } => ErrorKind::Invalid,
            Self::Io { source, .. } => io_kind(source),
            Self::NoAddress { source } => io_kind(source),
            Self::Listen { source, .. } | Self::Refused { source, .. } | Self::Net(source) => {
                source.kind()
            }
            Self::Store(source) => source.kind(),
        }
    }
}

fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Unavailable,
    }
}
