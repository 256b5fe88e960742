//! The Unix socket of a node, for clients on its host: they are given descriptors of block
//! files, or bytes, and sent back to QUIC for everything else.
//!
//! - Who may connect: the node's own user, root, and those of the configuration; and of them
//!   only who was told the secret over QUIC, where it showed a certificate of the cluster.
//! - A client asks for one thing at a time and reads the answer before it asks again; so what
//!   it holds of the node is one answer in a socket buffer, however slow it is.
//! - Every wait has an end. A connection that breaks a rule is closed and counted.

mod connection;

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_proto::wire::frame::{Request, Tier};
use millpond_proto::wire::local::LocalOffer;
use millpond_proto::{ErrorKind, NodeId};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::debug;

use super::{BlockService, Shared};
use crate::NetError;
use crate::local::{Secret, host};
use crate::metrics::RejectReason;
use crate::tls::PeerRole;

/// The most connections, where the process may open files enough for them.
const CONNECTIONS: usize = 256;

/// The connections take at most this part of the files that the process may open: each is one,
/// and has one more while it is answered.
const SHARE_OF_FILES: u64 = 8;

/// How long to wait before accepting again when the system lacks what a connection takes.
const LACK: Duration = Duration::from_millis(100);

/// What of a block a caller on the same host can have.
#[derive(Debug)]
pub enum LocalHit {
    /// The file that holds the whole block.
    File {
        /// Open for reading.
        file: File,
        /// Where the block starts in it.
        start: u64,
        /// Length of the block in bytes.
        len: u32,
        /// One CRC32C per page of the block.
        checksums: Vec<u32>,
    },
    /// The range that was asked for.
    Bytes {
        /// The range.
        data: Bytes,
        /// One CRC32C per page piece of the range.
        checksums: Vec<u32>,
        /// Where it was.
        tier: Tier,
    },
}

/// A node's socket, bound and not yet listened to.
pub struct LocalSocket {
    listener: UnixListener,
    door: Door,
}

/// Who is let in, and how they learn of it.
pub(super) struct Door {
    /// In the abstract namespace.
    name: String,
    host: [u8; 16],
    /// Drawn with each start, like the name: an offer of an earlier process is worth nothing.
    master: [u8; 32],
    /// Users beside root and the node's own.
    users: Vec<u32>,
    own: u32,
    pub(super) connections: Arc<Semaphore>,
}

impl LocalSocket {
    /// Binds a socket for `node` that lets in its own user, root and `users`. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// What the system says when there can be no such socket.
    pub fn bind(node: NodeId, users: Vec<u32>) -> io::Result<Self> {
        let host = host().ok_or(io::ErrorKind::Unsupported)?;
        // Nobody can know the name beforehand and take it.
        let name = format!("millpond/{node}/{:032x}", rand::random::<u128>());
        let listener = UnixListener::bind(format!("\0{name}"))?;
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.unwrap_or(u64::MAX) / SHARE_OF_FILES;
        let connections = usize::try_from(files).unwrap_or(CONNECTIONS);
        let connections = connections.clamp(1, CONNECTIONS);
        let door = Door {
            name,
            host,
            master: rand::random(),
            users,
            own: rustix::process::geteuid().as_raw(),
            connections: Arc::new(Semaphore::new(connections)),
        };
        Ok(Self { listener, door })
    }

    /// Lets in at most `connections` at a time.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.door.connections = Arc::new(Semaphore::new(connections));
        self
    }

    pub(super) fn open(self) -> (UnixListener, Door) {
        (self.listener, self.door)
    }
}

impl fmt::Debug for LocalSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSocket")
            .field("name", &self.door.name)
            .finish_non_exhaustive()
    }
}

impl Door {
    /// What `caller` is told who asks with `request`.
    pub(super) fn offer(
        &self,
        caller: PeerRole,
        request: &Request,
    ) -> Result<LocalOffer, (ErrorKind, &'static str)> {
        if caller != PeerRole::Client {
            return Err((ErrorKind::Denied, "the socket is for clients"));
        }
        if request.block.file.0 != self.host {
            return Err((ErrorKind::NotFound, "this is another host"));
        }
        let client = rand::random();
        Ok(LocalOffer {
            name: self.name.clone(),
            client,
            secret: self.secret(&client).0,
        })
    }

    fn secret(&self, client: &[u8; 16]) -> Secret {
        Secret::of(&self.master, client)
    }

    fn lets_in(&self, user: u32) -> bool {
        user == 0 || user == self.own || self.users.contains(&user)
    }
}

/// Accepts connections until the server stops.
pub(super) async fn accept<S: BlockService>(
    listener: UnixListener,
    door: Arc<Door>,
    shared: Arc<Shared<S>>,
) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "cannot accept on the local socket");
                shared.metrics.reject(RejectReason::Connections);
                sleep(LACK).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&door.connections).try_acquire_owned() else {
            shared.metrics.reject(RejectReason::Connections);
            continue;
        };
        match stream.peer_cred() {
            Ok(peer) if door.lets_in(peer.uid()) => {}
            refused => {
                shared.metrics.reject(RejectReason::Denied);
                debug!(?refused, "not let in at the local socket");
                continue;
            }
        }
        let (door, shared) = (Arc::clone(&door), Arc::clone(&shared));
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            shared.metrics.local_connections.inc();
            if let Err(error) = connection::run(stream, &door, &shared).await {
                debug!(%error, "local connection closed");
            }
            shared.metrics.local_connections.dec();
            drop(permit);
        });
    }
}

/// Why a connection is closed.
fn broken(why: &'static str) -> NetError {
    NetError::Undelivered(why.to_owned())
}

#[cfg(test)]
mod tests;
