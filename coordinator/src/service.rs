//! The `Control` service: what nodes, clients and the CLI ask of a coordinator.
//!
//! | module | holds |
//! |---|---|
//! | `door` | checks of what comes in, and its conversion to domain types |
//! | `failure` | an answer that is an error |
//! | `group` | the group of coordinators: who is in it, who leads |
//! | `leader` | which calls go to the leader, and how they get there |
//! | `rights` | who may ask for what |
//! | `tokens` | tokens: made, listed, revoked |
//! | `watch` | the stream of views |
//!
//! Nothing is decided here: calls become commands for the engine, or read what it published. A
//! coordinator that does not lead passes on what only the leader can answer.

mod door;
mod failure;
mod group;
mod leader;
mod rights;
mod tokens;
mod watch;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use millpond_proto::wire::pb;
use millpond_proto::wire::pb::control_server::{Control, ControlServer};
use millpond_proto::{ClusterView, ErrorKind, MemberState, Mount, NodeId};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::{Instrument, instrument};

use crate::authority::Authority;
use crate::engine::members::{check_incarnation, not_live};
use crate::engine::{Applied, Effect, Op, Outcome, Refused, is_live};
use crate::group::Peers;
use crate::liveness::Liveness;
use crate::metrics::{Metrics, Rpc, state_name};
use crate::raft::Consensus;

use failure::Failure;
use rights::{Grant, Right};

/// The most watch streams at once; more are answered Busy.
const MAX_WATCHERS: usize = 20_000;

/// The largest message that is accepted.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// What the calls work on.
#[derive(Debug)]
pub struct Shared {
    /// The engine behind its log.
    pub consensus: Consensus,
    /// The other coordinators.
    pub peers: Arc<Peers>,
    /// Signs certificates, once the cluster's state is there.
    pub authority: OnceLock<Authority>,
    /// Who was heard when.
    pub liveness: Mutex<Liveness>,
    /// What is counted.
    pub metrics: Metrics,
    /// How often nodes are told to report.
    pub heartbeat_interval: Duration,
    /// Whether peers on other machines are served.
    pub open_join: bool,
    /// Where this coordinator listens.
    pub addr: SocketAddr,
    /// Where the other coordinators reach it.
    pub advertised: String,
    /// Ends all watch streams.
    pub stop: CancellationToken,
}

impl Shared {
    /// Has `op` carried out, and says in the log what changed.
    ///
    /// # Errors
    /// The engine's refusal, or why there is no answer.
    pub async fn propose(&self, op: Op) -> Result<Outcome, ProposalError> {
        let Applied { result, effects } = self.consensus.propose(op).await?;
        for effect in &effects {
            self.note(effect);
        }
        Ok(result?)
    }

    fn note(&self, effect: &Effect) {
        match effect {
            Effect::Member {
                node,
                from,
                to,
                incarnation,
            } => {
                if *to == MemberState::Dead {
                    self.metrics.deaths.inc();
                }
                let from = from.map_or("none", state_name);
                let to = state_name(*to);
                tracing::info!(%node, from, to, incarnation, "member changed");
            }
            Effect::Fenced { node, incarnation } => {
                tracing::info!(%node, incarnation, "earlier process fenced by a later one");
            }
            Effect::Forgotten { node } => {
                tracing::info!(%node, "member forgotten: it was gone for the longest");
            }
            Effect::EpochAdvanced(epoch) => tracing::info!(%epoch, "epoch advanced"),
            // The call that changed it says what.
            Effect::Settings | Effect::Tokens => {}
        }
    }
}

/// A command was refused, or got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProposalError {
    /// The engine said no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no answer.
    #[error(transparent)]
    NoAnswer(#[from] crate::raft::ProposeError),
}

impl ProposalError {
    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(refused) => refused.kind(),
            Self::NoAnswer(error) => error.kind(),
        }
    }
}

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
    watchers: Arc<Semaphore>,
}

