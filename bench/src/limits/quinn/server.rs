//! The answering end.

use std::net::{Ipv4Addr, SocketAddr};

use ::quinn::{Endpoint, Incoming, RecvStream, SendStream, VarInt};
use anyhow::{Context, Result};
use bytes::Bytes;
use millpond_net::quic;
use millpond_net::tls::Identity;
use tokio_util::task::TaskTracker;

use super::REQUEST;

/// Serves ranges of some bytes to whoever has a certificate.
#[derive(Debug)]
pub(super) struct Server {
    endpoint: Endpoint,
}

impl Server {
    /// Listens on a free port of loopback. Must be called within a runtime.
    pub(super) fn start(identity: &Identity, set: Bytes) -> Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = quic::server_endpoint(any, identity)?;
        let tasks = TaskTracker::new();
        // It ends when the endpoint is closed.
        tasks.spawn(accept(endpoint.clone(), tasks.clone(), set));
        Ok(Self { endpoint })
    }

    pub(super) fn addr(&self) -> Result<SocketAddr> {
        self.endpoint.local_addr().context("no address")
    }

    pub(super) fn stop(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"done");
    }
}

async fn accept(endpoint: Endpoint, tasks: TaskTracker, set: Bytes) {
    while let Some(incoming) = endpoint.accept().await {
        tasks.spawn(connection(incoming, tasks.clone(), set.clone()));
    }
}

async fn connection(incoming: Incoming, tasks: TaskTracker, set: Bytes) {
    let Ok(connection) = incoming.await else {
        return;
    };
    while let Ok((send, recv)) = connection.accept_bi().await {
        let set = set.clone();
        tasks.spawn(async move {
            // The caller sees a reset, and says so.
            let _ = answer(send, recv, &set).await;
        });
    }
}

async fn answer(mut send: SendStream, mut recv: RecvStream, set: &Bytes) -> Result<()> {
    let mut request = [0; REQUEST];
    recv.read_exact(&mut request).await?;
    let number = |at: usize| request[at..].first_chunk().map(|n| u64::from_le_bytes(*n));
    let (offset, len) = number(0).zip(number(8)).context("a short request")?;
    let range = offset as usize..(offset + len) as usize;
    set.get(range.clone()).context("no such bytes")?;
    send.write_chunk(set.slice(range)).await?;
    send.finish()?;
    Ok(())
}
