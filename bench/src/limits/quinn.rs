//! Blocks over plain quinn with our transport settings: what no block protocol can exceed.
//! One request is one stream: 64 bytes there, the bytes of the block back, nothing else.

mod server;

use std::net::SocketAddr;
use std::time::Duration;

use ::quinn::{Connection, Endpoint, VarInt};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millpond_net::ca::ClusterCa;
use millpond_net::quic;
use millpond_net::tls::{Identity, PeerRole};
use millpond_process::{announce_ready, init_crypto};
use millpond_proto::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::child::{Child, Role};
use super::content::Content;
use super::workers;
use crate::measure::Sample;

use server::Server;

/// Bytes that the server holds, all of which are asked for in turn.
pub const SET: u64 = 64 << 20;

/// The length of a request in bytes, that of a block request of ours.
const REQUEST: usize = 64;
/// How the server is called in its certificate.
const NODE: NodeId = NodeId(1);
/// Bytes of one request while all bytes are checked.
const CHECKED: u64 = 1 << 20;
const CONNECTS: Duration = Duration::from_secs(10);

/// A client and a server of plain quinn, connected.
#[derive(Debug)]
pub struct QuinnLimit {
    runtime: Handle,
    connection: Connection,
    endpoint: Endpoint,
    server: Far,
    pids: Vec<u32>,
    verified: u64,
}

#[derive(Debug)]
enum Far {
    Child(#[allow(dead_code, reason = "it lives as long as this")] Child),
    Here(Server),
}

impl QuinnLimit {
    /// Starts both ends, the server as a process of its own if `processes`, and reads all bytes
    /// once to check them and to let the packets grow to their size. Blocks: not for a thread
    /// of `runtime`.
    ///
    /// # Errors
    /// When no server comes up, or wrong bytes come.
    pub fn start(runtime: &Handle, processes: bool, seed: u64) -> Result<Self> {
        init_crypto();
        let ca = ClusterCa::create(&ClusterId([7; 16]))?;
        let identity = ca.issue(PeerRole::Node(NODE))?;
        let content = Content::new(seed, SET);
        let (server, addr, pids) = if processes {
            let serving = Serving {
                ca: identity.ca_pem,
                cert: identity.cert_pem,
                key: identity.key_pem,
                seed,
            };
            let child = Child::start(&Role::Quinn(serving)).context("cannot start the server")?;
            let (addr, pid) = (child.ready("listen")?.parse()?, child.pid());
            (Far::Child(child), addr, vec![pid])
        } else {
            let _runtime = runtime.enter();
            let server = Server::start(&identity, content.bytes(0, SET as usize).into())?;
            let addr = server.addr()?;
            (Far::Here(server), addr, Vec::new())
        };
        let client = ca.issue(PeerRole::Client)?;
        let (endpoint, connection) = runtime.block_on(connect(&client, addr))?;
        let verified = runtime.block_on(verify(&connection, &content))?;
        Ok(Self {
            runtime: runtime.clone(),
            connection,
            endpoint,
            server,
            pids,
            verified,
        })
    }

    /// Keeps `in_flight` requests of `request` bytes each under way for `duration`; CPU time of
    /// both ends. Blocks: not for a thread of the runtime.
    ///
    /// # Errors
    /// When the connection fails; for requests larger than [`SET`].
    pub fn run(&self, request: u32, in_flight: usize, duration: Duration) -> Result<Sample> {
        let len = u64::from(request);
        ensure!(
            (1..=SET).contains(&len),
            "{request} bytes cannot be asked for"
        );
        let connection = self.connection.clone();
        let places = SET / len;
        let ask = move |number: u64| {
            let connection = connection.clone();
            async move { receive(&connection, number % places * len, len).await }
        };
        workers::requests(&self.runtime, in_flight, duration, &self.pids, ask)
    }

    /// Processes that took part beside this one.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Bytes that were checked at the start: all that the server has.
    pub const fn verified_bytes(&self) -> u64 {
        self.verified
    }
}

impl Drop for QuinnLimit {
    fn drop(&mut self) {
        let done = VarInt::from_u32(0);
        self.connection.close(done, b"done");
        self.endpoint.close(done, b"done");
        if let Far::Here(server) = &self.server {
            server.stop();
        }
    }
}

async fn connect(identity: &Identity, addr: SocketAddr) -> Result<(Endpoint, Connection)> {
    let endpoint = quic::client_endpoint(identity)?;
    let connecting = endpoint.connect(addr, &NODE.to_string())?;
    let connection = tokio::time::timeout(CONNECTS, connecting)
        .await
        .context("the server does not answer")??;
    Ok((endpoint, connection))
}

/// One request, its bytes counted as they come.
async fn receive(connection: &Connection, offset: u64, len: u64) -> Result<u64> {
    let mut received = 0;
    each_chunk(connection, offset, len, |chunk| {
        received += chunk.len() as u64
    })
    .await?;
    ensure!(received == len, "{received} of {len} bytes came");
    Ok(received)
}

async fn each_chunk(
    connection: &Connection,
    offset: u64,
    len: u64,
    mut take: impl FnMut(Bytes),
) -> Result<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    let mut request = [0; REQUEST];
    request[..8].copy_from_slice(&offset.to_le_bytes());
    request[8..16].copy_from_slice(&len.to_le_bytes());
    send.write_all(&request).await?;
    send.finish()?;
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        take(chunk.bytes);
    }
    Ok(())
}

async fn verify(connection: &Connection, content: &Content) -> Result<u64> {
    let mut checked = 0;
    while checked < SET {
        let (mut at, mut wrong) = (checked, 0);
        each_chunk(connection, checked, CHECKED, |chunk| {
            wrong += content.mismatches(at, &chunk);
            at += chunk.len() as u64;
        })
        .await?;
        checked += CHECKED;
        ensure!(at == checked && wrong == 0, "{wrong} bytes came wrong");
    }
    Ok(checked)
}

/// What the child serves, and as whom.
#[derive(Serialize, Deserialize)]
pub(super) struct Serving {
    ca: String,
    cert: String,
    key: String,
    seed: u64,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

/// The child's side.
pub(super) async fn serve(serving: Serving, stop: impl Future<Output = ()>) -> Result<()> {
    let identity = Identity::new(serving.ca, serving.cert, serving.key);
    let set = Content::new(serving.seed, SET).bytes(0, SET as usize);
    let server = Server::start(&identity, set.into())?;
    announce_ready(&[("listen", server.addr()?.to_string())]);
    stop.await;
    server.stop();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_any_size_are_answered_in_one_process() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let limit = QuinnLimit::start(runtime.handle(), false, 3).unwrap();
        assert_eq!(limit.verified_bytes(), SET);
        for (request, in_flight) in [(4096, 1), (100_000, 4)] {
            let brief = Duration::from_millis(10);
            let sample = limit.run(request, in_flight, brief).unwrap();
            assert!(sample.ops > 0 && sample.bytes == sample.ops * u64::from(request));
        }
        assert!(limit.run(0, 1, Duration::from_millis(1)).is_err());
    }

    #[test]
    fn wrong_bytes_are_noticed() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let limit = QuinnLimit::start(runtime.handle(), false, 3).unwrap();
        let other = Content::new(4, SET);
        let checked = runtime.block_on(verify(&limit.connection, &other));
        assert!(checked.unwrap_err().to_string().contains("wrong"));
    }
}
