//! The cluster's certificate authority: made at first start, kept in the data directory.
//!
//! The key lives in one file that only its owner may read, never in the log. The certificate
//! is also recorded in the cluster's state, so a lost or exchanged key file is noticed before
//! it splits the cluster into members that do not trust each other.

use std::path::{Path, PathBuf};

use millpond_net::NetError;
use millpond_net::ca::ClusterCa;
use millpond_net::tls::PeerRole;
use millpond_proto::{ClusterId, ErrorKind, NodeId};

/// Signs certificates for the members of this cluster.
#[derive(Debug)]
pub struct Authority {
    ca: ClusterCa,
}

impl Authority {
    /// Reads the authority kept in `dir`, or makes one for `cluster`. On disk when this
    /// returns. `recorded` is the certificate that the cluster's state knows, if any.
    ///
    /// # Errors
    /// [`AuthorityError`] when the key is missing or is not the one that the cluster trusts.
    pub fn open(
        dir: &Path,
        cluster: &ClusterId,
        recorded: Option<&str>,
    ) -> Result<Self, AuthorityError> {
        let path = || dir.join(ClusterCa::FILE);
        let ca = match (ClusterCa::load(dir)?, recorded) {
            (Some(ca), Some(known)) if ca.cert_pem().trim() != known.trim() => {
                return Err(AuthorityError::Other { path: path() });
            }
            (Some(ca), _) => ca,
            (None, Some(_)) => return Err(AuthorityError::Lost { path: path() }),
            (None, None) => {
                let ca = ClusterCa::create(cluster)?;
                ca.save(dir)?;
                ca
            }
        };
        Ok(Self { ca })
    }

    /// The certificate that every member trusts, as PEM.
    pub fn cert_pem(&self) -> &str {
        self.ca.cert_pem()
    }

    /// A certificate for the key in `csr_pem` as the cache node `node`.
    ///
    /// # Errors
    /// `Invalid` when the text is no certificate request.
    pub fn certify_node(&self, csr_pem: &str, node: NodeId) -> Result<String, NetError> {
        self.ca.sign_csr(csr_pem, PeerRole::Node(node))
    }

    /// A certificate for the key in `csr_pem` as a client.
    ///
    /// # Errors
    /// `Invalid` when the text is no certificate request.
    pub fn certify_client(&self, csr_pem: &str) -> Result<String, NetError> {
        self.ca.sign_csr(csr_pem, PeerRole::Client)
    }
}

/// The authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key file is gone.
    #[error(
        "the key of the cluster's certificate authority is missing from {}; restore the file \
         from a backup, or start a new cluster in an empty --data-dir",
        path.display()
    )]
    Lost {
        /// Where it should be.
        path: PathBuf,
    },
    /// The key file belongs to another cluster.
    #[error(
        "{} is not the certificate authority that this cluster trusts; restore the right file \
         from a backup",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written, or the key not be made.
    #[error("certificate authority: {0}")]
    Ca(#[from] NetError),
}

impl AuthorityError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Lost { .. } => ErrorKind::NotFound,
            Self::Other { .. } => ErrorKind::Invalid,
            Self::Ca(source) => source.kind(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const CLUSTER: ClusterId = ClusterId([3; 16]);

    #[test]
    fn the_authority_is_made_once_and_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let made = Authority::open(dir.path(), &CLUSTER, None).unwrap();
        let again = Authority::open(dir.path(), &CLUSTER, None).unwrap();
        assert_eq!(made.cert_pem().trim(), again.cert_pem().trim());
        let file = std::fs::metadata(dir.path().join(ClusterCa::FILE)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        Authority::open(dir.path(), &CLUSTER, Some(made.cert_pem())).unwrap();
    }

    #[test]
    fn a_lost_or_exchanged_key_is_noticed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let known = Authority::open(dir.path(), &CLUSTER, None).unwrap();
        let known = known.cert_pem();
        let lost = Authority::open(other.path(), &CLUSTER, Some(known)).unwrap_err();
        assert!(matches!(lost, AuthorityError::Lost { .. }), "{lost}");
        Authority::open(other.path(), &CLUSTER, None).unwrap();
        let exchanged = Authority::open(other.path(), &CLUSTER, Some(known)).unwrap_err();
        assert!(
            matches!(exchanged, AuthorityError::Other { .. }),
            "{exchanged}"
        );
    }
}
