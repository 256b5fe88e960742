//! The cluster's certificate authority: made at first start, kept in the cluster's state.
//!
//! The key is in the replicated log, which is sealed on disk and sent to other coordinators
//! alone, so that whichever of them leads can certify. Earlier releases kept it in a file in the
//! data directory: it is moved into the log at the first start of this one.

use std::path::{Path, PathBuf};

use millpond_net::NetError;
use millpond_net::ca::ClusterCa;
use millpond_net::tls::{Identity, PeerRole};
use millpond_proto::{ClusterId, ErrorKind, NodeId};

/// Signs certificates for the members of this cluster.
#[derive(Debug)]
pub struct Authority {
    ca: ClusterCa,
}

impl Authority {
    /// The authority that the cluster's state holds.
    ///
    /// # Errors
    /// [`AuthorityError::Ca`] when key and certificate are damaged.
    pub fn recorded(cert_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let ca = ClusterCa::from_pem(cert_pem.to_owned(), key_pem.to_owned())?;
        Ok(Self { ca })
    }

    /// The authority to be recorded for `cluster`: the one that an earlier release kept in
    /// `dir`, else a new one. `known` is the certificate that the state has already, if any.
    ///
    /// # Errors
    /// [`AuthorityError`] when the key is missing or is not the one that the cluster trusts.
    pub fn to_record(
        dir: &Path,
        cluster: &ClusterId,
        known: Option<&str>,
    ) -> Result<Self, AuthorityError> {
        let path = || dir.join(ClusterCa::FILE);
        let ca = match (ClusterCa::load(dir)?, known) {
            (Some(ca), Some(known)) if ca.cert_pem().trim() != known.trim() => {
                return Err(AuthorityError::Other { path: path() });
            }
            (Some(ca), _) => ca,
            (None, Some(_)) => return Err(AuthorityError::Lost { path: path() }),
            (None, None) => ClusterCa::create(cluster)?,
        };
        Ok(Self { ca })
    }

    /// Removes the file of an earlier release, whose key is in the state by now.
    pub fn forget_file(dir: &Path) {
        let path = dir.join(ClusterCa::FILE);
        match std::fs::remove_file(&path) {
            Ok(()) => {
                tracing::info!(path = %path.display(), "key of the authority is in the log now");
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove the old key file");
            }
        }
    }

    /// Its key, to be recorded in the cluster's state.
    pub fn key_pem(&self) -> &str {
        self.ca.key_pem()
    }

    /// The certificate that every member trusts, as PEM.
    pub fn cert_pem(&self) -> &str {
        self.ca.cert_pem()
    }

    /// A fresh key and certificate for this coordinator.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn identity(&self) -> Result<Identity, NetError> {
        self.ca.issue(PeerRole::Coordinator)
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
    use super::*;

    const CLUSTER: ClusterId = ClusterId([3; 16]);

    #[test]
    fn a_recorded_authority_is_the_one_that_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let made = Authority::to_record(dir.path(), &CLUSTER, None).unwrap();
        let back = Authority::recorded(made.cert_pem(), made.key_pem()).unwrap();
        assert_eq!(made.cert_pem().trim(), back.cert_pem().trim());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_file_of_an_earlier_release_is_taken_over_if_it_is_the_right_one() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let earlier = ClusterCa::create(&CLUSTER).unwrap();
        earlier.save(dir.path()).unwrap();
        let known = earlier.cert_pem();
        let taken = Authority::to_record(dir.path(), &CLUSTER, Some(known)).unwrap();
        assert_eq!(taken.key_pem().trim(), earlier.key_pem().trim());
        Authority::forget_file(dir.path());
        Authority::forget_file(dir.path());
        let lost = Authority::to_record(dir.path(), &CLUSTER, Some(known)).unwrap_err();
        assert!(matches!(lost, AuthorityError::Lost { .. }), "{lost}");
        ClusterCa::create(&CLUSTER)
            .unwrap()
            .save(other.path())
            .unwrap();
        let exchanged = Authority::to_record(other.path(), &CLUSTER, Some(known)).unwrap_err();
        assert!(
            matches!(exchanged, AuthorityError::Other { .. }),
            "{exchanged}"
        );
    }
}
