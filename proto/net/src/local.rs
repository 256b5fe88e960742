//! What both ends of a node's Unix socket need: whether they share a host, the proofs that
//! they know a secret, and messages with descriptors. `millpond_proto::wire::local` has the
//! bytes.

mod queue;
mod transfer;

use std::sync::OnceLock;

pub(crate) use queue::unread;
pub(crate) use transfer::{receive_all, send};

/// Sixteen bytes that two processes have in common if one can reach the other's abstract
/// sockets: the kernel that runs and the network namespace. None where that cannot be told.
pub(crate) fn host() -> Option<[u8; 16]> {
    static HOST: OnceLock<Option<[u8; 16]>> = OnceLock::new();
    *HOST.get_or_init(|| {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let network = std::fs::read_link("/proc/self/ns/net").ok()?;
        let mut hasher = blake3::Hasher::new_derive_key("millpond host v1");
        hasher.update(boot.trim().as_bytes());
        hasher.update(network.as_os_str().as_encoded_bytes());
        let mut host = [0; 16];
        host.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Some(host)
    })
}

/// Who proves something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Node,
    Client,
}

/// The secret of one client, as both ends know it.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) [u8; 32]);

impl Secret {
    /// The secret of `client`, of a node that knows `master`.
    pub(crate) fn of(master: &[u8; 32], client: &[u8; 16]) -> Self {
        Self(*blake3::keyed_hash(master, client).as_bytes())
    }

    /// That `end` knows the secret, good for one connection: both nonces are in it.
    pub(crate) fn proof(&self, end: End, client: &[u8; 32], node: &[u8; 32]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(match end {
            End::Node => b"node",
            End::Client => b"clnt",
        });
        hasher.update(client);
        hasher.update(node);
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_end_one_secret_and_one_connection() {
        let secret = Secret::of(&[1; 32], &[2; 16]);
        let proof = |end, a: u8, b: u8| secret.proof(end, &[a; 32], &[b; 32]);
        let node = proof(End::Node, 3, 4);
        assert_eq!(node, proof(End::Node, 3, 4));
        for other in [
            proof(End::Client, 3, 4),
            proof(End::Node, 4, 3),
            proof(End::Node, 3, 5),
            Secret::of(&[1; 32], &[3; 16]).proof(End::Node, &[3; 32], &[4; 32]),
            Secret::of(&[2; 32], &[2; 16]).proof(End::Node, &[3; 32], &[4; 32]),
        ] {
            assert_ne!(node, other);
        }
    }

    #[test]
    fn a_host_is_the_same_for_all_who_ask() {
        assert_eq!(host(), host());
    }
}
