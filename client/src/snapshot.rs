//! The view of the moment, with the ring and the opened stores that follow from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use millpond_net::block_client::Peer;
use millpond_net::control::Routing;
use millpond_proto::{BlockId, BlockSize, ClusterId, ClusterView, Epoch};
use millpond_proto::{MetadataOptions, Mount, MountId, MountTable, NodeId, Trust};
use millpond_ufs::{Ufs, UfsContext, UfsError};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::pace::Pace;

/// How many owners of a block are asked before the UFS.
const OWNERS: usize = 2;

/// One view and what follows from it. Immutable; swapped whole.
#[derive(Debug)]
pub(crate) struct Snapshot {
    routing: Arc<Routing>,
    /// Grows with every change of the mount table that this client saw.
    pub(crate) generation: u64,
    stores: BTreeMap<MountId, Arc<UnderStore>>,
    metadata: BTreeMap<MountId, MetadataOptions>,
}

impl Snapshot {
    /// The first view of a client.
    pub(crate) fn first(routing: Arc<Routing>) -> Self {
        let stores = stores(&routing.view.mounts, &BTreeMap::new());
        let metadata = metadata(&routing.view.mounts);
        Self {
            routing,
            generation: 1,
            stores,
            metadata,
        }
    }

    /// The snapshot of a later view: stores that did not change are shared.
    pub(crate) fn next(&self, routing: Arc<Routing>) -> Self {
        let moved = routing.view.mounts != self.view().mounts;
        Self {
            generation: self.generation + u64::from(moved),
            stores: stores(&routing.view.mounts, &self.stores),
            metadata: metadata(&routing.view.mounts),
            routing,
        }
    }

    /// A client's snapshot without a cluster: one mount at `/`, no node.
    pub(crate) fn standalone(
        uri: &str,
        options: BTreeMap<String, String>,
        block_size: BlockSize,
    ) -> Self {
        Self::first(Arc::new(Routing::first(ClusterView {
            cluster: ClusterId([0; 16]),
            version: 0,
            epoch: Epoch(0),
            block_size,
            members: Vec::new(),
            mounts: MountTable::standalone(uri.to_owned(), options),
        })))
    }

    /// The view.
    pub(crate) fn view(&self) -> &Arc<ClusterView> {
        &self.routing.view
    }

    /// Whether no node is in service.
    pub(crate) fn has_no_nodes(&self) -> bool {
        self.routing.ring.is_empty()
    }

    /// The store behind `mount`.
    pub(crate) fn store(&self, mount: MountId) -> Option<Arc<UnderStore>> {
        self.stores.get(&mount).map(Arc::clone)
    }

    /// How long what the store behind `mount` says is believed; as in `default` where the
    /// mount does not say.
    pub(crate) fn trust(&self, mount: MountId, default: Trust) -> Trust {
        match self.metadata.get(&mount) {
            Some(options) => options.over(default),
            None => default,
        }
    }

    /// The nodes to ask for `block`, most preferred first.
    pub(crate) fn owners(&self, block: &BlockId) -> Vec<Peer> {
        let owners = self.routing.ring.owners(block, OWNERS);
        let peers = owners.as_slice().iter().filter_map(|id| self.peer(*id));
        peers.collect()
    }

    /// How to reach the member `id`.
    pub(crate) fn peer(&self, id: NodeId) -> Option<Peer> {
        self.routing.peer(id)
    }
}

fn metadata(mounts: &MountTable) -> BTreeMap<MountId, MetadataOptions> {
    // The coordinator lets no wrong ones in; a client that cannot read those of a later one
    // goes by its own.
    let options = |mount: &Mount| MetadataOptions::of(&mount.options).unwrap_or_default();
    let mounts = mounts.iter();
    mounts.map(|mount| (mount.id, options(mount))).collect()
}

fn stores(
    mounts: &MountTable,
    before: &BTreeMap<MountId, Arc<UnderStore>>,
) -> BTreeMap<MountId, Arc<UnderStore>> {
    let mut stores: BTreeMap<MountId, Arc<UnderStore>> = BTreeMap::new();
    for mount in mounts.iter() {
        let same = |store: &&Arc<UnderStore>| store.is_of(mount);
        let known = before
            .values()
            .find(same)
            .or_else(|| stores.values().find(same));
        let store = known.map_or_else(|| Arc::new(UnderStore::of(mount)), Arc::clone);
        stores.insert(mount.id, store);
    }
    stores
}

