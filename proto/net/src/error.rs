//! What can fail between two processes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_proto::wire::BadMessage;
use millpond_proto::wire::frame::FrameError;
use millpond_proto::{BlockId, Epoch, ErrorKind, NodeId};

/// A failure of the network layer. [`kind`](Self::kind) says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A key, certificate or TLS setting is unusable.
    #[error("{doing}: {why}")]
    Tls {
        /// What was being done.
        doing: &'static str,
        /// What the library said.
        why: String,
    },
    /// The peer's certificate names no role that may do this.
    #[error("peer {addr} is not let in: {why}")]
    Denied {
        /// Where the peer is.
        addr: SocketAddr,
        /// What is wrong with its certificate.
        why: String,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {path}", path = path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file's content makes no sense.
    #[error("{path} is damaged: {why}; move it away to start afresh", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr} (UDP)")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// The peer cannot be connected to.
    #[error("cannot connect to {node} at {addr}: {why}")]
    Connect {
        /// The peer.
        node: NodeId,
        /// Its address as the view gives it.
        addr: String,
        /// What went wrong.
        why: Arc<str>,
    },
    /// The peer failed a moment ago and is left alone for now.
    #[error("{node} failed {failures} times in a row, not asked again for {}ms", retry_in.as_millis())]
    Down {
        /// The peer.
        node: NodeId,
        /// How often it failed.
        failures: u32,
        /// How long it is left alone from now on.
        retry_in: Duration,
    },
    /// The connection broke.
    #[error("connection to {node} lost: {why}")]
    Lost {
        /// The peer.
        node: NodeId,
        /// What quinn said.
        why: String,
    },
    /// The peer sent nothing at all, not even acknowledgements.
    #[error("{node} has been silent for {}ms", after.as_millis())]
    Silent {
        /// The peer.
        node: NodeId,
        /// For how long.
        after: Duration,
    },
    /// The deadline passed.
    #[error("deadline passed while {doing} {node}")]
    Timeout {
        /// The peer.
        node: NodeId,
        /// What was being done.
        doing: &'static str,
    },
    /// The peer answered with an error.
    #[error("{node} answered {kind}: {message}")]
    Refused {
        /// The peer.
        node: NodeId,
        /// The kind that it gave.
        kind: ErrorKind,
        /// What it said.
        message: String,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The peer gave up after it had begun to send data.
    #[error("{node} gave up in the middle of its answer: {kind}")]
    Reset {
        /// The peer.
        node: NodeId,
        /// Why it gave up.
        kind: ErrorKind,
    },
    /// The peer sent something that is no answer to the request.
    #[error("malformed answer from {node}")]
    Frame {
        /// The peer.
        node: NodeId,
        /// What is wrong.
        source: FrameError,
    },
    /// Bytes do not match their checksum.
    #[error("page {page} of block {block} from {node} does not match its checksum")]
    Corrupt {
        /// Who sent it.
        node: NodeId,
        /// The block.
        block: BlockId,
        /// The page's number in the block.
        page: u32,
    },
    /// The caller went away or reads too slowly.
    #[error("answer not delivered: {0}")]
    Undelivered(String),
    /// The request cannot be encoded.
    #[error("request cannot be sent")]
    Encode(#[from] FrameError),
    /// A coordinator answered with an error.
    #[error("coordinator {addr} answered {kind} to {doing}: {message}")]
    Control {
        /// The call.
        doing: &'static str,
        /// Who answered.
        addr: String,
        /// The kind that it gave.
        kind: ErrorKind,
        /// What it said.
        message: String,
    },
    /// No coordinator answered.
    #[error(
        "no coordinator answered {doing} (tried {tried} for {:.1}s, last: {last}); \
         check the address and that a coordinator runs there",
        after.as_secs_f64()
    )]
    NoCoordinator {
        /// The call.
        doing: &'static str,
        /// The addresses.
        tried: String,
        /// For how long.
        after: Duration,
        /// The last failure.
        last: String,
    },
    /// The text is no address.
    #[error("{addr:?} is not a coordinator address, expected HOST:PORT: {why}")]
    Address {
        /// The text.
        addr: String,
        /// What is wrong with it.
        why: String,
    },
    /// A coordinator sent something that makes no sense.
    #[error("coordinator sent a malformed message")]
    Message(#[from] BadMessage),
    /// The view belongs to another cluster.
    #[error("cluster {found} answered where cluster {expected} was expected")]
    OtherCluster {
        /// The cluster that this process belongs to.
        expected: millpond_proto::ClusterId,
        /// The cluster that answered.
        found: millpond_proto::ClusterId,
    },
}

impl NetError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Tls { .. } | Self::Address { .. } => ErrorKind::Invalid,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::File { source, .. } | Self::Bind { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Unavailable,
            },
            Self::Damaged { .. } | Self::OtherCluster { .. } => ErrorKind::Invalid,
            Self::Connect { .. }
            | Self::Down { .. }
            | Self::Lost { .. }
            | Self::Silent { .. }
            | Self::Undelivered(_)
            | Self::NoCoordinator { .. } => ErrorKind::Unavailable,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Refused { kind, .. } | Self::Reset { kind, .. } | Self::Control { kind, .. } => {
                *kind
            }
            // A peer that does not speak our language: another source may.
            Self::Frame { .. } => ErrorKind::Unavailable,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Encode(source) => source.kind(),
            Self::Message(source) => source.kind(),
        }
    }

    /// The epoch of the peer that refused, where it gave one.
    pub const fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Refused { epoch, .. } => Some(*epoch),
            _ => None,
        }
    }
}
