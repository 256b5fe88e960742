//! The cluster's certificate authority: made once by the coordinator, it signs the keys of
//! everyone who joins.

use std::fmt;
use std::path::Path;

use millpond_proto::ClusterId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SanType,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use time::{Duration, OffsetDateTime};

use crate::tls::{Identity, KeyRequest, PeerRole, pem_sections, tls_error};
use crate::{NetError, file};

/// How long the authority's own certificate is valid.
const CA_LIFETIME: Duration = Duration::days(3650);

/// How long a signed certificate is valid. Every process asks for a new one when it starts.
const CERT_LIFETIME: Duration = Duration::days(365);

/// Certificates are valid from a little before now, so that clocks may differ.
const CLOCK_SKEW: Duration = Duration::days(1);

const DOING: &str = "create the cluster authority";

/// Signs certificates that name a role in one cluster.
pub struct ClusterCa {
    cert_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl ClusterCa {
    /// The name of the file in a data directory that holds an authority.
    pub const FILE: &'static str = "ca.pem";

    /// Makes a new authority for `cluster`.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn create(cluster: &ClusterId) -> Result<Self, NetError> {
        let key = KeyPair::generate().map_err(|e| tls_error(DOING, e))?;
        Self::with_key(&format!("millpond cluster {cluster}"), key)
    }

    /// The authority whose Ed25519 key has this seed (RFC 8032): the same `name` and `seed`
    /// give an authority that trusts, and is trusted by, the same certificates.
    ///
    /// # Errors
    /// None is known; what the library reports.
    pub fn derived(name: &str, seed: &[u8; 32]) -> Result<Self, NetError> {
        // The fixed head of a PKCS #8 document for such a key (RFC 8410, 7).
        let mut der = vec![
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22,
            0x04, 0x20,
        ];
        der.extend_from_slice(seed);
        let der = PrivatePkcs8KeyDer::from(der);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519);
        Self::with_key(name, key.map_err(|e| tls_error(DOING, e))?)
    }

    fn with_key(name: &str, key: KeyPair) -> Result<Self, NetError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity(CA_LIFETIME);
        let key_pem = key.serialize_pem();
        let certified =
            CertifiedIssuer::self_signed(params, key).map_err(|e| tls_error(DOING, e))?;
        Self::from_pem(certified.pem(), key_pem)
    }

    /// The authority with this certificate and key.
    ///
    /// # Errors
    /// `Invalid` when they are no PEM of a certificate and its key.
    pub fn from_pem(cert_pem: String, key_pem: String) -> Result<Self, NetError> {
        const DOING: &str = "read the cluster authority";
        let key = KeyPair::from_pem(&key_pem).map_err(|e| tls_error(DOING, e))?;
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key).map_err(|e| tls_error(DOING, e))?;
        Ok(Self {
            cert_pem,
            key_pem,
            issuer,
        })
    }

    /// Reads the authority kept in `dir`; none if there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or `Invalid` when it is damaged.
    pub fn load(dir: &Path) -> Result<Option<Self>, NetError> {
        let path = dir.join(Self::FILE);
        let Some(text) = file::read(&path)? else {
            return Ok(None);
        };
        let mut sections = pem_sections(&text).into_iter();
        match (sections.next(), sections.next()) {
            (Some(key), Some(cert)) => {
                Self::from_pem(cert, key)
                    .map(Some)
                    .map_err(|e| NetError::Damaged {
                        path,
                        why: e.to_string(),
                    })
            }
            _ => Err(NetError::Damaged {
                path,
                why: "it does not hold a key and a certificate".into(),
            }),
        }
    }

    /// Keeps the authority in `dir`, readable by the owner alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), NetError> {
        let text = format!(
            "{}\n{}\n",
            self.key_pem.trim_end(),
            self.cert_pem.trim_end()
        );
        file::write(&dir.join(Self::FILE), text.as_bytes())
    }

    /// The authority's certificate, which every member of the cluster trusts.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's private key, to be kept in the coordinator's state.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Certifies the key in a certificate request as `role`. Whatever names the request
    /// asks for are ignored. Only nodes and coordinators get a certificate that may serve.
    ///
    /// # Errors
    /// `Invalid` when the text is no certificate request, or its signature is wrong.
    pub fn sign_csr(&self, csr_pem: &str, role: PeerRole) -> Result<String, NetError> {
        const DOING: &str = "sign a certificate request";
        let mut csr =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| tls_error(DOING, e))?;
        let name = role.to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        let san = name.try_into().map_err(|e| tls_error(DOING, e))?;
        params.subject_alt_names = vec![SanType::DnsName(san)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role != PeerRole::Client {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(CERT_LIFETIME);
        csr.params = params;
        let cert = csr
            .signed_by(&self.issuer)
            .map_err(|e| tls_error(DOING, e))?;
        Ok(cert.pem())
    }

    /// A fresh identity of `role`, key included.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn issue(&self, role: PeerRole) -> Result<Identity, NetError> {
        let request = KeyRequest::generate()?;
        let cert_pem = self.sign_csr(&request.csr_pem, role)?;
        Ok(request.certified(self.cert_pem.clone(), cert_pem))
    }
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCa").finish_non_exhaustive()
    }
}

fn validity(lifetime: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - CLOCK_SKEW, now + lifetime)
}

#[cfg(test)]
mod tests {
    use millpond_proto::NodeId;

    use super::*;

    #[test]
    fn the_authority_chooses_the_names() {
        let ca = ClusterCa::create(&ClusterId([1; 16])).unwrap();
        let key = KeyPair::generate().unwrap();
        let asked = CertificateParams::new(vec!["coordinator".to_owned()]).unwrap();
        let csr = asked.serialize_request(&key).unwrap().pem().unwrap();
        let cert = ca.sign_csr(&csr, PeerRole::Node(NodeId(9))).unwrap();
        let identity = Identity::new(ca.cert_pem().into(), cert, key.serialize_pem());
        assert_eq!(identity.role().unwrap(), PeerRole::Node(NodeId(9)));
    }

    #[test]
    fn an_authority_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ClusterCa::load(dir.path()).unwrap().is_none());
        let ca = ClusterCa::create(&ClusterId([1; 16])).unwrap();
        ca.save(dir.path()).unwrap();
        let back = ClusterCa::load(dir.path()).unwrap().unwrap();
        assert_eq!(back.cert_pem().trim(), ca.cert_pem().trim());
        back.issue(PeerRole::Client).unwrap();
    }

    #[test]
    fn a_forged_request_is_refused() {
        let ca = ClusterCa::create(&ClusterId([1; 16])).unwrap();
        assert!(ca.sign_csr("nonsense", PeerRole::Client).is_err());
    }
}
