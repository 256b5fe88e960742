//! The state and what every command has in common.

use std::collections::BTreeMap;

use millpond_proto::{BlockSize, ClusterId, ClusterView, Epoch, Member, MountTable, NodeId};
use serde::{Deserialize, Serialize};

use super::command::{Command, FORMAT, Hidden, Op, known_format};
use super::outcome::{Applied, Effect, Outcome, Refused};
use super::tokens::Tokens;

/// Everything that the coordinators of a cluster agree on.
///
/// - Node and mount ids are given out once and never again.
/// - `version` grows with every change of the view, `epoch` with every change of the serving
///   set or of an address, weight or zone in it, by one each.
/// - No two members have the same data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    #[serde(rename = "v", deserialize_with = "known_format")]
    format: u32,
    pub(super) cluster: Option<Constants>,
    ca_pem: Option<String>,
    #[serde(default)]
    ca_key_pem: Option<Hidden>,
    pub(super) version: u64,
    epoch: Epoch,
    pub(super) next_node: u64,
    pub(super) next_mount: u64,
    pub(super) members: BTreeMap<NodeId, Record>,
    pub(super) mounts: MountTable,
    #[serde(default)]
    pub(super) tokens: Tokens,
}

/// What is fixed at bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constants {
    /// The cluster.
    pub id: ClusterId,
    /// The size of every block.
    pub block_size: BlockSize,
}

/// A member and what only the coordinator needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) member: Member,
    pub(super) data_dir: String,
    /// The version of the view in which the member died or left.
    #[serde(default)]
    pub(super) gone_at: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            format: FORMAT,
            cluster: None,
            ca_pem: None,
            ca_key_pem: None,
            version: 0,
            epoch: Epoch(0),
            next_node: 1,
            next_mount: 1,
            members: BTreeMap::new(),
            mounts: MountTable::default(),
            tokens: Tokens::new(),
        }
    }
}

impl State {
    /// Carries out `command`, whole or not at all.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let serving = self.serving();
        let mut effects = Vec::new();
        let result = self.run(&command.op, &mut effects);
        if result.is_err() {
            debug_assert!(effects.is_empty(), "a refused command has no effects");
        }
        // Tokens are no part of the view.
        if effects.iter().any(|effect| *effect != Effect::Tokens) {
            self.version += 1;
        }
        if self.serving() != serving {
            self.epoch = self.epoch.next();
            effects.push(Effect::EpochAdvanced(self.epoch));
        }
        Applied { result, effects }
    }

    fn run(&mut self, op: &Op, effects: &mut Vec<Effect>) -> Result<Outcome, Refused> {
        match op {
            Op::Bootstrap {
                cluster,
                block_size,
            } => {
                if self.cluster.is_none() {
                    self.cluster = Some(Constants {
                        id: *cluster,
                        block_size: *block_size,
                    });
                    effects.push(Effect::Settings);
                }
                Ok(Outcome::Done)
            }
            Op::Authority { ca_pem } => {
                if self.ca_pem.is_none() {
                    self.ca_pem = Some(ca_pem.clone());
                    effects.push(Effect::Settings);
                }
                Ok(Outcome::Done)
            }
            Op::AuthorityKey { ca_pem, key_pem } => {
                let fits = self.ca_pem.as_ref().is_none_or(|known| known == ca_pem);
                if fits && self.ca_key_pem.is_none() {
                    self.ca_pem = Some(ca_pem.clone());
                    self.ca_key_pem = Some(key_pem.clone());
                    effects.push(Effect::Settings);
                }
                Ok(Outcome::Done)
            }
            Op::Join(join) => self.join(join, effects),
            Op::Activate { node, incarnation } => self.activate(*node, *incarnation, effects),
            Op::Leave { node, incarnation } => self.leave(*node, *incarnation, effects),
            Op::MarkDead { node, incarnation } => {
                self.mark_dead(*node, *incarnation, effects);
                Ok(Outcome::Done)
            }
            Op::CreateToken(token) => self.create_token(token, effects),
            Op::UseToken {
                id,
                secret_sha256,
                role,
                by,
                now_ms,
            } => self.use_token(id, secret_sha256, *role, by, *now_ms, effects),
            Op::RevokeToken { id } => self.revoke_token(id, effects),
            Op::AddMount(mount) => self.add_mount(mount, effects),
            Op::UpdateMount(change) => self.update_mount(change, effects),
            Op::RemoveMount { path } => self.remove_mount(path, effects),
        }
    }

    /// The cluster's constants.
    ///
    /// # Errors
    /// [`Refused::NotBootstrapped`] before there are any.
    pub fn constants(&self) -> Result<Constants, Refused> {
        self.cluster.ok_or(Refused::NotBootstrapped)
    }

    /// The certificate of the cluster's authority, once it is recorded.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The key of the cluster's authority, once it is recorded.
    pub fn ca_key_pem(&self) -> Option<&str> {
        self.ca_key_pem.as_ref().map(|key| key.0.as_str())
    }

    /// The cluster as nodes and clients see it; none before bootstrap.
    pub fn view(&self) -> Option<ClusterView> {
        let constants = self.cluster?;
        Some(ClusterView {
            cluster: constants.id,
            version: self.version,
            epoch: self.epoch,
            block_size: constants.block_size,
            members: self.members.values().map(|r| r.member.clone()).collect(),
            mounts: self.mounts.clone(),
        })
    }

    /// What decides who serves which block, and where. The epoch counts its changes.
    fn serving(&self) -> Vec<(NodeId, String, u32, String)> {
        let members = self.members.values().map(|r| &r.member);
        members
            .filter(|m| m.state.serves())
            .map(|m| (m.id, m.addr.clone(), m.weight, m.zone.clone()))
            .collect()
    }
}
