//! Requests that go well, and who may make them.

use std::sync::Arc;

use futures::StreamExt;
use millpond_net::NetError;
use millpond_net::block_client::{BlockClient, BlockClientConfig, Peer};
use millpond_net::metrics::{ClientMetrics, Outcome, OutcomeLabels};
use millpond_net::quic;
use millpond_net::tls::PeerRole;
use millpond_proto::checksum::{crc32c, pieces};
use millpond_proto::wire::frame::{Op, Tier};
use millpond_proto::{ClusterId, ErrorKind, NodeId};
use tokio_util::task::TaskTracker;

use super::support::{Asker, Behaviour, EPOCH, Node, ca, content, eventually, read, soon};

#[tokio::test]
async fn a_block_arrives_whole_verified_and_in_any_range() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Serve);
    let asker = Asker::new(&ca);
    let whole = content(4 << 20);
    for (offset, len) in [
        (0, 4 << 20),
        (1 << 20, 1 << 20),
        (65_535, 2),
        (7, 1),
        (100, 0),
    ] {
        let request = read(offset, len);
        let response = asker
            .client
            .request(&node.peer(), &request, soon(20_000))
            .await
            .unwrap();
        assert_eq!(
            (response.head.tier, response.head.epoch),
            (Tier::Memory, EPOCH)
        );
        let data = response.read_data().await.unwrap();
        assert_eq!(
            data.bytes,
            whole.slice(offset as usize..(offset + len) as usize)
        );
        let sums: Vec<u32> = pieces(offset, len)
            .map(|p| crc32c(&data.bytes[p.start as usize..(p.start + p.len) as usize]))
            .collect();
        assert_eq!(data.checksums, sums);
    }
    assert!(
        node.service
            .callers
            .lock()
            .iter()
            .all(|c| *c == PeerRole::Client)
    );
    asker.client.shutdown().await;
    eventually("the server sees the connection close", || {
        node.metrics.connections.get() == 0
    })
    .await;
    node.server.shutdown().await;
}

#[tokio::test]
async fn chunks_can_be_taken_as_they_come() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Serve);
    let asker = Asker::new(&ca);
    let request = read(10, 3 << 20);
    let mut response = asker
        .client
        .request(&node.peer(), &request, soon(20_000))
        .await
        .unwrap();
    let mut got = Vec::new();
    while let Some(chunk) = response.next_chunk().await.unwrap() {
        got.extend_from_slice(&chunk);
    }
    assert!(got == content(10 + (3 << 20))[10..]);
    assert_eq!(response.finish().await.unwrap().len(), 49);

    let response = asker
        .client
        .request(&node.peer(), &request, soon(20_000))
        .await
        .unwrap();
    let chunks: Vec<_> = response
        .into_stream()
        .map(|c| c.unwrap().len())
        .collect()
        .await;
    assert_eq!(chunks.iter().sum::<usize>(), 3 << 20);
}

#[tokio::test]
async fn other_operations_share_the_wire() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Serve);
    let asker = Asker::new(&ca);
    let stats = asker
        .client
        .stats(&node.peer(), soon(20_000))
        .await
        .unwrap();
    assert_eq!(stats.corrupt, 17);
    let mut probe = read(0, 4 << 20);
    probe.op = Op::Probe;
    let response = asker
        .client
        .request(&node.peer(), &probe, soon(20_000))
        .await
        .unwrap();
    assert_eq!(response.head.tier, Tier::Disk);
    assert!(response.read_data().await.unwrap().bytes.is_empty());
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Serve);
    let asker = Arc::new(Asker::new(&ca));
    let tasks = TaskTracker::new();
    let peer = node.peer();
    let handles: Vec<_> = (0..50)
        .map(|i| {
            let (asker, peer) = (Arc::clone(&asker), peer.clone());
            tasks.spawn(async move { asker.read(&peer, i, 100_000).await.unwrap().bytes.len() })
        })
        .collect();
    for handle in handles {
        assert_eq!(handle.await.unwrap(), 100_000);
    }
    assert_eq!(asker.metrics.connections.get(), 1);
    let ok = OutcomeLabels {
        outcome: Outcome::Ok,
    };
    assert_eq!(asker.metrics.connects.get_or_create(&ok).get(), 1);
    assert_eq!(asker.metrics.received_bytes.get(), 50 * 100_000);
}

