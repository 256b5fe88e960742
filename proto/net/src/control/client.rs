//! Single calls to whichever coordinator answers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use millpond_proto::wire::{pb, status};
use millpond_proto::{ErrorKind, Mount, MountPath, NodeId, NodeStats};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::channel::{Access, Bearer};
use super::types::{Certified, ClusterStatus, CoordinatorInfo, JoinRequest, Joined, TokenInfo};
use crate::NetError;
use crate::tls::Identity;

type Stub = pb::control_client::ControlClient<InterceptedService<Channel, Bearer>>;

/// How patient a [`ControlClient`] is.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// How long one connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one coordinator may take to answer one call.
    pub call_timeout: Duration,
    /// How long a call goes on trying while no coordinator answers. Every coordinator is
    /// tried at least once.
    pub patience: Duration,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(3),
        }
    }
}

/// Calls coordinators: the one that answered last first, then the others. Cheap to clone.
#[derive(Clone)]
pub struct ControlClient {
    shared: Arc<Shared>,
}

struct Shared {
    coordinators: ArcSwap<Vec<(String, Stub)>>,
    access: Mutex<Access>,
    /// Index of the one that answered last.
    preferred: AtomicUsize,
    config: ControlConfig,
}

impl ControlClient {
    /// A client of the coordinators at `addrs` (`host:port` each). Connects when first used.
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// `Invalid` when there is no address or one is malformed.
    pub fn new(addrs: Vec<String>) -> Result<Self, NetError> {
        Self::with_config(addrs, ControlConfig::default())
    }

    /// The same with other patience.
    ///
    /// # Errors
    /// Like [`new`](Self::new).
    pub fn with_config(addrs: Vec<String>, config: ControlConfig) -> Result<Self, NetError> {
        Self::with_access(addrs, config, Access::default())
    }

    /// The same for a process that can show who it is, or that has a token.
    ///
    /// # Errors
    /// Like [`new`](Self::new); when the certificate is unusable.
    pub fn with_access(
        addrs: Vec<String>,
        config: ControlConfig,
        access: Access,
    ) -> Result<Self, NetError> {
        if addrs.is_empty() {
            return Err(NetError::Address {
                addr: String::new(),
                why: "at least one is needed".into(),
            });
        }
        Ok(Self {
            shared: Arc::new(Shared {
                coordinators: ArcSwap::from_pointee(stubs(&addrs, &config, &access)?),
                access: Mutex::new(access),
                preferred: AtomicUsize::new(0),
                config,
            }),
        })
    }

    /// Shows `identity` from now on.
    ///
    /// # Errors
    /// When the certificate is unusable.
    pub fn adopt(&self, identity: &Identity) -> Result<(), NetError> {
        let mut access = self.shared.access.lock();
        if access.identity.as_ref() == Some(identity) {
            return Ok(());
        }
        access.identity = Some(identity.clone());
        let stubs = stubs(&self.addrs(), &self.shared.config, &access)?;
        self.shared.coordinators.store(Arc::new(stubs));
        Ok(())
    }

    /// The addresses, as given.
    pub fn addrs(&self) -> Vec<String> {
        let coordinators = self.shared.coordinators.load();
        coordinators.iter().map(|(addr, _)| addr.clone()).collect()
    }

    /// Enters the cluster, or returns to it.
    ///
    /// # Errors
    /// `Unavailable` when no coordinator answers; the coordinator's kind when it refuses
    /// (`Stale` or `Invalid` for a data directory of another cluster).
    pub async fn join(&self, request: &JoinRequest) -> Result<Joined, NetError> {
        let request = pb::JoinRequest::from(request);
        let response = self
            .call("join", |mut stub| {
                let request = request.clone();
                async move { stub.join(request).await }
            })
            .await?;
        Ok(response.try_into()?)
    }

    /// Says that the node lives and what it counted; answers the present view's version.
    ///
    /// # Errors
    /// `Stale` when the node must join again; `Unavailable` when no coordinator answers.
    pub async fn heartbeat(
        &self,
        node: NodeId,
        incarnation: u64,
        stats: NodeStats,
    ) -> Result<u64, NetError> {
        let request = pb::HeartbeatRequest {
            node_id: node.0,
            incarnation,
            stats: Some(stats.into()),
        };
        let response = self
            .call("heartbeat", |mut stub| async move {
                stub.heartbeat(request).await
            })
            .await?;
        Ok(response.version)
    }

    /// Leaves in good order.
    ///
    /// # Errors
    /// `Stale` when the node is not this incarnation's any more; `Unavailable` when no
    /// coordinator answers.
    pub async fn leave(&self, node: NodeId, incarnation: u64) -> Result<(), NetError> {
        let request = pb::LeaveRequest {
            node_id: node.0,
            incarnation,
        };
        self.call("leave", |mut stub| async move { stub.leave(request).await })
            .await?;
        Ok(())
    }

