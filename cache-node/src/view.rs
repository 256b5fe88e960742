//! Which node owns a block, and which owned it before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use millpond_proto::{BlockId, ClusterView, Epoch, MemberState, Mount, MountId, NodeId, Ring};

/// How long a ring that was replaced is asked for blocks that the new owner misses.
pub const HAND_OVER: Duration = Duration::from_secs(600);

/// How many replaced rings are remembered: nodes often join in bursts.
const PAST_RINGS: usize = 4;

/// How many nodes are asked before the UFS is.
const MAX_HOLDERS: usize = 2;

/// The cluster view in use with what follows from it. An immutable value, swapped whole.
#[derive(Debug, Clone)]
pub struct Placement {
    view: Arc<ClusterView>,
    ring: Arc<Ring>,
    past: VecDeque<PastRing>,
}

#[derive(Debug, Clone)]
struct PastRing {
    ring: Arc<Ring>,
    until: Instant,
}

impl Placement {
    /// The placement of the first view; `ring` is the one of its epoch.
    pub fn new(view: Arc<ClusterView>, ring: Arc<Ring>) -> Self {
        Self {
            view,
            ring,
            past: VecDeque::new(),
        }
    }

    /// The placement after `view` with its `ring` replaced the present one at `now`. The
    /// present ring is kept for hand-over if blocks moved.
    #[must_use]
    pub fn followed_by(&self, view: Arc<ClusterView>, ring: Arc<Ring>, now: Instant) -> Self {
        let mut past = self.past.clone();
        past.retain(|p| p.until > now);
        if ring.epoch() != self.ring.epoch() && !self.ring.is_empty() {
            past.push_front(PastRing {
                ring: Arc::clone(&self.ring),
                until: now + HAND_OVER,
            });
            past.truncate(PAST_RINGS);
        }
        Self { view, ring, past }
    }

    /// The view.
    pub fn view(&self) -> &Arc<ClusterView> {
        &self.view
    }

    /// The view's epoch.
    pub fn epoch(&self) -> Epoch {
        self.view.epoch
    }

    /// The nodes other than `me` that may hold `block`, likeliest first: its owner, then
    /// those who owned it before, as far as they still answer.
    pub fn holders(&self, block: &BlockId, me: NodeId, now: Instant) -> Vec<NodeId> {
        let current = std::iter::once(&self.ring);
        let past = self.past.iter().filter(|p| p.until > now).map(|p| &p.ring);
        let mut holders = Vec::new();
        for ring in current.chain(past) {
            let Some(owner) = ring.owner(block) else {
                continue;
            };
            if owner != me && !holders.contains(&owner) && self.answers(owner) {
                holders.push(owner);
            }
            if holders.len() == MAX_HOLDERS {
                break;
            }
        }
        holders
    }

    fn answers(&self, node: NodeId) -> bool {
        let state = self.view.member(node).map(|m| m.state);
        matches!(state, Some(MemberState::Active | MemberState::Draining))
    }
}

/// The placement that everyone in the process reads.
#[derive(Debug)]
pub struct CurrentView(watch::Sender<Arc<Placement>>);

impl CurrentView {
    /// Starts with `view` and its ring.
    pub fn new(view: Arc<ClusterView>, ring: Arc<Ring>) -> Self {
        Self(watch::Sender::new(Arc::new(Placement::new(view, ring))))
    }

    /// The present placement.
    pub fn load(&self) -> Arc<Placement> {
        Arc::clone(&self.0.borrow())
    }

    /// Takes `view` with its ring into use if it is newer than the present one; says whether
    /// it was.
    pub fn advance(&self, view: Arc<ClusterView>, ring: Arc<Ring>, now: Instant) -> bool {
        self.0.send_if_modified(|present| {
            let newer = view.version > present.view().version;
            if newer {
                *present = Arc::new(present.followed_by(view, ring, now));
            }
            newer
        })
    }

    /// The mount called `id`. A client may know a new mount before this node does, so one
    /// that is missing is waited for, at most for `patience`; none if it does not appear.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn mount(&self, id: MountId, patience: Duration) -> Option<Mount> {
        let find = |placement: &Arc<Placement>| placement.view().mounts.by_id(id).cloned();
        if let Some(mount) = find(&self.0.borrow()) {
            return Some(mount);
        }
        let mut changes = self.0.subscribe();
        let appeared = changes.wait_for(|placement| find(placement).is_some());
        let placement = timeout(patience, appeared).await.ok()?.ok()?;
        find(&placement)
    }
}

#[cfg(test)]
mod tests {
    use millpond_proto::{BlockSize, ClusterId, FileId, Member, MountTable};

    use super::*;

