//! Reads through nodes that serve, lie, fail, freeze and die.

use std::time::Instant;

use millpond_proto::ErrorKind;
use millpond_proto::wire::frame::Tier;

use super::node::{BLOCK, Cluster, Manner};
use super::*;
use crate::SourceBytes;

const SIZE: u64 = 24 * BLOCK + 7;

async fn cluster(nodes: u64) -> (Cluster, Vec<u8>) {
    let (store, uri) = fresh_store();
    let data = pattern(1, SIZE);
    store.put("f", data.clone());
    (Cluster::start(nodes, &uri).await, data)
}

async fn read_all(cluster: &Cluster, data: &[u8]) {
    let file = cluster.fs.open("/data/f").await.unwrap();
    for offset in (0..SIZE).step_by(BLOCK as usize) {
        let got = file.read(offset, BLOCK as u32).await.unwrap();
        let end = (offset + BLOCK).min(SIZE);
        assert!(got == data[offset as usize..end as usize], "at {offset}");
    }
}

#[tokio::test]
async fn nodes_fill_serve_and_are_told_apart_in_the_sources() {
    let (cluster, data) = cluster(3).await;
    read_all(&cluster, &data).await;
    assert_eq!(cluster.node_reads(), 25);
    assert!(cluster.nodes.iter().all(|node| node.reads() > 0));
    let from_ufs = SourceBytes {
        ufs: SIZE,
        ..SourceBytes::default()
    };
    assert_eq!(cluster.fs.sources(), from_ufs);
    assert_eq!(cluster.fs.ufs_bytes(), 0, "the nodes read it");

    read_all(&cluster, &data).await;
    assert_eq!(
        cluster.fs.sources(),
        SourceBytes {
            memory: SIZE,
            ..from_ufs
        }
    );
    assert_eq!(
        cluster.metric("millpond_client_read_bytes_total{source=\"ufs\"}"),
        SIZE
    );
}

#[tokio::test]
async fn blocks_that_nodes_hold_count_as_from_peers() {
    let (cluster, data) = cluster(2).await;
    read_all(&cluster, &data).await;
    // Another client of the same nodes would find them warm: forget the local tier.
    let location = cluster.fs.locate("/data/f", 0..100).await.unwrap();
    assert_eq!(location.blocks.len(), 25);
    for block in &location.blocks {
        assert_eq!(block.cached, [(block.owners[0], Tier::Memory)]);
        assert_eq!(block.owners.len(), 2);
        assert_eq!(block.local, Tier::Memory);
        assert_eq!(block.silent, []);
    }
    cluster.fs.core().memory.clear();
    read_all(&cluster, &data).await;
    assert_eq!(cluster.fs.sources().peer, SIZE);
}

#[tokio::test]
async fn corrupt_data_falls_to_the_next_source() {
    let (cluster, data) = cluster(3).await;
    cluster.nodes[0].behave(Manner::Corrupt);
    read_all(&cluster, &data).await;
    let bad = cluster.nodes[0].reads();
    assert!(bad > 0);
    let corrupt = cluster.metric("millpond_client_fallbacks_total{reason=\"corrupt\"}");
    assert_eq!(corrupt, bad);
    assert_eq!(cluster.fs.ufs_bytes(), 0, "the next replica had it");
}

#[tokio::test]
async fn an_error_of_a_node_is_not_an_error_of_the_read() {
    for kind in ErrorKind::ALL {
        let (cluster, data) = cluster(1).await;
        cluster.nodes[0].behave(Manner::Fails(kind));
        read_all(&cluster, &data).await;
        assert_eq!(cluster.fs.ufs_bytes(), SIZE, "{kind}");
    }
}

#[tokio::test]
async fn dead_nodes_cost_ufs_speed_and_no_error() {
    let (mut cluster, data) = cluster(2).await;
    let file = cluster.fs.open("/data/f").await.unwrap();
    file.read(0, 10).await.unwrap();
    for node in &mut cluster.nodes {
        node.kill();
    }
    let started = Instant::now();
    read_all(&cluster, &data).await;
    assert!(cluster.fs.ufs_bytes() >= SIZE - 2 * BLOCK);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_stalls_a_read_for_less_than_two_seconds_and_is_then_passed_over() {
    let (cluster, data) = cluster(1).await;
    let file = cluster.fs.open("/data/f").await.unwrap();
    file.read(0, 10).await.unwrap();
    let frozen = cluster.nodes[0].freeze();
    let started = Instant::now();
    let got = file.read(10 * BLOCK, 1000).await.unwrap();
    let first = started.elapsed();
    assert!(got == data[10 * BLOCK as usize..10 * BLOCK as usize + 1000]);
    assert!(first < Duration::from_secs(2), "stalled for {first:?}");

    let started = Instant::now();
    for block in 15..20 {
        file.read(block * BLOCK, 1000).await.unwrap();
    }
    let rest = started.elapsed();
    assert!(rest < Duration::from_secs(2), "five more took {rest:?}");
    // Each of the six went round it at most once.
    assert!(cluster.fs.core().metrics.hedges.get() <= 6);

    // It is asked again once it lives.
    let before = cluster.nodes[0].reads();
    drop(frozen);
    cluster.fs.core().memory.clear();
    for _ in 0..100 {
        file.read(5 * BLOCK, 10).await.unwrap();
        cluster.fs.core().memory.clear();
        if cluster.nodes[0].reads() > before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the node was never asked again");
}

#[tokio::test]
async fn a_node_that_lives_but_does_not_answer_is_joined_by_the_ufs() {
    let (cluster, data) = cluster(1).await;
    cluster.nodes[0].behave(Manner::Mute);
    let file = cluster.fs.open("/data/f").await.unwrap();
    let started = Instant::now();
    let got = file.read(0, 1000).await.unwrap();
    assert!(got == data[..1000]);
    assert!(
        started.elapsed() >= Duration::from_secs(2),
        "a living node is given time"
    );
    let slow = cluster.metric("millpond_client_fallbacks_total{reason=\"slow\"}");
    assert_eq!(slow, 1);
}

#[tokio::test]
async fn a_mount_without_nodes_is_read_directly() {
    let (store, uri) = fresh_store();
    let data = pattern(3, SIZE);
    store.put("f", data.clone());
    let cluster = Cluster::start(0, &uri).await;
    read_all(&cluster, &data).await;
    assert_eq!(cluster.fs.ufs_bytes(), SIZE);
    let error = cluster
        .fs
        .node_stats(millpond_proto::NodeId(1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_object_replaced_under_the_nodes_is_stale_not_mixed() {
    let (store, uri) = fresh_store();
    let old = pattern(3, SIZE);
    store.put("f", old.clone());
    let cluster = Cluster::start(2, &uri).await;
    let file = cluster.fs.open("/data/f").await.unwrap();
    assert!(file.read(0, 100).await.unwrap() == old[..100]);
    store.put("f", pattern(4, SIZE));
    let error = file.read(9 * BLOCK, 100).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    // The second read in a row is a stream's, for which the node itself asks the UFS.
    let error = file.read(9 * BLOCK + 100, 100).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    let refused = cluster.metric("millpond_client_fallbacks_total{reason=\"refused\"}");
    assert!(refused > 0, "the UFS itself was asked");
}