#[tokio::test]
async fn another_clusters_certificate_opens_nothing() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Serve);
    let other = millpond_net::ca::ClusterCa::create(&ClusterId([9; 16])).unwrap();
    let error = Asker::new(&other)
        .read(&node.peer(), 0, 10)
        .await
        .unwrap_err();
    assert!(matches!(error, NetError::Connect { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // A client that would trust the server, but that the server does not trust.
    let mut identity = other.issue(PeerRole::Client).unwrap();
    identity.ca_pem = ca.cert_pem().to_owned();
    let endpoint = quic::client_endpoint(&identity).unwrap();
    let metrics = Arc::new(ClientMetrics::default());
    let client = BlockClient::new(endpoint, BlockClientConfig::default(), metrics);
    let error = client
        .request(&node.peer(), &read(0, 10), soon(10_000))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(node.service.callers.lock().is_empty(), "nothing was served");
    eventually("the server counts it", || {
        let denied = millpond_net::metrics::RejectLabels {
            reason: millpond_net::metrics::RejectReason::Denied,
        };
        node.metrics.rejected.get_or_create(&denied).get() >= 1
    })
    .await;
}

#[tokio::test]
async fn a_node_answers_only_to_its_own_name() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Serve);
    let asker = Asker::new(&ca);
    let wrong = Peer {
        id: NodeId(2),
        addr: node.addr.to_string(),
    };
    let error = asker.read(&wrong, 0, 10).await.unwrap_err();
    assert!(matches!(error, NetError::Connect { .. }), "{error}");
    asker.read(&node.peer(), 0, 10).await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_may_not_serve() {
    let ca = ca();
    // The name is right, the purpose is not: no `serverAuth` in it.
    let client = ca.issue(PeerRole::Client).unwrap();
    let endpoint = quic::server_endpoint("127.0.0.1:0".parse().unwrap(), &client).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let dialler = quic::client_endpoint(&client).unwrap();
    let accepting = async {
        if let Some(incoming) = endpoint.accept().await {
            let _ = incoming.await;
        }
    };
    let dialling = dialler.connect(addr, "client").unwrap();
    let (_, dialled) = tokio::join!(accepting, dialling);
    assert!(dialled.is_err());
}

#[tokio::test]
async fn nodes_dial_and_listen_on_one_endpoint() {
    let ca = ca();
    let (a, b) = (
        Node::start(&ca, Behaviour::Serve),
        Node::start(&ca, Behaviour::Serve),
    );
    let metrics = Arc::new(ClientMetrics::default());
    let endpoint = a.server.endpoint().clone();
    let client = BlockClient::new(endpoint, BlockClientConfig::default(), metrics);
    let response = client
        .request(&b.peer(), &read(0, 1000), soon(20_000))
        .await
        .unwrap();
    response.read_data().await.unwrap();
    assert_eq!(*b.service.callers.lock(), [PeerRole::Node(NodeId(1))]);
    // Closing the client leaves the server of the same endpoint alone.
    client.shutdown().await;
    Asker::new(&ca).read(&a.peer(), 0, 10).await.unwrap();
}

#[tokio::test]
async fn a_node_that_moves_is_followed_and_one_that_left_is_let_go() {
    let ca = ca();
    let (old, new) = (
        Node::start(&ca, Behaviour::Serve),
        Node::start(&ca, Behaviour::Serve),
    );
    let asker = Asker::new(&ca);
    asker.read(&old.peer(), 0, 10).await.unwrap();
    asker.read(&new.peer(), 0, 10).await.unwrap();
    assert_eq!(new.service.callers.lock().len(), 1);
    assert_eq!(asker.metrics.connections.get(), 1);
    asker.client.retain(|_| false);
    assert_eq!(asker.metrics.connections.get(), 0);
    eventually("both connections are closed", || {
        old.metrics.connections.get() + new.metrics.connections.get() == 0
    })
    .await;
}

#[tokio::test]
async fn a_replaced_identity_serves_new_connections() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Serve);
    let asker = Asker::new(&ca);
    asker.read(&node.peer(), 0, 10).await.unwrap();
    let fresh = ca.issue(PeerRole::Node(NodeId(1))).unwrap();
    quic::replace_identity(node.server.endpoint(), &fresh).unwrap();
    asker
        .client
        .replace_identity(&ca.issue(PeerRole::Node(NodeId(5))).unwrap())
        .unwrap();
    asker.client.retain(|_| false);
    asker.read(&node.peer(), 0, 10).await.unwrap();
    let callers = node.service.callers.lock().clone();
    assert_eq!(callers, [PeerRole::Client, PeerRole::Node(NodeId(5))]);
}

/// No limit is asserted: the figure is for whoever reads the log of the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput_over_loopback_is_printed() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Serve);
    let asker = Arc::new(Asker::new(&ca));
    asker.read(&node.peer(), 0, 1 << 20).await.unwrap();
    let start = std::time::Instant::now();
    let tasks = TaskTracker::new();
    for _ in 0..4 {
        let (asker, peer) = (Arc::clone(&asker), node.peer());
        tasks.spawn(async move {
            for i in 0..16 {
                let data = asker.read(&peer, i, 1 << 20).await.unwrap();
                assert_eq!(data.bytes.len(), 1 << 20);
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    let mib = 64.0 / start.elapsed().as_secs_f64();
    eprintln!("64 MiB in 1 MiB requests, 4 at a time: {mib:.0} MiB/s (debug build)");
    assert_eq!(asker.metrics.received_bytes.get(), 65 << 20);
}