impl Service {
    /// A service over `shared`.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
        }
    }

    /// The service as tonic serves it.
    pub fn into_server(self) -> ControlServer<Self> {
        ControlServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Times and counts a call and makes a status of its failure.
    async fn answer<T>(
        &self,
        rpc: Rpc,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Response<T>, Status> {
        let started = Instant::now();
        let answer = call.instrument(tracing::Span::current()).await;
        let kind = answer.as_ref().err().map(Failure::kind);
        self.shared.metrics.answered(rpc, kind, started.elapsed());
        match answer {
            Ok(answer) => Ok(Response::new(answer)),
            Err(failure) => {
                tracing::debug!(rpc = rpc.name(), %failure, "call failed");
                Err(failure.into())
            }
        }
    }

    fn authority(&self) -> Result<&Authority, Failure> {
        let authority = self.shared.authority.get();
        authority.ok_or_else(|| {
            let message = "this coordinator waits for a majority of its group; try again";
            Failure::new(ErrorKind::Unavailable, message)
        })
    }

    fn view(&self) -> Result<Arc<ClusterView>, Failure> {
        Ok(self.shared.consensus.view()?)
    }

    async fn join(&self, request: pb::JoinRequest) -> Result<pb::JoinResponse, Failure> {
        let (join, csr_pem) = door::join(request)?;
        let incarnation = join.incarnation;
        // A request that cannot be certified must not leave a member behind.
        self.authority()?.certify_client(&csr_pem)?;
        let Outcome::Joined(node) = self.shared.propose(Op::Join(join)).await? else {
            return Err(Failure::internal("a join was answered with something else"));
        };
        let now = Instant::now();
        self.shared
            .liveness
            .lock()
            .hear(node, incarnation, None, now);
        let cert_pem = self.authority()?.certify_node(&csr_pem, node)?;
        self.shared.metrics.certificates.inc();
        let view = self.view()?;
        tracing::info!(%node, incarnation, epoch = %view.epoch, "node joined");
        Ok(pb::JoinResponse {
            node_id: node.0,
            view: Some(view.as_ref().into()),
            cert_pem,
            ca_pem: self.authority()?.cert_pem().to_owned(),
            heartbeat_interval_ms: self.shared.heartbeat_interval.as_millis() as u64,
        })
    }

    /// Not a log entry, except the first one of a joined process, which activates the member.
    async fn heartbeat(
        &self,
        request: pb::HeartbeatRequest,
    ) -> Result<pb::HeartbeatResponse, Failure> {
        let node = NodeId(request.node_id);
        let incarnation = request.incarnation;
        let view = self.view()?;
        let member = view.member(node).ok_or(Refused::NotMember { node })?;
        check_incarnation(member, incarnation)?;
        if !is_live(member.state) {
            return Err(not_live(member).into());
        }
        let stats = request.stats.map(Into::into);
        let now = Instant::now();
        self.shared
            .liveness
            .lock()
            .hear(node, incarnation, stats, now);
        let mut version = view.version;
        if member.state == MemberState::Joining {
            let activate = Op::Activate { node, incarnation };
            self.shared.propose(activate).await?;
            version = self.view()?.version;
        }
        Ok(pb::HeartbeatResponse { version })
    }

    fn status(&self, redacted: bool) -> Result<pb::StatusResponse, Failure> {
        let view = self.view()?;
        let now = Instant::now();
        let liveness = self.shared.liveness.lock();
        let nodes = view.members.iter().map(|member| {
            let heard = liveness.heard(member.id);
            let age = heard.map(|h| now.saturating_duration_since(h.at).as_millis() as u64);
            pb::NodeStatus {
                node_id: member.id.0,
                heartbeat_age_ms: age,
                stats: heard.and_then(|h| h.stats).map(Into::into),
            }
        });
        let nodes = nodes.collect();
        let mut shown = pb::View::from(view.as_ref());
        if redacted {
            shown.mounts = view.mounts.iter().map(redact).collect();
        }
        // Only the leader's word is fresh.
        let leader = match self.shared.consensus.is_leader() {
            true => self.shared.advertised.clone(),
            false => String::new(),
        };
        Ok(pb::StatusResponse {
            view: Some(shown),
            nodes,
            leader,
        })
    }

    async fn change_mount(&self, op: Op) -> Result<pb::MountResponse, Failure> {
        match self.shared.propose(op).await? {
            Outcome::Mount(mount) => Ok(pb::MountResponse {
                mount: Some(redact(&mount)),
            }),
            Outcome::Done | Outcome::Joined(_) => Err(Failure::internal(
                "a mount command was answered with something else",
            )),
        }
    }
}

/// A mount as it may be shown: secrets replaced.
fn redact(mount: &Mount) -> pb::Mount {
    pb::Mount {
        options: mount.redacted_options().into_iter().collect(),
        ..mount.into()
    }
}

#[tonic::async_trait]
impl Control for Service {
    #[instrument(skip_all, fields(node = request.get_ref().node_id))]
    async fn join(
        &self,
        request: Request<pb::JoinRequest>,
    ) -> Result<Response<pb::JoinResponse>, Status> {
        let call = async {
            let node = NodeId(request.get_ref().node_id);
            let grant = self.allow(&request, Right::Enter(node))?;
            match self.leader_for(&request)? {
                Some(leader) => {
                    leader
                        .ask(request, |mut c, r| async move { c.join(r).await })
                        .await
                }
                None => {
                    let by = hex::encode(&request.get_ref().data_dir_id);
                    self.redeem(grant, &request, &by).await?;
                    self.join(request.into_inner()).await
                }
            }
        };
        self.answer(Rpc::Join, call).await
    }

    #[instrument(level = "debug", skip_all, fields(node = request.get_ref().node_id))]
    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        let call = async {
            self.allow(&request, Right::Speak(NodeId(request.get_ref().node_id)))?;
            match self.leader_for(&request)? {
                Some(leader) => {
                    leader
                        .ask(request, |mut c, r| async move { c.heartbeat(r).await })
                        .await
                }
                None => self.heartbeat(request.into_inner()).await,
            }
        };
        self.answer(Rpc::Heartbeat, call).await
    }

    #[instrument(skip_all, fields(node = request.get_ref().node_id))]
    async fn leave(
        &self,
        request: Request<pb::LeaveRequest>,
    ) -> Result<Response<pb::LeaveResponse>, Status> {
        let call = async {
            self.allow(&request, Right::Speak(NodeId(request.get_ref().node_id)))?;
            if let Some(leader) = self.leader_for(&request)? {
                return leader
                    .ask(request, |mut c, r| async move { c.leave(r).await })
                    .await;
            }
            let request = request.into_inner();
            let leave = Op::Leave {
                node: NodeId(request.node_id),
                incarnation: request.incarnation,
            };
            self.shared.propose(leave).await?;
            Ok(pb::LeaveResponse {})
        };
        self.answer(Rpc::Leave, call).await
    }

    #[instrument(skip_all)]
    async fn certify(
        &self,
        request: Request<pb::CertifyRequest>,
    ) -> Result<Response<pb::CertifyResponse>, Status> {
        let call = async {
            let grant = self.allow(&request, Right::Certify)?;
            if grant != Grant::Whole {
                if let Some(leader) = self.leader_for(&request)? {
                    let ask = |mut c: leader::Client, r| async move { c.certify(r).await };
                    return leader.ask(request, ask).await;
                }
                let by = rights::sha256(&request.get_ref().csr_pem);
                self.redeem(grant, &request, &by).await?;
            }
            let request = request.into_inner();
            if request.role() != pb::Role::Client {
                let message = "only clients are certified this way; a cache node joins";
                return Err(Failure::new(ErrorKind::Invalid, message));
            }
            let cert_pem = self.authority()?.certify_client(&request.csr_pem)?;
            self.shared.metrics.certificates.inc();
            Ok(pb::CertifyResponse {
                cluster_id: self.view()?.cluster.0.to_vec(),
                cert_pem,
                ca_pem: self.authority()?.cert_pem().to_owned(),
            })
        };
        self.answer(Rpc::Certify, call).await
    }

    type WatchStream = watch::Views;

    #[instrument(skip_all)]
    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<watch::Views>, Status> {
        let call = async {
            self.allow(&request, Right::Follow)?;
            let seat = Arc::clone(&self.watchers).try_acquire_owned();
            let seat = seat.map_err(|_| {
                let message = format!("there are {MAX_WATCHERS} watchers already");
                Failure::new(ErrorKind::Busy, message)
            })?;
            Ok(watch::views(&self.shared, seat))
        };
        self.answer(Rpc::Watch, call).await
    }

    #[instrument(skip_all)]
    async fn add_mount(
        &self,
        request: Request<pb::AddMountRequest>,
    ) -> Result<Response<pb::MountResponse>, Status> {
        let call = async {
            self.allow(&request, Right::Change)?;
            if let Some(leader) = self.leader_for(&request)? {
                return leader
                    .ask(request, |mut c, r| async move { c.add_mount(r).await })
                    .await;
            }
            let mount = door::add_mount(request.into_inner(), &self.view()?.mounts)?;
            let (path, ufs) = (mount.path.clone(), mount.ufs.clone());
            let added = self.change_mount(Op::AddMount(mount)).await?;
            tracing::info!(mount = %path, ufs, "mount added");
            Ok(added)
        };
        self.answer(Rpc::AddMount, call).await
    }

    #[instrument(skip_all)]
    async fn update_mount(
        &self,
        request: Request<pb::UpdateMountRequest>,
    ) -> Result<Response<pb::MountResponse>, Status> {
        let call = async {
            self.allow(&request, Right::Change)?;
            if let Some(leader) = self.leader_for(&request)? {
                return leader
                    .ask(request, |mut c, r| async move { c.update_mount(r).await })
                    .await;
            }
            let change = door::update_mount(request.into_inner(), &self.view()?.mounts)?;
            let path = change.path.clone();
            let updated = self.change_mount(Op::UpdateMount(change)).await?;
            tracing::info!(mount = %path, "mount updated");
            Ok(updated)
        };
        self.answer(Rpc::UpdateMount, call).await
    }

    #[instrument(skip_all)]
    async fn remove_mount(
        &self,
        request: Request<pb::RemoveMountRequest>,
    ) -> Result<Response<pb::MountResponse>, Status> {
        let call = async {
            self.allow(&request, Right::Change)?;
            if let Some(leader) = self.leader_for(&request)? {
                return leader
                    .ask(request, |mut c, r| async move { c.remove_mount(r).await })
                    .await;
            }
            let path = door::mount_path(&request.get_ref().path)?;
            let remove = Op::RemoveMount { path: path.clone() };
            let removed = self.change_mount(remove).await?;
            tracing::info!(mount = %path, "mount removed");
            Ok(removed)
        };
        self.answer(Rpc::RemoveMount, call).await
    }

    #[instrument(level = "debug", skip_all)]
    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        // Who is served gets the secrets by watching anyway; everyone else may look, without.
        let redacted = self.allow(&request, Right::Follow).is_err();
        let call = async {
            let leader = self.leader_for(&request);
            match leader {
                Ok(Some(leader)) if !redacted => {
                    leader
                        .ask(request, |mut c, r| async move { c.status(r).await })
                        .await
                }
                // Everything that was acknowledged is to be seen.
                Ok(None) => {
                    self.shared.consensus.catch_up().await?;
                    self.status(redacted)
                }
                // Without a leader, and for those who may only look: what this one knows.
                _ => self.status(redacted),
            }
        };
        self.answer(Rpc::Status, call).await
    }

    #[instrument(level = "debug", skip_all)]
    async fn coordinators(
        &self,
        request: Request<pb::CoordinatorsRequest>,
    ) -> Result<Response<pb::CoordinatorsResponse>, Status> {
        let call = async {
            match self.leader_for(&request) {
                Ok(Some(leader)) => {
                    leader
                        .ask(request, |mut c, r| async move { c.coordinators(r).await })
                        .await
                }
                _ => Ok(group::members(&self.shared.consensus)),
            }
        };
        self.answer(Rpc::Coordinators, call).await
    }

    #[instrument(skip_all, fields(coordinator = request.get_ref().id))]
    async fn remove_coordinator(
        &self,
        request: Request<pb::RemoveCoordinatorRequest>,
    ) -> Result<Response<pb::CoordinatorsResponse>, Status> {
        let call = async {
            self.allow(&request, Right::Change)?;
            if let Some(leader) = self.leader_for(&request)? {
                let ask = |mut c: leader::Client, r| async move { c.remove_coordinator(r).await };
                return leader.ask(request, ask).await;
            }
            group::remove(&self.shared, request.get_ref().id).await
        };
        self.answer(Rpc::RemoveCoordinator, call).await
    }

    #[instrument(skip_all, fields(coordinator = request.get_ref().id))]
    async fn transfer_lead(
        &self,
        request: Request<pb::TransferLeadRequest>,
    ) -> Result<Response<pb::CoordinatorsResponse>, Status> {
        let call = async {
            self.allow(&request, Right::Change)?;
            if let Some(leader) = self.leader_for(&request)? {
                let ask = |mut c: leader::Client, r| async move { c.transfer_lead(r).await };
                return leader.ask(request, ask).await;
            }
            group::transfer(&self.shared, request.get_ref().id).await
        };
        self.answer(Rpc::TransferLead, call).await
    }

    #[instrument(skip_all)]
    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let call = async {
            self.allow(&request, Right::Change)?;
            if let Some(leader) = self.leader_for(&request)? {
                let ask = |mut c: leader::Client, r| async move { c.create_token(r).await };
                return leader.ask(request, ask).await;
            }
            self.make_token(request.into_inner()).await
        };
        self.answer(Rpc::CreateToken, call).await
    }

    #[instrument(level = "debug", skip_all)]
    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let call = async {
            self.allow(&request, Right::Change)?;
            if let Some(leader) = self.leader_for(&request)? {
                let ask = |mut c: leader::Client, r| async move { c.list_tokens(r).await };
                return leader.ask(request, ask).await;
            }
            self.shared.consensus.catch_up().await?;
            Ok(self.good_tokens())
        };
        self.answer(Rpc::ListTokens, call).await
    }

    #[instrument(skip_all, fields(token = request.get_ref().id))]
    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let call = async {
            self.allow(&request, Right::Change)?;
            if let Some(leader) = self.leader_for(&request)? {
                let ask = |mut c: leader::Client, r| async move { c.revoke_token(r).await };
                return leader.ask(request, ask).await;
            }
            self.end_token(request.into_inner().id).await
        };
        self.answer(Rpc::RevokeToken, call).await
    }
}
