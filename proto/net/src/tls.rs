//! Who a process is, and the TLS settings that prove it.
//!
//! Every process of a cluster has a key and a certificate that the cluster's own authority
//! signed (see [`ca`](crate::ca)). The certificate has exactly one DNS name, which is the
//! process's role: `node-7`, `client` or `coordinator`. Connections are TLS 1.3 with
//! certificates on both sides and ALPN [`ALPN`]; a node is dialled by its role name, so its
//! address may change freely.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millpond_proto::NodeId;
use millpond_proto::wire::frame::ALPN;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, version};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{NetError, file};

mod pinned;

use pinned::Pinned;

/// What a certificate says its holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerRole {
    /// A cache node.
    Node(NodeId),
    /// A client.
    Client,
    /// A coordinator.
    Coordinator,
    /// A coordinator as the others of its group know it: certified by the group's own
    /// authority, never by the cluster's.
    GroupMember,
}

impl PeerRole {
    /// The role that a certificate's DNS name stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "client" => Some(Self::Client),
            "coordinator" => Some(Self::Coordinator),
            "group-member" => Some(Self::GroupMember),
            node => {
                let number: u64 = node.strip_prefix("node-")?.parse().ok()?;
                let id = NodeId(number);
                // One spelling per node: "node-07" is not "node-7".
                (id.to_string() == node).then_some(Self::Node(id))
            }
        }
    }
}

impl fmt::Display for PeerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => id.fmt(f),
            Self::Client => f.write_str("client"),
            Self::Coordinator => f.write_str("coordinator"),
            Self::GroupMember => f.write_str("group-member"),
        }
    }
}

/// A process's key and certificate, with the authority it trusts.
///
/// - All PEM. `cert_pem` matches `key_pem` and was signed by `ca_pem`.
/// - `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster authority's certificate.
    pub ca_pem: String,
    /// This process's certificate.
    pub cert_pem: String,
    /// This process's private key.
    pub key_pem: String,
}

impl Identity {
    /// The name of the file in a data directory that holds an identity.
    pub const FILE: &'static str = "identity.pem";

    /// Puts together the answer of the authority and the key that was certified.
    pub const fn new(ca_pem: String, cert_pem: String, key_pem: String) -> Self {
        Self {
            ca_pem,
            cert_pem,
            key_pem,
        }
    }

    /// Reads the identity kept in `dir`; none if there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or `Invalid` when it is damaged.
    pub fn load(dir: &Path) -> Result<Option<Self>, NetError> {
        let path = dir.join(Self::FILE);
        let Some(text) = file::read(&path)? else {
            return Ok(None);
        };
        let sections = pem_sections(&text);
        let [key, cert, ca] = sections.as_slice() else {
            return Err(NetError::Damaged {
                path,
                why: format!("{} PEM sections instead of 3", sections.len()),
            });
        };
        let identity = Self::new(ca.clone(), cert.clone(), key.clone());
        match identity.role() {
            Ok(_) => Ok(Some(identity)),
            Err(error) => Err(NetError::Damaged {
                path,
                why: error.to_string(),
            }),
        }
    }

    /// Keeps the identity in `dir` as one file (so that key and certificate always match),
    /// readable by the owner alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), NetError> {
        let text = [&self.key_pem, &self.cert_pem, &self.ca_pem]
            .map(|pem| pem.trim_end())
            .join("\n");
        file::write(&dir.join(Self::FILE), format!("{text}\n").as_bytes())
    }

    /// The role that the certificate names.
    ///
    /// # Errors
    /// `Invalid` when it is no certificate of a Millpond cluster.
    pub fn role(&self) -> Result<PeerRole, NetError> {
        let cert = certificate(&self.cert_pem)?;
        role_of(&cert).map_err(|why| tls_error("read the own certificate", why))
    }

    /// When the certificate ceases to be valid.
    ///
    /// # Errors
    /// `Invalid` when it is no certificate.
    pub fn expires_at(&self) -> Result<SystemTime, NetError> {
        let cert = certificate(&self.cert_pem)?;
        let (_, parsed) = X509Certificate::from_der(&cert)
            .map_err(|e| tls_error("read the own certificate", e))?;
        let seconds = parsed.validity().not_after.timestamp();
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("role", &self.role().ok())
            .finish_non_exhaustive()
    }
}