    /// Gets a client certificate for the key in a certificate request.
    ///
    /// # Errors
    /// `Denied` when the coordinator gives none to this host; `Unavailable` when no
    /// coordinator answers.
    pub async fn certify(&self, csr_pem: &str) -> Result<Certified, NetError> {
        let request = pb::CertifyRequest {
            role: pb::Role::Client.into(),
            csr_pem: csr_pem.to_owned(),
        };
        let response = self
            .call("certify", |mut stub| {
                let request = request.clone();
                async move { stub.certify(request).await }
            })
            .await?;
        Ok(response.try_into()?)
    }

    /// The view and what each node last said of itself.
    ///
    /// # Errors
    /// `Unavailable` when no coordinator answers.
    pub async fn status(&self) -> Result<ClusterStatus, NetError> {
        let response = self
            .call("status", |mut stub| async move {
                stub.status(pb::StatusRequest {}).await
            })
            .await?;
        Ok(response.try_into()?)
    }

    /// Binds a UFS to a path.
    ///
    /// # Errors
    /// `Invalid` when the path is taken or the coordinator finds the UFS wrong;
    /// `Unavailable` when no coordinator answers.
    pub async fn add_mount(
        &self,
        path: &MountPath,
        ufs: &str,
        options: BTreeMap<String, String>,
    ) -> Result<Mount, NetError> {
        let request = pb::AddMountRequest {
            path: path.to_string(),
            ufs: ufs.to_owned(),
            options,
        };
        let response = self
            .call("add mount", |mut stub| {
                let request = request.clone();
                async move { stub.add_mount(request).await }
            })
            .await?;
        mount(response)
    }

    /// Sets and removes options of the mount at `path`.
    ///
    /// # Errors
    /// `NotFound` when there is no such mount; `Unavailable` when no coordinator answers.
    pub async fn update_mount(
        &self,
        path: &MountPath,
        set: BTreeMap<String, String>,
        unset: Vec<String>,
    ) -> Result<Mount, NetError> {
        let request = pb::UpdateMountRequest {
            path: path.to_string(),
            set,
            unset,
        };
        let response = self
            .call("update mount", |mut stub| {
                let request = request.clone();
                async move { stub.update_mount(request).await }
            })
            .await?;
        mount(response)
    }

    /// Removes the mount at `path` and returns it.
    ///
    /// # Errors
    /// `NotFound` when there is no such mount; `Unavailable` when no coordinator answers.
    pub async fn remove_mount(&self, path: &MountPath) -> Result<Mount, NetError> {
        let request = pb::RemoveMountRequest {
            path: path.to_string(),
        };
        let response = self
            .call("remove mount", |mut stub| {
                let request = request.clone();
                async move { stub.remove_mount(request).await }
            })
            .await?;
        mount(response)
    }

    /// The group of coordinators.
    ///
    /// # Errors
    /// `Unavailable` when no coordinator answers.
    pub async fn coordinators(&self) -> Result<Vec<CoordinatorInfo>, NetError> {
        let response = self
            .call("coordinators", |mut stub| async move {
                stub.coordinators(pb::CoordinatorsRequest {}).await
            })
            .await?;
        Ok(group(response))
    }

    /// Takes the coordinator `id` out of the group, and returns the others.
    ///
    /// # Errors
    /// `NotFound` when there is no such coordinator; `Invalid` for the last one; `Unavailable`
    /// when no coordinator answers.
    pub async fn remove_coordinator(&self, id: u64) -> Result<Vec<CoordinatorInfo>, NetError> {
        let response = self
            .call("remove coordinator", |mut stub| async move {
                stub.remove_coordinator(pb::RemoveCoordinatorRequest { id })
                    .await
            })
            .await?;
        Ok(group(response))
    }

    /// Has the coordinator `id` lead, and returns the group.
    ///
    /// # Errors
    /// `NotFound` when there is no such coordinator; `Unavailable` or `Timeout` when it does
    /// not come to lead.
    pub async fn transfer_lead(&self, id: u64) -> Result<Vec<CoordinatorInfo>, NetError> {
        let response = self
            .call("transfer lead", |mut stub| async move {
                stub.transfer_lead(pb::TransferLeadRequest { id }).await
            })
            .await?;
        Ok(group(response))
    }

    /// Makes a token of `role` (`node`, `client` or `operator`) for `uses` processes (any number
    /// if none), good for `ttl`.
    ///
    /// # Errors
    /// `Invalid` for a role or time that is none; `Denied`; `Unavailable`.
    pub async fn create_token(
        &self,
        role: &str,
        ttl: Duration,
        uses: Option<u32>,
    ) -> Result<(String, TokenInfo), NetError> {
        let request = pb::CreateTokenRequest {
            role: role.to_owned(),
            ttl_ms: ttl.as_millis() as u64,
            uses: uses.unwrap_or(0),
        };
        let response = self
            .call("create token", |mut stub| {
                let request = request.clone();
                async move { stub.create_token(request).await }
            })
            .await?;
        Ok((response.token, response.info.unwrap_or_default().into()))
    }

