//! What calls to a coordinator take and give.

use std::time::Duration;

use millpond_proto::wire::{BadMessage, pb};
use millpond_proto::{ClusterId, ClusterView, NodeId, NodeStats};

/// A cache node's wish to be in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The cluster that the data directory belongs to, if it belongs to one.
    pub cluster: Option<ClusterId>,
    /// The number that the node was given before, if any.
    pub node: Option<NodeId>,
    /// `host:port` where it answers block requests.
    pub addr: String,
    /// `http://host:port` of its metrics and health endpoints; empty if it has none.
    pub admin: String,
    /// Failure domain; empty when the operator names none.
    pub zone: String,
    /// Share of blocks relative to [`NORMAL_WEIGHT`](millpond_proto::ring::NORMAL_WEIGHT).
    pub weight: u32,
    /// Bytes it can hold, memory and disk together.
    pub capacity: u64,
    /// Grows with each start of the process.
    pub incarnation: u64,
    /// The request to certify its key, PEM.
    pub csr_pem: String,
    /// Drawn once for the data directory: a retried first join gets the id it was given.
    pub data_dir_id: Vec<u8>,
}

impl From<&JoinRequest> for pb::JoinRequest {
    fn from(request: &JoinRequest) -> Self {
        Self {
            cluster_id: request.cluster.map(|c| c.0.to_vec()).unwrap_or_default(),
            node_id: request.node.map_or(0, |n| n.0),
            addr: request.addr.clone(),
            admin: request.admin.clone(),
            zone: request.zone.clone(),
            weight: request.weight,
            capacity: request.capacity,
            incarnation: request.incarnation,
            csr_pem: request.csr_pem.clone(),
            data_dir_id: request.data_dir_id.clone(),
        }
    }
}

/// The cluster's answer to a node that joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The node's number.
    pub node: NodeId,
    /// The view, with the node in it.
    pub view: ClusterView,
    /// The certificate for its key, PEM.
    pub cert_pem: String,
    /// The cluster authority's certificate, PEM.
    pub ca_pem: String,
    /// How often the node is to be heard of.
    pub heartbeat_interval: Duration,
}

impl TryFrom<pb::JoinResponse> for Joined {
    type Error = BadMessage;

    fn try_from(response: pb::JoinResponse) -> Result<Self, BadMessage> {
        Ok(Self {
            node: NodeId(response.node_id),
            view: view(response.view)?,
            cert_pem: response.cert_pem,
            ca_pem: response.ca_pem,
            heartbeat_interval: Duration::from_millis(response.heartbeat_interval_ms.max(1)),
        })
    }
}

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The cluster that issued it.
    pub cluster: ClusterId,
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The cluster authority's certificate, PEM.
    pub ca_pem: String,
}

impl TryFrom<pb::CertifyResponse> for Certified {
    type Error = BadMessage;

    fn try_from(response: pb::CertifyResponse) -> Result<Self, BadMessage> {
        Ok(Self {
            cluster: response.cluster_id.as_slice().try_into()?,
            cert_pem: response.cert_pem,
            ca_pem: response.ca_pem,
        })
    }
}

/// The view and what each node last said of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterStatus {
    /// The present view.
    pub view: ClusterView,
    /// One entry per member.
    pub nodes: Vec<NodeStatus>,
    /// The address of the coordinator that leads. Empty if none does: the view may then lack
    /// what was changed last.
    pub leader: String,
}

/// A coordinator of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorInfo {
    /// Its number.
    pub id: u64,
    /// Where it is reached.
    pub addr: String,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it votes; one that does not is catching up.
    pub votes: bool,
    /// How many entries of the log it is behind the leader, where that is known.
    pub behind: Option<u64>,
}

impl From<pb::Coordinator> for CoordinatorInfo {
    fn from(coordinator: pb::Coordinator) -> Self {
        Self {
            id: coordinator.id,
            addr: coordinator.addr,
            leads: coordinator.leads,
            votes: coordinator.votes,
            behind: coordinator.behind,
        }
    }
}

/// A token that is still good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its name.
    pub id: String,
    /// What it makes of a process: `node`, `client` or `operator`.
    pub role: String,
    /// Until when.
    pub expires: std::time::SystemTime,
    /// How many more processes may use it; any number if none.
    pub uses_left: Option<u32>,
}

impl From<pb::Token> for TokenInfo {
    fn from(token: pb::Token) -> Self {
        Self {
            id: token.id,
            role: token.role,
            expires: std::time::UNIX_EPOCH + Duration::from_millis(token.expires_ms),
            uses_left: token.uses_left,
        }
    }
}

/// What is known of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Time since its last heartbeat; none if the coordinator has not heard of it.
    pub heartbeat_age: Option<Duration>,
    /// What it counted then.
    pub stats: NodeStats,
}

impl TryFrom<pb::StatusResponse> for ClusterStatus {
    type Error = BadMessage;

    fn try_from(response: pb::StatusResponse) -> Result<Self, BadMessage> {
        let nodes = response.nodes.into_iter().map(|node| NodeStatus {
            node: NodeId(node.node_id),
            heartbeat_age: node.heartbeat_age_ms.map(Duration::from_millis),
            stats: node.stats.unwrap_or_default().into(),
        });
        Ok(Self {
            view: view(response.view)?,
            nodes: nodes.collect(),
            leader: response.leader,
        })
    }
}

fn view(view: Option<pb::View>) -> Result<ClusterView, BadMessage> {
    view.ok_or_else(|| BadMessage("answer without a view".into()))?
        .try_into()
}