    fn view(version: u64, nodes: &[(u64, MemberState)]) -> (Arc<ClusterView>, Arc<Ring>) {
        let member = |&(id, state): &(u64, MemberState)| Member {
            id: NodeId(id),
            addr: format!("10.0.0.{id}:7100"),
            admin: String::new(),
            zone: String::new(),
            weight: 100,
            capacity: 0,
            state,
            incarnation: 1,
        };
        let view = ClusterView {
            cluster: ClusterId([1; 16]),
            version,
            epoch: Epoch(version),
            block_size: BlockSize::DEFAULT,
            members: nodes.iter().map(member).collect(),
            mounts: MountTable::default(),
        };
        let ring = Ring::new(view.epoch, &view.members);
        (Arc::new(view), Arc::new(ring))
    }

    fn first(view: (Arc<ClusterView>, Arc<Ring>)) -> Placement {
        Placement::new(view.0, view.1)
    }

    fn next(from: &Placement, view: (Arc<ClusterView>, Arc<Ring>), now: Instant) -> Placement {
        from.followed_by(view.0, view.1, now)
    }

    fn advance(current: &CurrentView, view: (Arc<ClusterView>, Arc<Ring>)) -> bool {
        current.advance(view.0, view.1, Instant::now())
    }

    fn block(n: u64) -> BlockId {
        BlockId::new(FileId([n as u8; 16]), n)
    }

    const ACTIVE: MemberState = MemberState::Active;

    #[test]
    fn a_new_owner_asks_the_previous_one() {
        let now = Instant::now();
        let one = first(view(1, &[(1, ACTIVE)]));
        let two = next(&one, view(2, &[(1, ACTIVE), (2, ACTIVE)]), now);
        let moved = (0..100)
            .map(block)
            .find(|b| two.ring.owner(b) == Some(NodeId(2)));
        let moved = moved.unwrap();
        assert_eq!(two.holders(&moved, NodeId(2), now), [NodeId(1)]);
        let later = now + HAND_OVER;
        assert!(two.holders(&moved, NodeId(2), later).is_empty());
    }

    #[test]
    fn an_owner_without_past_asks_nobody() {
        let now = Instant::now();
        let one = first(view(1, &[(1, ACTIVE), (2, ACTIVE)]));
        for n in 0..20 {
            let owner = one.ring.owner(&block(n)).unwrap();
            assert!(one.holders(&block(n), owner, now).is_empty());
        }
    }

    #[test]
    fn who_does_not_own_a_block_asks_its_owner() {
        let now = Instant::now();
        let one = first(view(1, &[(1, ACTIVE), (2, ACTIVE)]));
        let owner = one.ring.owner(&block(7)).unwrap();
        let other = NodeId(3 - owner.0);
        assert_eq!(one.holders(&block(7), other, now), [owner]);
    }

    #[test]
    fn dead_and_departed_nodes_are_not_asked() {
        let now = Instant::now();
        for state in [MemberState::Dead, MemberState::Left] {
            let one = first(view(1, &[(1, ACTIVE), (2, ACTIVE)]));
            let two = next(&one, view(2, &[(1, state), (2, ACTIVE)]), now);
            for n in 0..20 {
                assert!(two.holders(&block(n), NodeId(2), now).is_empty());
            }
        }
        let one = first(view(1, &[(1, ACTIVE), (2, ACTIVE)]));
        let drains = [(1, MemberState::Draining), (2, ACTIVE)];
        let two = next(&one, view(2, &drains), now);
        let moved = (0..100)
            .map(block)
            .find(|b| one.ring.owner(b) == Some(NodeId(1)));
        assert_eq!(two.holders(&moved.unwrap(), NodeId(2), now), [NodeId(1)]);
    }

    #[test]
    fn only_newer_views_are_taken() {
        let current = {
            let (view, ring) = view(5, &[(1, ACTIVE)]);
            CurrentView::new(view, ring)
        };
        assert!(!advance(&current, view(4, &[])));
        assert!(!advance(&current, view(5, &[])));
        assert!(advance(&current, view(6, &[(1, ACTIVE), (2, ACTIVE)])));
        assert_eq!(current.load().epoch(), Epoch(6));
    }

    #[tokio::test]
    async fn a_mount_that_this_node_does_not_know_yet_is_waited_for() {
        let current = {
            let (view, ring) = view(1, &[]);
            CurrentView::new(view, ring)
        };
        assert_eq!(
            current.mount(MountId(0), Duration::from_millis(5)).await,
            None
        );
        let (empty, ring) = view(2, &[]);
        let mut with_mount = (*empty).clone();
        with_mount.mounts = MountTable::standalone("memory:///x".into(), [].into());
        let waiting = current.mount(MountId(0), Duration::from_secs(60));
        let advancing = async { advance(&current, (Arc::new(with_mount), ring)) };
        let (mount, advanced) = tokio::join!(waiting, advancing);
        assert!(advanced && mount.is_some());
    }
}
