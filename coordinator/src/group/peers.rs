//! Calls to other coordinators.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millpond_net::NetError;
use millpond_net::ca::ClusterCa;
use millpond_net::tls::{self, PeerRole};
use millpond_proto::wire::pb::control_client::ControlClient;
use millpond_proto::wire::pb::group_client::GroupClient;
use millpond_proto::wire::{pb, status};
use parking_lot::Mutex;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::secret::GroupSecret;

/// How long one connection to a coordinator may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a request that is passed on to the leader may take there.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long entering the group may take: the log is sent over.
const ENTER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long another coordinator has to become the leader.
const LEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest message between coordinators: a snapshot goes in pieces, entries in batches.
pub(super) const MAX_MESSAGE: usize = 64 << 20;

/// More addresses than any group has; beyond it connections are made anew.
const MAX_CHANNELS: usize = 64;

/// What it takes to reach the other coordinators, and to be reached by them.
pub struct Peers {
    client_tls: ClientTlsConfig,
    server_tls: Arc<rustls::ServerConfig>,
    /// For nodes and clients, once the cluster has its authority.
    cluster_tls: OnceLock<Arc<rustls::ServerConfig>>,
    channels: Mutex<HashMap<String, Channel>>,
}

impl Peers {
    /// Draws a key and certifies it with the authority that is derived from `secret`.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(secret: &GroupSecret) -> Result<Self, NetError> {
        let ca = ClusterCa::derived("millpond coordinators", &secret.authority_seed())?;
        let own = ca.issue(PeerRole::GroupMember)?;
        let client_tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&own.ca_pem))
            .identity(Identity::from_pem(&own.cert_pem, &own.key_pem))
            .domain_name(PeerRole::GroupMember.to_string());
        Ok(Self {
            client_tls,
            server_tls: Arc::new(tls::grpc_server_config(&own, false)?),
            cluster_tls: OnceLock::new(),
            channels: Mutex::default(),
        })
    }

    /// Serves nodes and clients of the cluster over TLS from now on, as `own`.
    ///
    /// # Errors
    /// When the certificate is unusable.
    pub fn serve_cluster(&self, own: &tls::Identity) -> Result<(), NetError> {
        let config = Arc::new(tls::grpc_server_config(own, true)?);
        self.cluster_tls.get_or_init(|| config);
        Ok(())
    }

    pub(super) const fn group_tls(&self) -> &Arc<rustls::ServerConfig> {
        &self.server_tls
    }

    /// The settings for a caller that dials `name`, if there are any yet.
    pub(super) fn tls_for(&self, name: Option<&str>) -> Option<Arc<rustls::ServerConfig>> {
        match name.and_then(PeerRole::from_name) {
            Some(PeerRole::GroupMember) => Some(Arc::clone(&self.server_tls)),
            _ => self.cluster_tls.get().map(Arc::clone),
        }
    }

    /// The service that nodes and clients use, at the coordinator at `addr`.
    ///
    /// # Errors
    /// [`PeerError::Address`].
    pub fn control(&self, addr: &str) -> Result<ControlClient<Channel>, PeerError> {
        let client = ControlClient::new(self.channel(addr)?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE))
    }

    fn group(&self, addr: &str) -> Result<GroupClient<Channel>, PeerError> {
        let client = GroupClient::new(self.channel(addr)?);
        Ok(client
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE))
    }

    /// Sends one message of the consensus to the coordinator `target` at `addr`.
    ///
    /// # Errors
    /// [`PeerError`]; an error of the consensus itself is in the answer.
    pub async fn consensus(
        &self,
        target: u64,
        addr: &str,
        kind: pb::ConsensusKind,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>, PeerError> {
        let request = pb::ConsensusRequest {
            target,
            kind: kind.into(),
            body,
        };
        let mut client = self.group(addr)?;
        let answer = within(limit, addr, client.consensus(request)).await?;
        Ok(answer.body)
    }

    /// Has the group that the coordinator at `addr` is in take in the coordinator `id`, whose
    /// address is `own`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn enter(&self, addr: &str, id: u64, own: &str) -> Result<(), PeerError> {
        let request = pb::EnterRequest {
            id,
            addr: own.to_owned(),
        };
        let mut client = self.group(addr)?;
        within(ENTER_TIMEOUT, addr, client.enter(request)).await?;
        Ok(())
    }

    /// Has the coordinator at `addr` stand for election.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn lead(&self, addr: &str) -> Result<(), PeerError> {
        let mut client = self.group(addr)?;
        within(LEAD_TIMEOUT, addr, client.lead(pb::LeadRequest {})).await?;
        Ok(())
    }

    /// The connection to `addr`, made when it is first used and again when it is lost.
    fn channel(&self, addr: &str) -> Result<Channel, PeerError> {
        if let Some(channel) = self.channels.lock().get(addr) {
            return Ok(channel.clone());
        }
        let wrong = |why: String| PeerError::Address {
            addr: addr.to_owned(),
            why,
        };
        let channel = Endpoint::from_shared(format!("https://{addr}"))
            .map_err(|e| wrong(e.to_string()))?
            .tls_config(self.client_tls.clone())
            .map_err(|e| wrong(e.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ENTER_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true)
            .connect_lazy();
        let mut channels = self.channels.lock();
        if channels.len() >= MAX_CHANNELS {
            channels.clear();
        }
        channels.insert(addr.to_owned(), channel.clone());
        Ok(channel)
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}

/// The answer of `call`, if it comes within `limit`.
async fn within<T>(
    limit: Duration,
    addr: &str,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, PeerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(PeerError::Failed {
            addr: addr.to_owned(),
            kind: status::from_grpc(status.code()),
            why: describe(&status),
        }),
        Err(_) => Err(PeerError::Failed {
            addr: addr.to_owned(),
            kind: millpond_proto::ErrorKind::Timeout,
            why: format!("no answer within {limit:?}"),
        }),
    }
}

/// Passes a request on to the leader at `addr`.
///
/// # Errors
/// [`PeerError::Failed`] with what the leader answered.
pub(crate) async fn forward<T>(
    addr: &str,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, PeerError> {
    within(FORWARD_TIMEOUT, addr, call).await
}

/// A status with the causes below it, which tonic keeps apart from the message.
fn describe(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Another coordinator cannot be reached, or refuses.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The address is none.
    #[error("{addr:?} is not the address of a coordinator: {why}")]
    Address {
        /// The address.
        addr: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no answer, or a refusal.
    #[error("coordinator {addr}: {why}")]
    Failed {
        /// The coordinator.
        addr: String,
        /// What the caller should do.
        kind: millpond_proto::ErrorKind,
        /// What happened.
        why: String,
    },
}

impl PeerError {
    /// What the caller should do.
    pub const fn kind(&self) -> millpond_proto::ErrorKind {
        match self {
            Self::Address { .. } => millpond_proto::ErrorKind::Invalid,
            Self::Failed { kind, .. } => *kind,
        }
    }
}