/// A fresh key and the request to certify it. The authority chooses the names.
pub struct KeyRequest {
    /// The private key, PEM. Never leaves the process.
    pub key_pem: String,
    /// The certificate request, PEM.
    pub csr_pem: String,
}

impl KeyRequest {
    /// Draws a P-256 key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, NetError> {
        const DOING: &str = "generate a key";
        let key = KeyPair::generate().map_err(|e| tls_error(DOING, e))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params
            .serialize_request(&key)
            .and_then(|csr| csr.pem())
            .map_err(|e| tls_error(DOING, e))?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            csr_pem: csr,
        })
    }

    /// The identity that results from the authority's answer.
    pub fn certified(self, ca_pem: String, cert_pem: String) -> Identity {
        Identity::new(ca_pem, cert_pem, self.key_pem)
    }
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}

/// TLS for the side that is dialled: a client certificate of the same cluster is required.
///
/// # Errors
/// `Invalid` when key, certificate and authority do not fit together.
pub fn server_config(identity: &Identity) -> Result<QuicServerConfig, NetError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity)?), provider())
            .build()
            .map_err(|e| tls_error(LISTENING, e))?;
    let (chain, key) = chain_and_key(identity)?;
    let mut tls = server_tls(verifier, chain, key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    QuicServerConfig::try_from(tls).map_err(|e| tls_error(LISTENING, e))
}

const LISTENING: &str = "set up TLS for listening";

fn server_tls(
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<rustls::ServerConfig, NetError> {
    rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|e| tls_error(LISTENING, e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| tls_error(LISTENING, e))
}

/// TLS for the side that dials: presents its own certificate, accepts only a peer whose
/// certificate has the name that was dialled.
///
/// # Errors
/// `Invalid` when key, certificate and authority do not fit together.
pub fn client_config(identity: &Identity) -> Result<QuicClientConfig, NetError> {
    let (chain, key) = chain_and_key(identity)?;
    let mut tls = client_tls()?
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(chain, key)
        .map_err(|e| tls_error(CONNECTING, e))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    QuicClientConfig::try_from(tls).map_err(|e| tls_error(CONNECTING, e))
}

/// TLS for the gRPC side that is dialled: HTTP/2 is spoken. A caller shows a certificate of
/// the same authority, or none if `anonymous` is allowed. The authority's own certificate is
/// shown too, for callers that know its fingerprint alone.
///
/// # Errors
/// `Invalid` when key, certificate and authority do not fit together.
pub fn grpc_server_config(
    identity: &Identity,
    anonymous: bool,
) -> Result<rustls::ServerConfig, NetError> {
    let mut verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity)?), provider());
    if anonymous {
        verifier = verifier.allow_unauthenticated();
    }
    let (mut chain, key) = chain_and_key(identity)?;
    chain.push(certificate(&identity.ca_pem)?);
    let verifier = verifier.build().map_err(|e| tls_error(LISTENING, e))?;
    let mut tls = server_tls(verifier, chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

/// TLS for the gRPC side that dials and shows its certificate.
///
/// # Errors
/// `Invalid` when key, certificate and authority do not fit together.
pub fn grpc_client_config(identity: &Identity) -> Result<rustls::ClientConfig, NetError> {
    let (chain, key) = chain_and_key(identity)?;
    let mut tls = client_tls()?
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(chain, key)
        .map_err(|e| tls_error(CONNECTING, e))?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

/// TLS for the gRPC side that dials, has no certificate yet, and knows of the authority no more
/// than the SHA-256 of its certificate.
///
/// # Errors
/// None is known; what the library reports.
pub fn grpc_pinned_config(fingerprint: [u8; 32]) -> Result<rustls::ClientConfig, NetError> {
    let mut tls = client_tls()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned::new(fingerprint)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

/// The SHA-256 of a certificate.
///
/// # Errors
/// `Invalid` when it is no certificate.
pub fn fingerprint(pem: &str) -> Result<[u8; 32], NetError> {
    Ok(pinned::sha256(&certificate(pem)?))
}

fn client_tls()
-> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, NetError> {
    rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|e| tls_error(CONNECTING, e))
}

const CONNECTING: &str = "set up TLS for connecting";

/// The role in the certificate that a client showed in a handshake that has ended well.
///
/// # Errors
/// What is wrong with the certificate.
pub fn shown_role(chain: Option<&[CertificateDer<'_>]>) -> Result<PeerRole, String> {
    let first = chain.and_then(<[_]>::first);
    role_of(first.ok_or("it shows no certificate")?)
}

/// The role in the certificate of the other end, which the handshake verified.
///
/// # Errors
/// `Denied` when it names none.
pub fn peer_role(connection: &quinn::Connection) -> Result<PeerRole, NetError> {
    let denied = |why: String| NetError::Denied {
        addr: connection.remote_address(),
        why,
    };
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or_else(|| denied("it shows no certificate".into()))?;
    let first = chain
        .first()
        .ok_or_else(|| denied("its certificate chain is empty".into()))?;
    role_of(first).map_err(denied)
}

pub(crate) fn tls_error(doing: &'static str, why: impl fmt::Display) -> NetError {
    NetError::Tls {
        doing,
        why: why.to_string(),
    }
}

fn role_of(cert: &CertificateDer<'_>) -> Result<PeerRole, String> {
    let (_, parsed) = X509Certificate::from_der(cert).map_err(|e| e.to_string())?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|e| e.to_string())?
        .ok_or("its certificate has no name")?;
    match names.value.general_names.as_slice() {
        [GeneralName::DNSName(name)] => PeerRole::from_name(name)
            .ok_or_else(|| format!("the name {name:?} in its certificate is no role")),
        _ => Err("its certificate does not have exactly one DNS name".into()),
    }
}

/// ring, whatever the process has installed as default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(identity: &Identity) -> Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(certificate(&identity.ca_pem)?)
        .map_err(|e| tls_error("read the cluster authority's certificate", e))?;
    Ok(roots)
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, NetError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| tls_error("read a certificate", e))
}

