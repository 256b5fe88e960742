//! The under-stores of the mount table, opened when first asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tracing::{info, warn};

use millpond_proto::{MetadataOptions, Mount, MountTable};
use millpond_ufs::{Ufs, UfsContext, UfsError};

/// What an opened UFS depends on: two mounts with the same URI and options share one, and a
/// mount whose options changed gets another.
type Key = (String, BTreeMap<String, String>);

type Slot = Arc<OnceCell<Arc<dyn Ufs>>>;

/// One UFS for each URI and set of options that the mount table names.
#[derive(Debug)]
pub struct UfsTable {
    context: UfsContext,
    opened: Mutex<HashMap<Key, Slot>>,
}

impl UfsTable {
    /// An empty table.
    pub fn new(context: UfsContext) -> Self {
        Self {
            context,
            opened: Mutex::default(),
        }
    }

    /// The UFS of `mount`, opened if need be. However many ask, it is opened once; a failure
    /// is not remembered.
    ///
    /// # Errors
    /// Those of [`millpond_ufs::open()`].
    pub async fn of(&self, mount: &Mount) -> Result<Arc<dyn Ufs>, UfsError> {
        let key = key_of(mount);
        let slot = Arc::clone(self.opened.lock().entry(key).or_default());
        let open = async || {
            let ufs = millpond_ufs::open(&mount.ufs, &mount.options, self.context.clone());
            ufs.await
                .inspect(|ufs| info!(mount = %mount.path, ufs = ufs.uri(), "opened the UFS"))
                .inspect_err(|error| warn!(mount = %mount.path, %error, "cannot open the UFS"))
        };
        slot.get_or_try_init(open).await.map(Arc::clone)
    }

    /// Drops what no mount of `mounts` needs any more. Reads under way keep theirs.
    pub fn retain(&self, mounts: &MountTable) {
        let wanted: HashSet<Key> = mounts.iter().map(key_of).collect();
        self.opened.lock().retain(|key, _| wanted.contains(key));
    }

    /// How many are open or being opened.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.opened.lock().len()
    }
}

/// What the store of `mount` depends on: not on how its metadata is believed.
fn key_of(mount: &Mount) -> Key {
    (mount.ufs.clone(), MetadataOptions::strip(&mount.options))
}

#[cfg(test)]
mod tests {
    use millpond_proto::{MountId, MountPath};

    use super::*;

    fn mount(id: u64, path: &str, ufs: &str) -> Mount {
        Mount {
            id: MountId(id),
            path: MountPath::parse(path).unwrap(),
            ufs: ufs.to_owned(),
            options: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn mounts_of_one_store_share_it_until_the_last_goes() {
        let table = UfsTable::new(UfsContext::detached());
        let (a, b) = (mount(1, "/a", "memory:///x"), mount(2, "/b", "memory:///x"));
        let first = table.of(&a).await.unwrap();
        assert!(Arc::ptr_eq(&first, &table.of(&b).await.unwrap()));
        assert_eq!(table.len(), 1);

        let mut mounts = MountTable::default();
        mounts.add(b).unwrap();
        table.retain(&mounts);
        assert_eq!(table.len(), 1);
        table.retain(&MountTable::default());
        assert_eq!(table.len(), 0);
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered_as_a_store() {
        let table = UfsTable::new(UfsContext::detached());
        let wrong = mount(1, "/a", "nonsense://x");
        assert!(table.of(&wrong).await.is_err());
        assert!(table.of(&wrong).await.is_err());
    }
}
