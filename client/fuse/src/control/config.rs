//! What a mount is and how it is set, as `.millpond/config` tells it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::passthrough::Passthrough;
use crate::shared::Shared;

/// The settings in effect. Options of stores are left out: some are secrets.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The version of the program.
    pub version: String,
    /// Where the mount is.
    pub directory: String,
    /// What `df` shows.
    pub source: String,
    /// The directory of the namespace that is the mount's root.
    pub subtree: String,
    /// The cluster; none for a mount of one store.
    pub cluster: Option<String>,
    /// The coordinators that were named.
    pub coordinators: Vec<String>,
    /// Whether a coordinator is connected; a mount of one store needs none.
    pub connected: bool,
    /// The epoch of the membership.
    pub epoch: u64,
    /// The cache nodes.
    pub nodes: Vec<ConfigNode>,
    /// The mount table.
    pub mounts: Vec<ConfigMount>,
    /// Bytes of a block.
    pub block_size: u64,
    /// The most memory of the whole process, if it is bounded.
    pub memory_limit: Option<u64>,
    /// Bytes of memory for data.
    pub memory: u64,
    /// The directory of the local disk tier.
    pub cache_dir: Option<String>,
    /// Its bytes.
    pub cache_size: u64,
    /// Whether the kernel reads files that are whole in `cache_dir` itself: `on` or `off`.
    pub passthrough: String,
    /// Why it is off; none if it is on.
    pub passthrough_off_because: Option<String>,
    /// How long attributes are believed where a store's mount does not say it: strict, ttl or
    /// immutable.
    pub metadata_mode: String,
    /// How long a change made in the store may stay unseen in mode ttl, in seconds.
    pub metadata_ttl: f64,
    /// How long one call may take, in seconds.
    pub deadline: f64,
    /// The most bytes read ahead of one sequential reader.
    pub readahead: u64,
    /// The kernel's readahead in KiB.
    pub kernel_read_ahead_kb: u32,
    /// Threads that answer the kernel.
    pub threads: usize,
    /// Whether what is written to `prefetch` and `record` is read.
    pub takes_hints: bool,
    /// Whether other users may use the mount.
    pub allow_other: bool,
    /// Owner of what has none.
    pub uid: u32,
    /// Group of what has none.
    pub gid: u32,
    /// Mode of files that have none, in octal.
    pub file_mode: String,
    /// Mode of directories that have none, in octal.
    pub dir_mode: String,
}

/// A cache node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigNode {
    /// Its name.
    pub node: String,
    /// Where it serves blocks.
    pub address: String,
    /// Its state in the membership.
    pub state: String,
    /// Its zone.
    pub zone: String,
    /// Whether this mount goes round it now, because the store itself is faster.
    #[serde(default)]
    pub gone_round: bool,
}

/// An entry of the mount table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigMount {
    /// Where in the namespace.
    pub path: String,
    /// What is there.
    pub ufs: String,
}

impl Config {
    pub(super) fn of(shared: &Shared) -> Self {
        let (view, client) = (shared.fs.view(), shared.fs.config());
        let shown = &shared.control.options;
        let subtree = shared.inodes.lock().root().to_owned();
        let alone = client.coordinators.is_empty();
        let passing = shared.passing.state();
        let gone_round = shared.fs.stats().gone_round;
        let node = |member| ConfigNode::of(member, &gone_round);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            directory: shared.control.dir.display().to_string(),
            source: shown.fs_name.clone(),
            subtree: if subtree.is_empty() {
                "/".to_owned()
            } else {
                subtree
            },
            cluster: (!alone).then(|| view.cluster.to_string()),
            coordinators: client.coordinators.clone(),
            connected: shared.fs.is_live(),
            epoch: view.epoch.0,
            nodes: view.members.iter().map(node).collect(),
            mounts: view.mounts.iter().map(ConfigMount::of).collect(),
            block_size: view.block_size.bytes(),
            memory_limit: shown.memory_limit,
            memory: client.memory,
            cache_dir: client
                .disk
                .as_ref()
                .map(|(dir, _)| dir.display().to_string()),
            cache_size: client.disk.as_ref().map_or(0, |(_, size)| *size),
            passthrough: if passing == Passthrough::Available {
                "on"
            } else {
                "off"
            }
            .to_owned(),
            passthrough_off_because: (passing != Passthrough::Available)
                .then(|| shared.passing.why_off(client.disk.is_some()).to_owned()),
            metadata_mode: client.metadata_mode.to_string(),
            metadata_ttl: seconds(shared.fs.metadata_ttl()),
            deadline: seconds(client.deadline),
            readahead: client.readahead,
            kernel_read_ahead_kb: shown.read_ahead_kb,
            threads: shown.threads,
            takes_hints: shared.control.inbox.is_open(),
            allow_other: shown.allow_other,
            uid: shown.uid,
            gid: shown.gid,
            file_mode: format!("{:04o}", shown.file_mode),
            dir_mode: format!("{:04o}", shown.dir_mode),
        }
    }
}

impl ConfigNode {
    fn of(member: &millpond_proto::Member, gone_round: &[millpond_proto::NodeId]) -> Self {
        Self {
            node: member.id.to_string(),
            address: member.addr.clone(),
            state: format!("{:?}", member.state).to_lowercase(),
            zone: member.zone.clone(),
            gone_round: gone_round.contains(&member.id),
        }
    }
}

impl ConfigMount {
    fn of(mount: &millpond_proto::Mount) -> Self {
        Self {
            path: mount.path.to_string(),
            ufs: mount.ufs.clone(),
        }
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