    /// The tokens that are still good.
    ///
    /// # Errors
    /// `Denied`; `Unavailable`.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, NetError> {
        let response = self
            .call("list tokens", |mut stub| async move {
                stub.list_tokens(pb::ListTokensRequest {}).await
            })
            .await?;
        Ok(response.tokens.into_iter().map(Into::into).collect())
    }

    /// Makes the token `id` worthless. Certificates that it brought stay good.
    ///
    /// # Errors
    /// `NotFound` when there is no such token; `Denied`; `Unavailable`.
    pub async fn revoke_token(&self, id: &str) -> Result<(), NetError> {
        let request = pb::RevokeTokenRequest { id: id.to_owned() };
        self.call("revoke token", |mut stub| {
            let request = request.clone();
            async move { stub.revoke_token(request).await }
        })
        .await?;
        Ok(())
    }

    /// Opens the stream of views at one coordinator that answers, each tried once.
    pub(super) async fn watch(&self) -> Result<(String, Streaming<pb::View>), NetError> {
        self.round("watch", |mut stub: Stub| async move {
            stub.watch(pb::WatchRequest {}).await
        })
        .await
        .map_err(|failed| failed.into_error(self, "watch", Duration::ZERO))
    }

    /// Makes one call until somebody answers or patience ends.
    async fn call<T, F>(
        &self,
        doing: &'static str,
        call: impl Fn(Stub) -> F + Sync,
    ) -> Result<T, NetError>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let start = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let failed = match self.round(doing, &call).await {
                Ok((_, response)) => return Ok(response),
                Err(failed) => failed,
            };
            let left = self.shared.config.patience.saturating_sub(start.elapsed());
            if failed.is_final() || left.is_zero() {
                return Err(failed.into_error(self, doing, start.elapsed()));
            }
            sleep(jittered(pause).min(left)).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Asks each coordinator once, the preferred one first, until one answers.
    async fn round<T, F>(
        &self,
        doing: &'static str,
        call: impl Fn(Stub) -> F + Sync,
    ) -> Result<(String, T), Failed>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let all = self.shared.coordinators.load_full();
        let first = self.shared.preferred.load(Ordering::Relaxed);
        let mut last = String::new();
        for step in 0..all.len() {
            let index = (first + step) % all.len();
            let (addr, stub) = &all[index];
            match timeout(self.shared.config.call_timeout, call(stub.clone())).await {
                Ok(Ok(response)) => {
                    self.shared.preferred.store(index, Ordering::Relaxed);
                    return Ok((addr.clone(), response.into_inner()));
                }
                Ok(Err(status)) => {
                    let kind = status::from_grpc(status.code());
                    // A status with a cause was made on this side: the connection failed.
                    let answered = std::error::Error::source(&status).is_none();
                    if answered && !try_another(kind) {
                        return Err(Failed::Answered(NetError::Control {
                            doing,
                            addr: addr.clone(),
                            kind,
                            message: status.message().to_owned(),
                        }));
                    }
                    last = describe(addr, &status);
                }
                Err(_) => {
                    let limit = self.shared.config.call_timeout;
                    last = format!("{addr}: no answer within {}s", limit.as_secs_f32());
                }
            }
        }
        Err(Failed::NobodyAnswered(last))
    }
}

impl fmt::Debug for ControlClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.addrs()).finish()
    }
}

/// Why a round of calls failed.
enum Failed {
    /// Somebody answered with an error.
    Answered(NetError),
    /// Nobody answered; what the last one tried did instead.
    NobodyAnswered(String),
}

impl Failed {
    const fn is_final(&self) -> bool {
        matches!(self, Self::Answered(_))
    }

    fn into_error(self, client: &ControlClient, doing: &'static str, after: Duration) -> NetError {
        match self {
            Self::Answered(error) => error,
            Self::NobodyAnswered(last) => NetError::NoCoordinator {
                doing,
                tried: client.addrs().join(", "),
                after,
                last,
            },
        }
    }
}

/// Half to one and a half times `pause`: many processes do not return in step.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>())
}

/// Whether another coordinator, or the same one later, may do better.
const fn try_another(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Busy
    )
}

/// A status with the cause below it, which tonic keeps apart from the message.
fn describe(addr: &str, status: &Status) -> String {
    let mut text = format!("{addr}: {}", status.message());
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn stubs(
    addrs: &[String],
    config: &ControlConfig,
    access: &Access,
) -> Result<Vec<(String, Stub)>, NetError> {
    let stub = |addr: &String| {
        let (channel, bearer) = access.channel(addr, config)?;
        let stub = Stub::new(InterceptedService::new(channel, bearer));
        Ok((addr.clone(), stub.max_decoding_message_size(MAX_VIEW_LEN)))
    };
    addrs.iter().map(stub).collect()
}

/// A view of ten thousand mounts and a thousand nodes fits.
const MAX_VIEW_LEN: usize = 64 << 20;

fn group(response: pb::CoordinatorsResponse) -> Vec<CoordinatorInfo> {
    response.coordinators.into_iter().map(Into::into).collect()
}

fn mount(response: pb::MountResponse) -> Result<Mount, NetError> {
    let mount = response.mount.ok_or_else(|| {
        NetError::Message(millpond_proto::wire::BadMessage(
            "answer without a mount".into(),
        ))
    })?;
    Ok(mount.try_into()?)
}