/// A UFS that is opened when it is first needed. Mounts with the same URI and options share
/// one, and keep it from view to view.
pub(crate) struct UnderStore {
    uri: String,
    options: BTreeMap<String, String>,
    opened: OnceCell<Arc<dyn Ufs>>,
    /// How fast it answers.
    pub(crate) pace: Arc<Mutex<Pace>>,
}

impl UnderStore {
    fn of(mount: &Mount) -> Self {
        Self {
            uri: mount.ufs.clone(),
            options: MetadataOptions::strip(&mount.options),
            opened: OnceCell::new(),
            pace: Arc::new(Mutex::new(Pace::new())),
        }
    }

    fn is_of(&self, mount: &Mount) -> bool {
        self.uri == mount.ufs && self.options == MetadataOptions::strip(&mount.options)
    }

    /// Has this UFS behind the mount; it must not be open yet.
    #[cfg(test)]
    pub(crate) fn preset(&self, ufs: Arc<dyn Ufs>) {
        assert!(self.opened.set(ufs).is_ok(), "already open");
    }

    /// The UFS, opened now if need be. A failure is tried again the next time.
    pub(crate) async fn open(&self, context: &UfsContext) -> Result<Arc<dyn Ufs>, UfsError> {
        let open = || millpond_ufs::open(&self.uri, &self.options, context.clone());
        self.opened.get_or_try_init(open).await.map(Arc::clone)
    }
}

impl fmt::Debug for UnderStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnderStore")
            .field("uri", &self.uri)
            .field("opened", &self.opened.initialized())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use millpond_proto::{Member, MemberState, MountPath};

    use super::*;

    fn mount(id: u64, path: &str, ufs: &str) -> Mount {
        Mount {
            id: MountId(id),
            path: MountPath::parse(path).unwrap(),
            ufs: ufs.to_owned(),
            options: BTreeMap::new(),
        }
    }

    fn view(version: u64, mounts: &[Mount], nodes: u64) -> Arc<Routing> {
        let mut table = MountTable::default();
        for mount in mounts {
            table.add(mount.clone()).unwrap();
        }
        let member = |id| Member {
            id: NodeId(id),
            addr: format!("127.0.0.1:{id}"),
            admin: String::new(),
            zone: String::new(),
            weight: 100,
            capacity: 1,
            state: MemberState::Active,
            incarnation: 1,
        };
        Arc::new(Routing::first(ClusterView {
            cluster: ClusterId([1; 16]),
            version,
            epoch: Epoch(nodes),
            block_size: BlockSize::DEFAULT,
            members: (1..=nodes).map(member).collect(),
            mounts: table,
        }))
    }

    #[test]
    fn a_store_survives_changes_that_do_not_concern_it() {
        let a = mount(1, "/a", "memory:///a");
        let first = Snapshot::first(view(1, std::slice::from_ref(&a), 1));
        let second = first.next(view(2, &[a.clone(), mount(2, "/b", "memory:///b")], 2));
        let shared = |id| {
            (
                first.store(MountId(1)).unwrap(),
                second.store(MountId(id)).unwrap(),
            )
        };
        let (before, after) = shared(1);
        assert!(Arc::ptr_eq(&before, &after));
        let (before, other) = shared(2);
        assert!(!Arc::ptr_eq(&before, &other));
        assert_eq!((first.generation, second.generation), (1, 2));

        let updated = Mount {
            options: BTreeMap::from([("region".to_owned(), "x".to_owned())]),
            ..a
        };
        let third = second.next(view(3, &[updated], 2));
        assert!(!Arc::ptr_eq(&before, &third.store(MountId(1)).unwrap()));
        assert!(third.store(MountId(2)).is_none());
    }

    #[test]
    fn mounts_of_one_store_share_it() {
        let mounts = [mount(1, "/a", "memory:///x"), mount(2, "/b", "memory:///x")];
        let snapshot = Snapshot::first(view(1, &mounts, 0));
        let (a, b) = (snapshot.store(MountId(1)), snapshot.store(MountId(2)));
        assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()));
        let block = BlockId::new(millpond_proto::FileId([0; 16]), 0);
        assert_eq!(snapshot.owners(&block), []);
    }
}