fn chain_and_key(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), NetError> {
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|e| tls_error("read a private key", e))?;
    Ok((vec![certificate(&identity.cert_pem)?], key))
}

/// The `-----BEGIN …` to `-----END …` sections of a text, in order.
pub(crate) fn pem_sections(text: &str) -> Vec<String> {
    let mut sections = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            open = Some(String::new());
        }
        if let Some(section) = &mut open {
            section.push_str(line);
            section.push('\n');
        }
        if line.starts_with("-----END ") {
            sections.extend(open.take());
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use millpond_proto::ClusterId;

    use super::*;
    use crate::ca::ClusterCa;

    #[test]
    fn a_role_has_one_spelling() {
        for role in [
            PeerRole::Node(NodeId(7)),
            PeerRole::Client,
            PeerRole::Coordinator,
            PeerRole::GroupMember,
        ] {
            assert_eq!(PeerRole::from_name(&role.to_string()), Some(role));
        }
        for name in ["node-", "node-07", "node-+7", "7", "Client", ""] {
            assert_eq!(PeerRole::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn an_identity_is_kept_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::load(dir.path()).unwrap().is_none());
        let ca = ClusterCa::create(&ClusterId([1; 16])).unwrap();
        let identity = ca.issue(PeerRole::Node(NodeId(3))).unwrap();
        identity.save(dir.path()).unwrap();
        let back = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!(back.role().unwrap(), PeerRole::Node(NodeId(3)));
        client_config(&back).unwrap();
        server_config(&back).unwrap();
        assert!(back.expires_at().unwrap() > SystemTime::now());

        use std::os::unix::fs::PermissionsExt;
        let file = dir.path().join(Identity::FILE);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{back:?}").contains("PRIVATE"));

        std::fs::write(&file, "-----BEGIN X-----\n").unwrap();
        let error = Identity::load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("identity.pem"), "{error}");
    }

    #[test]
    fn a_key_that_does_not_fit_its_certificate_is_refused() {
        let ca = ClusterCa::create(&ClusterId([1; 16])).unwrap();
        let mut identity = ca.issue(PeerRole::Client).unwrap();
        identity.key_pem = ca.issue(PeerRole::Client).unwrap().key_pem;
        assert!(client_config(&identity).is_err());
    }
}
