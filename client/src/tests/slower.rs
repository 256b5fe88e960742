//! Nodes that serve correctly, and slower than the UFS does.

use millpond_proto::NodeId;

use super::node::{BLOCK, Cluster, Manner};
use super::*;
use crate::FileHandle;

const BLOCKS: u64 = 24;
const SIZE: u64 = BLOCKS * BLOCK;

/// So slow that no UFS in this process is half as slow, on a busy machine either.
const SLOW: Manner = Manner::Slow(Duration::from_millis(150));

async fn cluster() -> (Cluster, Vec<u8>) {
    let (store, uri) = fresh_store();
    let data = pattern(7, SIZE);
    store.put("f", data.clone());
    (Cluster::start(1, &uri).await, data)
}

/// Reads all blocks in order, some ahead of others, from whatever source but local memory.
async fn read_all(cluster: &Cluster, data: &[u8]) {
    cluster.fs.core().memory.clear();
    let file = cluster.fs.open("/data/f").await.unwrap();
    for block in 0..BLOCKS {
        read(&file, block, data).await;
    }
}

/// Reads all blocks one by one: a request waits for no other.
async fn read_apart(cluster: &Cluster, data: &[u8]) {
    cluster.fs.core().memory.clear();
    for block in (0..BLOCKS).rev() {
        let file = cluster.fs.open("/data/f").await.unwrap();
        read(&file, block, data).await;
    }
}

async fn read(file: &FileHandle, block: u64, data: &[u8]) {
    let got = file.read(block * BLOCK, BLOCK as u32).await.unwrap();
    let wanted = &data[(block * BLOCK) as usize..][..BLOCK as usize];
    assert!(got == wanted, "block {block}");
}

fn slower(cluster: &Cluster) -> u64 {
    cluster.metric("millpond_client_fallbacks_total{reason=\"slower\"}")
}

#[tokio::test]
async fn a_node_that_is_slower_than_the_ufs_is_gone_round_until_it_is_not() {
    let (cluster, data) = cluster().await;
    read_all(&cluster, &data).await;
    assert_eq!(cluster.fs.ufs_bytes(), 0, "the node filled");

    cluster.nodes[0].behave(SLOW);
    for _ in 0..20 {
        read_apart(&cluster, &data).await;
        if slower(&cluster) > 0 {
            break;
        }
    }
    assert!(slower(&cluster) > 0, "never gone round");
    assert_eq!(cluster.fs.stats().gone_round, [NodeId(1)]);
    assert_eq!(cluster.metric("millpond_client_nodes_gone_round"), 1);
    let (asked, from_ufs) = (cluster.node_reads(), cluster.fs.ufs_bytes());
    read_apart(&cluster, &data).await;
    assert!(cluster.fs.ufs_bytes() >= from_ufs + SIZE / 2);
    assert!(cluster.node_reads() <= asked + BLOCKS / 8, "still asked");

    cluster.nodes[0].behave(Manner::Good);
    for _ in 0..200 {
        read_apart(&cluster, &data).await;
        if cluster.fs.stats().gone_round.is_empty() {
            assert_eq!(cluster.metric("millpond_client_nodes_gone_round"), 0);
            let from_ufs = cluster.fs.ufs_bytes();
            read_all(&cluster, &data).await;
            assert_eq!(cluster.fs.ufs_bytes(), from_ufs, "it serves again");
            return;
        }
    }
    panic!("the node was never trusted again");
}

#[tokio::test]
async fn a_node_that_is_slow_because_it_fills_is_not_gone_round() {
    let (cluster, data) = cluster().await;
    cluster.nodes[0].behave(SLOW);
    read_all(&cluster, &data).await;
    assert_eq!(cluster.node_reads(), BLOCKS);
    assert_eq!(cluster.fs.ufs_bytes(), 0);
    let sampled = cluster.metric("millpond_client_fallbacks_total{reason=\"sampled\"}");
    assert_eq!((sampled, slower(&cluster)), (0, 0));
}

#[tokio::test]
async fn a_node_that_is_gone_round_serves_when_the_ufs_does_not() {
    let (store, uri) = fresh_store();
    let data = pattern(7, SIZE);
    store.put("f", data.clone());
    let cluster = Cluster::start(1, &uri).await;
    read_all(&cluster, &data).await;
    cluster.nodes[0].behave(SLOW);
    while slower(&cluster) == 0 {
        read_apart(&cluster, &data).await;
    }
    let file = cluster.fs.open("/data/f").await.unwrap();
    cluster.nodes[0].keep(&data);
    store.put("f", pattern(8, SIZE));
    cluster.fs.core().memory.clear();
    for block in 0..BLOCKS {
        // The version that was opened, which only the node still has.
        read(&file, block, &data).await;
    }
}
