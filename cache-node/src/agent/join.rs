//! One attempt to enter the cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use millpond_net::control::{ControlClient, JoinRequest};
use millpond_net::tls::{Identity, KeyRequest};
use millpond_proto::{ClusterView, ErrorKind};

use crate::data_dir::{DataDir, Membership};
use crate::error::NodeError;

use super::address::{admin_url, advertised};

/// A certificate is replaced when it has less than this left.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a node tells the cluster of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Coordinators, `host:port`.
    pub coordinators: Vec<String>,
    /// File with a token that lets the node in.
    pub token_file: Option<PathBuf>,
    /// The address to advertise; derived if none.
    pub advertise: Option<String>,
    /// Where block requests are answered, with the real port.
    pub listen: SocketAddr,
    /// Where metrics and health are answered.
    pub admin: Option<SocketAddr>,
    /// Failure domain.
    pub zone: String,
    /// Share of the blocks.
    pub weight: u32,
    /// Bytes that it can hold.
    pub capacity: u64,
    /// Grows with each start of the process.
    pub incarnation: u64,
}

/// What entering the cluster gave.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who the node is now.
    pub member: Membership,
    /// Its key and certificate.
    pub identity: Identity,
    /// The view, with the node in it.
    pub view: ClusterView,
    /// How often the cluster wants to hear of it.
    pub heartbeat_interval: Duration,
    /// When to enter again for a fresh certificate.
    pub renew_at: SystemTime,
}

/// Asks to enter once, and keeps what is given in the data directory.
pub(super) async fn enter(
    control: &ControlClient,
    about: &About,
    key: &KeyRequest,
    data_dir: &mut DataDir,
) -> Result<Entry, NodeError> {
    let addr = advertised(
        about.advertise.as_deref(),
        about.listen,
        &about.coordinators,
    )
    .await
    .map_err(|source| NodeError::NoAddress { source })?;
    let member = data_dir.member();
    let request = JoinRequest {
        cluster: member.map(|m| m.cluster),
        node: member.map(|m| m.node),
        admin: admin_url(about.admin, &addr),
        addr,
        zone: about.zone.clone(),
        weight: about.weight,
        capacity: about.capacity,
        incarnation: about.incarnation,
        csr_pem: key.csr_pem.clone(),
        data_dir_id: data_dir.id().to_vec(),
    };
    let joined = control.join(&request).await.map_err(|source| {
        if is_refusal(source.kind()) {
            let path = data_dir.path().to_owned();
            NodeError::Refused { path, source }
        } else {
            NodeError::Net(source)
        }
    })?;
    let member = Membership {
        cluster: joined.view.cluster,
        node: joined.node,
    };
    let identity = Identity::new(joined.ca_pem, joined.cert_pem, key.key_pem.clone());
    let renew_at = identity.expires_at()? - RENEW_BEFORE;
    data_dir.keep(member, &identity)?;
    control.adopt(&identity)?;
    Ok(Entry {
        member,
        identity,
        view: joined.view,
        heartbeat_interval: joined.heartbeat_interval,
        renew_at,
    })
}

/// Whether trying the same again cannot help: somebody has to change something.
pub(super) const fn is_final(error: &NodeError) -> bool {
    matches!(
        error,
        NodeError::Refused { .. }
            | NodeError::OtherCluster { .. }
            | NodeError::Damaged { .. }
            | NodeError::Io { .. }
    )
}

const fn is_refusal(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::NotFound
        | ErrorKind::Invalid
        | ErrorKind::Unsupported
        | ErrorKind::Denied
        | ErrorKind::Stale => true,
        ErrorKind::Busy
        | ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Corrupt
        | ErrorKind::Internal => false,
    }
}
