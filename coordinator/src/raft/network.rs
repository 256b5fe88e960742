//! The network between coordinators: openraft's own messages, as JSON, over [`Peers`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millpond_proto::ErrorKind;
use millpond_proto::wire::pb::ConsensusKind;
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Types;
use crate::group::{PeerError, Peers};

/// Makes clients of other coordinators.
pub(super) struct Network {
    peers: Arc<Peers>,
}

/// One other coordinator.
pub(super) struct Peer {
    peers: Arc<Peers>,
    target: u64,
    addr: String,
    /// Whether the last message went unanswered.
    silent: AtomicBool,
}

type Rpc<T, E = openraft::error::Infallible> =
    Result<T, RPCError<u64, BasicNode, RaftError<u64, E>>>;

impl Network {
    pub(super) const fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer {
            peers: Arc::clone(&self.peers),
            target,
            addr: node.addr.clone(),
            silent: AtomicBool::new(false),
        }
    }
}

impl Peer {
    async fn call<T, E>(
        &self,
        kind: ConsensusKind,
        message: &impl Serialize,
        option: RPCOption,
    ) -> Rpc<T, E>
    where
        T: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let body = serde_json::to_vec(message).map_err(|e| NetworkError::new(&e))?;
        let limit = option.hard_ttl();
        let sent = self
            .peers
            .consensus(self.target, &self.addr, kind, body, limit);
        let answer = sent.await;
        self.note(answer.as_ref().err());
        let answer = answer.map_err(|error| -> RPCError<_, _, _> {
            match error.kind() {
                // The consensus tries at once again.
                ErrorKind::Timeout => NetworkError::new(&AnyError::new(&error)).into(),
                // It waits a little.
                _ => Unreachable::new(&AnyError::new(&error)).into(),
            }
        })?;
        let answer: Result<T, RaftError<u64, E>> =
            serde_json::from_slice(&answer).map_err(|e| NetworkError::new(&e))?;
        answer.map_err(|error| RemoteError::new(self.target, error).into())
    }
}

impl Peer {
    /// One line when the other falls silent, one when it is back.
    fn note(&self, error: Option<&PeerError>) {
        let (coordinator, addr) = (self.target, &self.addr);
        match (error, self.silent.swap(error.is_some(), Ordering::Relaxed)) {
            (Some(error), false) => {
                tracing::warn!(coordinator, addr, %error, "coordinator does not answer");
            }
            (None, true) => tracing::info!(coordinator, addr, "coordinator answers again"),
            _ => {}
        }
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<u64>> {
        self.call(ConsensusKind::Append, &rpc, option).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Rpc<InstallSnapshotResponse<u64>, InstallSnapshotError> {
        self.call(ConsensusKind::Snapshot, &rpc, option).await
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Rpc<VoteResponse<u64>> {
        self.call(ConsensusKind::Vote, &rpc, option).await
    }
}
