//! Between generated and domain types.

use crate::block::BlockSize;
use crate::cluster::{ClusterView, Member, MemberState, NodeStats};
use crate::error::ErrorKind;
use crate::id::{ClusterId, Epoch, MountId, NodeId};
use crate::mount::{Mount, MountPath, MountTable};
use crate::wire::pb;

/// A message from a peer that does not make sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct BadMessage(pub String);

impl BadMessage {
    /// Always [`ErrorKind::Invalid`].
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl TryFrom<&[u8]> for ClusterId {
    type Error = BadMessage;

    fn try_from(bytes: &[u8]) -> Result<Self, BadMessage> {
        let id = bytes.try_into();
        id.map(Self)
            .map_err(|_| BadMessage(format!("cluster id of {} bytes", bytes.len())))
    }
}

impl From<&ClusterView> for pb::View {
    fn from(view: &ClusterView) -> Self {
        Self {
            cluster_id: view.cluster.0.to_vec(),
            version: view.version,
            epoch: view.epoch.0,
            block_size: view.block_size.into(),
            members: view.members.iter().map(Into::into).collect(),
            mounts: view.mounts.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::View> for ClusterView {
    type Error = BadMessage;

    fn try_from(view: pb::View) -> Result<Self, BadMessage> {
        let mut mounts = MountTable::default();
        for mount in view.mounts {
            mounts
                .add(mount.try_into()?)
                .map_err(|e| BadMessage(e.to_string()))?;
        }
        Ok(Self {
            cluster: view.cluster_id.as_slice().try_into()?,
            version: view.version,
            epoch: Epoch(view.epoch),
            block_size: BlockSize::try_from(view.block_size)
                .map_err(|e| BadMessage(e.to_string()))?,
            members: view
                .members
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            mounts,
        })
    }
}

impl From<&Member> for pb::Member {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id.0,
            addr: member.addr.clone(),
            admin: member.admin.clone(),
            zone: member.zone.clone(),
            weight: member.weight,
            capacity: member.capacity,
            state: pb::MemberState::from(member.state).into(),
            incarnation: member.incarnation,
        }
    }
}

impl TryFrom<pb::Member> for Member {
    type Error = BadMessage;

    fn try_from(member: pb::Member) -> Result<Self, BadMessage> {
        let state = match member.state() {
            pb::MemberState::Joining => MemberState::Joining,
            pb::MemberState::Active => MemberState::Active,
            pb::MemberState::Draining => MemberState::Draining,
            pb::MemberState::Left => MemberState::Left,
            pb::MemberState::Dead => MemberState::Dead,
            pb::MemberState::Unspecified => {
                return Err(BadMessage(format!("member {} has no state", member.id)));
            }
        };
        Ok(Self {
            id: NodeId(member.id),
            addr: member.addr,
            admin: member.admin,
            zone: member.zone,
            weight: member.weight,
            capacity: member.capacity,
            state,
            incarnation: member.incarnation,
        })
    }
}

impl From<MemberState> for pb::MemberState {
    fn from(state: MemberState) -> Self {
        match state {
            MemberState::Joining => Self::Joining,
            MemberState::Active => Self::Active,
            MemberState::Draining => Self::Draining,
            MemberState::Left => Self::Left,
            MemberState::Dead => Self::Dead,
        }
    }
}

impl From<&Mount> for pb::Mount {
    fn from(mount: &Mount) -> Self {
        Self {
            id: mount.id.0,
            path: mount.path.to_string(),
            ufs: mount.ufs.clone(),
            options: mount.options.clone(),
        }
    }
}

impl TryFrom<pb::Mount> for Mount {
    type Error = BadMessage;

    fn try_from(mount: pb::Mount) -> Result<Self, BadMessage> {
        Ok(Self {
            id: MountId(mount.id),
            path: MountPath::parse(&mount.path).map_err(|e| BadMessage(e.to_string()))?,
            ufs: mount.ufs,
            options: mount.options,
        })
    }
}

/// Copies the fields of the same name in both directions.
macro_rules! same_fields {
    ($domain:ty, $wire:ty, { $($field:ident),* $(,)? }) => {
        impl From<$domain> for $wire {
            fn from(from: $domain) -> Self {
                Self { $($field: from.$field),* }
            }
        }
        impl From<$wire> for $domain {
            fn from(from: $wire) -> Self {
                Self { $($field: from.$field),* }
            }
        }
    };
}

same_fields!(NodeStats, pb::NodeStats, {
    memory_used, memory_capacity, disk_used, disk_capacity, memory_blocks, disk_blocks,
    memory_hits, disk_hits, misses, served_bytes, ufs_reads, ufs_bytes, peer_bytes, corrupt,
    errors, uptime_ms, disks_not_read, disks_not_written, disk_errors, disk_refused, scrub_bytes,
    scrub_bad_blocks, scrub_passes, scrub_permille,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_survives_the_wire() {
        let member = Member {
            id: NodeId(3),
            addr: "10.0.0.1:7100".into(),
            admin: String::new(),
            zone: "a".into(),
            weight: 100,
            capacity: 1 << 40,
            state: MemberState::Draining,
            incarnation: 9,
        };
        let view = ClusterView {
            cluster: ClusterId([7; 16]),
            version: 12,
            epoch: Epoch(4),
            block_size: BlockSize::DEFAULT,
            members: vec![member],
            mounts: MountTable::standalone("s3://b/p".into(), [("k".into(), "v".into())].into()),
        };
        assert_eq!(ClusterView::try_from(pb::View::from(&view)), Ok(view));
    }

    #[test]
    fn nonsense_is_refused() {
        let view = pb::View {
            cluster_id: vec![1, 2],
            ..Default::default()
        };
        assert!(ClusterView::try_from(view).is_err());
        let member = pb::Member {
            state: 99,
            ..Default::default()
        };
        assert!(Member::try_from(member).is_err());
    }
}
