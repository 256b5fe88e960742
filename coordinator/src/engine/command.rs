//! What can be asked of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use millpond_proto::mount::is_secret_option;
use millpond_proto::{BlockSize, ClusterId, MountPath, NodeId};
use serde::{Deserialize, Deserializer, Serialize};

/// The format of commands and snapshots that this release writes.
pub const FORMAT: u32 = 1;

/// One entry of the replicated log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The format number; reading a number above [`FORMAT`] is an error.
    #[serde(rename = "v", deserialize_with = "known_format")]
    format: u32,
    /// What to do.
    pub op: Op,
}

impl Command {
    /// `op` in the present format.
    pub const fn new(op: Op) -> Self {
        Self { format: FORMAT, op }
    }
}

impl From<Op> for Command {
    fn from(op: Op) -> Self {
        Self::new(op)
    }
}

/// Reads a format number and refuses the ones of later releases.
pub(super) fn known_format<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let format = u32::deserialize(from)?;
    if (1..=FORMAT).contains(&format) {
        return Ok(format);
    }
    Err(serde::de::Error::custom(format_args!(
        "format {format} was written by a later release (this one reads up to {FORMAT}): \
         upgrade this coordinator"
    )))
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Gives the cluster its identity and its constants. The first one counts.
    Bootstrap {
        /// Drawn at random by the proposer.
        cluster: ClusterId,
        /// The size of every block, for good.
        block_size: BlockSize,
    },
    /// Records the certificate of the cluster's certificate authority. The first one counts.
    Authority {
        /// The certificate (not the key) as PEM.
        ca_pem: String,
    },
    /// Records the cluster's certificate authority with its key. The first one counts; a key
    /// for a certificate that is recorded already must be that certificate's.
    AuthorityKey {
        /// The certificate as PEM.
        ca_pem: String,
        /// The key as PEM.
        key_pem: Hidden,
    },
    /// A node enters or comes back.
    Join(Join),
    /// A joined node has shown that it serves: it owns blocks from now on.
    Activate {
        /// The node.
        node: NodeId,
        /// The process that showed it.
        incarnation: u64,
    },
    /// A node leaves in good order.
    Leave {
        /// The node.
        node: NodeId,
        /// The process that leaves.
        incarnation: u64,
    },
    /// A node has been silent for too long.
    MarkDead {
        /// The node.
        node: NodeId,
        /// The process that fell silent; a later one is not affected.
        incarnation: u64,
    },
    /// Makes a token good.
    CreateToken(NewToken),
    /// A process shows a token.
    UseToken {
        /// The token's name.
        id: String,
        /// The SHA-256 of the secret that was shown, hexadecimal.
        secret_sha256: String,
        /// What the process wants to be.
        role: TokenRole,
        /// What tells this process from others: it may come again without using the token up.
        by: String,
        /// The time at the proposer, Unix milliseconds.
        now_ms: u64,
    },
    /// Makes a token worthless.
    RevokeToken {
        /// Its name.
        id: String,
    },
    /// Binds a UFS to a path.
    AddMount(NewMount),
    /// Changes options of a mount.
    UpdateMount(MountChange),
    /// Removes a mount.
    RemoveMount {
        /// Its path.
        path: MountPath,
    },
}

/// A token to be made good. The state never has its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// Its name, drawn by the proposer.
    pub id: String,
    /// The SHA-256 of its secret, hexadecimal.
    pub secret_sha256: String,
    /// What it makes of a process.
    pub role: TokenRole,
    /// Until when it is good, Unix milliseconds.
    pub expires_ms: u64,
    /// How many processes may use it; any number if none.
    #[serde(default)]
    pub uses: Option<u32>,
    /// The time at the proposer, Unix milliseconds: tokens that ended before are forgotten.
    pub now_ms: u64,
}

/// What a token makes of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenRole {
    /// A cache node.
    Node,
    /// A client.
    Client,
    /// Somebody who changes the cluster.
    Operator,
}

impl fmt::Display for TokenRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Client => "client",
            Self::Operator => "operator",
        })
    }
}

impl std::str::FromStr for TokenRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Node, Self::Client, Self::Operator]
            .into_iter()
            .find(|role| role.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not node, client or operator"))
    }
}

/// A text that is written to the log, which is sealed, and never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A node enters or comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// What the node's data directory says it is; none if it never was in a cluster.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// Drawn once for the data directory, hexadecimal. May be empty with an `identity`.
    #[serde(default)]
    pub data_dir: String,
    /// Grows with every start of the node's process.
    pub incarnation: u64,
    /// `host:port` where it answers block requests.
    pub addr: String,
    /// `http://host:port` of its metrics, or empty.
    #[serde(default)]
    pub admin: String,
    /// Failure domain, or empty.
    #[serde(default)]
    pub zone: String,
    /// Share of blocks relative to 100.
    pub weight: u32,
    /// Bytes that it can hold.
    #[serde(default)]
    pub capacity: u64,
}

/// What a node's data directory says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster that gave the id.
    pub cluster: ClusterId,
    /// The id.
    pub node: NodeId,
}

/// A mount to be added. Prints without secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMount {
    /// Where it appears.
    pub path: MountPath,
    /// The UFS.
    pub ufs: String,
    /// Options of the UFS driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for NewMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewMount")
            .field("path", &self.path)
            .field("ufs", &self.ufs)
            .field("options", &Redacted(&self.options))
            .finish()
    }
}

/// A change of a mount's options. Prints without secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountChange {
    /// The mount.
    pub path: MountPath,
    /// Options to set.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Options to remove; each must be set.
    #[serde(default)]
    pub unset: BTreeSet<String>,
}

impl fmt::Debug for MountChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountChange")
            .field("path", &self.path)
            .field("set", &Redacted(&self.set))
            .field("unset", &self.unset)
            .finish()
    }
}

struct Redacted<'a>(&'a BTreeMap<String, String>);

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(key, value)| {
            let secret = is_secret_option(key);
            (key, if secret { "***" } else { value.as_str() })
        });
        f.debug_map().entries(shown).finish()
    }
}
