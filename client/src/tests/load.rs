//! Files that the nodes are made to hold.

use millpond_proto::ErrorKind;

use super::node::{BLOCK, Cluster, Manner};
use super::*;
use crate::{ClientError, Loaded};

const SIZE: u64 = 10 * BLOCK + 7;

async fn cluster(nodes: u64) -> (Cluster, Arc<MemoryStore>) {
    let (store, uri) = fresh_store();
    store.put("f", pattern(3, SIZE));
    (Cluster::start(nodes, &uri).await, store)
}

#[tokio::test]
async fn what_is_loaded_is_at_its_owners_and_did_not_come_here() {
    let (cluster, _) = cluster(2).await;
    let loaded = cluster.fs.load("/data/f").await.unwrap();
    let all = Loaded {
        bytes: SIZE,
        blocks: 11,
        filled: 11,
        not_kept: 0,
    };
    assert_eq!(loaded, all);
    assert_eq!(cluster.fs.core().memory.live_bytes(), 0);
    for block in cluster.fs.locate("/data/f", 0..11).await.unwrap().blocks {
        let first = block.owners[0];
        let holders: Vec<_> = block.cached.iter().map(|(node, _)| *node).collect();
        assert_eq!(holders, [first], "{}", block.block);
    }
    let again = cluster.fs.load("/data/f").await.unwrap();
    assert_eq!(again, Loaded { filled: 0, ..all });
}

#[tokio::test]
async fn a_dead_owner_is_replaced_and_a_node_that_fails_is_the_error() {
    let (mut cluster, _) = cluster(2).await;
    cluster.nodes[0].kill();
    let loaded = cluster.fs.load("/data/f").await.unwrap();
    assert_eq!((loaded.blocks, loaded.not_kept), (11, 0));

    cluster.nodes[1].behave(Manner::Fails(ErrorKind::Denied));
    let denied = cluster.fs.load("/data/f").await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_file_that_was_replaced_is_stale() {
    let (cluster, store) = cluster(1).await;
    cluster.fs.stat("/data/f").await.unwrap();
    store.put("f", pattern(4, SIZE));
    let error = cluster.fs.load("/data/f").await.unwrap_err();
    assert!(matches!(error, ClientError::Stale { .. }), "{error}");
}

#[tokio::test]
async fn nothing_can_be_loaded_without_nodes() {
    let (store, uri) = fresh_store();
    store.put("f", pattern(3, SIZE));
    let fs = standalone(&uri, small()).await;
    let error = fs.load("/f").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no cache node"), "{error}");
}
