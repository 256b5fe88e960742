//! Peers that lie, give up, hang, vanish or are not there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_net::NetError;
use millpond_net::block_client::{BlockClientConfig, Peer};
use millpond_net::metrics::{OpLabel, Outcome, OutcomeLabels, RequestLabels};
use millpond_proto::ErrorKind;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::support::{Asker, Behaviour, EPOCH, NODE, Node, Wire, ca, eventually, read, soon};

fn impatient() -> BlockClientConfig {
    BlockClientConfig {
        connect_timeout: Duration::from_millis(600),
        silence_timeout: Duration::from_millis(600),
        stall_timeout: Duration::from_secs(10),
        backoff: Duration::from_millis(400),
        longest_backoff: Duration::from_millis(800),
        ..BlockClientConfig::default()
    }
}

fn count(asker: &Asker, outcome: Outcome) -> u64 {
    let labels = RequestLabels {
        op: OpLabel::Read,
        outcome,
    };
    asker.metrics.requests.get_or_create(&labels).get()
}

#[tokio::test]
async fn a_page_that_does_not_match_its_checksum_is_never_handed_out() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::WrongChecksum);
    let asker = Asker::new(&ca);
    let error = asker.read(&node.peer(), 65_536, 200_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        matches!(error, NetError::Corrupt { page: 2, .. }),
        "{error}"
    );
    assert_eq!(asker.metrics.corrupt_pages.get(), 1);
    assert_eq!(count(&asker, Outcome::Corrupt), 1);
}

#[tokio::test]
async fn a_refusal_arrives_with_kind_message_and_epoch() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Refuse);
    let asker = Asker::new(&ca);
    let error = asker.read(&node.peer(), 0, 100).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.epoch()),
        (ErrorKind::Stale, Some(EPOCH))
    );
    assert!(error.to_string().contains("the object changed"), "{error}");
    assert!(!asker.client.is_down(NODE), "a refusal is a sign of life");
}

#[tokio::test]
async fn an_answer_given_up_half_way_is_an_error_with_its_reason() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::AbortHalfWay);
    let asker = Asker::new(&ca);
    let error = asker.read(&node.peer(), 0, 1 << 20).await.unwrap_err();
    assert!(
        matches!(
            error,
            NetError::Reset {
                kind: ErrorKind::Stale,
                ..
            }
        ),
        "{error}"
    );
    node.behave(Behaviour::DropHalfWay);
    let error = asker.read(&node.peer(), 0, 1 << 20).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    node.behave(Behaviour::Serve);
    asker.read(&node.peer(), 0, 1 << 20).await.unwrap();
}

#[tokio::test]
async fn an_answer_longer_than_asked_for_is_refused_before_it_is_read() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::TooMuch);
    let asker = Asker::new(&ca);
    let error = asker.read(&node.peer(), 0, 1000).await.unwrap_err();
    assert!(matches!(error, NetError::Frame { .. }), "{error}");
    assert!(error.kind().try_next_source());
}

#[tokio::test]
async fn a_service_that_hangs_costs_the_deadline_and_nothing_more() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Hang);
    let asker = Asker::with_config(&ca, impatient());
    let start = Instant::now();
    let error = asker
        .client
        .request(&node.peer(), &read(0, 10), soon(2500))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(
        start.elapsed() >= Duration::from_millis(2500),
        "{:?}",
        start.elapsed()
    );
    // It acknowledged everything all the while: the node is slow, not dead.
    assert!(!asker.client.is_down(NODE));
    eventually("the server gave up too", || {
        node.service.inside.load(Ordering::SeqCst) == 0
    })
    .await;
    node.behave(Behaviour::Serve);
    asker.read(&node.peer(), 0, 10).await.unwrap();
}

#[tokio::test]
async fn a_withdrawn_request_ends_at_the_server_too() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Hang);
    let asker = Asker::new(&ca);
    let peer = node.peer();
    let wanted = read(0, 10);
    let request = asker.client.request(&peer, &wanted, soon(30_000));
    let inside = || node.service.inside.load(Ordering::SeqCst);
    tokio::select! {
        _ = request => panic!("it hangs"),
        () = eventually("the request is inside", || inside() == 1) => {}
    }
    eventually("the service's future is dropped", || inside() == 0).await;

    // The same for an answer that is dropped after its head.
    node.behave(Behaviour::Endless);
    let response = asker
        .client
        .request(&peer, &read(0, 1 << 20), soon(30_000))
        .await
        .unwrap();
    assert_eq!(inside(), 1);
    drop(response);
    eventually("the endless answer ends", || inside() == 0).await;
}

#[tokio::test]
async fn a_dead_node_costs_one_wait_and_is_then_skipped_until_it_returns() {
    let ca = ca();
    // Somebody has the port and never answers.
    let black_hole = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = black_hole.local_addr().unwrap();
    let peer = Peer {
        id: NODE,
        addr: addr.to_string(),
    };
    let asker = Arc::new(Asker::with_config(&ca, impatient()));
    // Everybody who asks meanwhile shares the one wait.
    let tasks = TaskTracker::new();
    let first: Vec<_> = (0..10)
        .map(|_| {
            let (asker, peer) = (Arc::clone(&asker), peer.clone());
            tasks.spawn(async move { asker.read(&peer, 0, 10).await.unwrap_err() })
        })
        .collect();
    for error in first {
        let error = error.await.unwrap();
        assert!(matches!(error, NetError::Connect { .. }), "{error}");
    }
    assert!(asker.client.is_down(NODE));
    let failed = OutcomeLabels {
        outcome: Outcome::Unavailable,
    };
    let dials = || asker.metrics.connects.get_or_create(&failed).get();
    assert_eq!(dials(), 1);
    let error = asker.read(&peer, 0, 10).await.unwrap_err();
    assert!(
        matches!(error, NetError::Down { failures: 1, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(dials(), 1, "it was not dialled again");

    drop(black_hole);
    let _node = Node::start_with(&ca, Behaviour::Serve, addr, Default::default());
    let deadline = soon(15_000);
    while asker.read(&peer, 0, 10).await.is_err() {
        assert!(Instant::now() < deadline, "the node is never used again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!asker.client.is_down(NODE));
}

#[tokio::test]
async fn a_node_that_vanishes_is_told_from_a_slow_one() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Serve);
    let wire = Wire::to(node.addr).await;
    let asker = Arc::new(Asker::with_config(&ca, impatient()));
    asker.read(&wire.peer(), 0, 1 << 20).await.unwrap();

    wire.cut.store(true, Ordering::SeqCst);
    let start = Instant::now();
    let tasks = TaskTracker::new();
    let failing: Vec<_> = (0..5)
        .map(|_| {
            let (asker, peer) = (Arc::clone(&asker), wire.peer());
            tasks.spawn(async move { asker.read(&peer, 0, 10).await.unwrap_err() })
        })
        .collect();
    for error in failing {
        let error = error.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    // Long before their deadline of 20 s.
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(asker.metrics.breaker_opens.get(), 1, "one loss is one loss");
    assert_eq!(asker.metrics.connections.get(), 0);
    let error = asker.read(&wire.peer(), 0, 10).await.unwrap_err();
    assert!(matches!(error, NetError::Down { .. }), "{error}");

    wire.cut.store(false, Ordering::SeqCst);
    let deadline = soon(15_000);
    while asker.read(&wire.peer(), 0, 10).await.is_err() {
        assert!(Instant::now() < deadline, "the node is never used again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_node_that_vanishes_in_the_middle_of_an_answer_is_noticed() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Endless);
    let wire = Wire::to(node.addr).await;
    let asker = Asker::with_config(&ca, impatient());
    let request = read(0, 1 << 20);
    let response = asker
        .client
        .request(&wire.peer(), &request, soon(60_000))
        .await
        .unwrap();
    wire.cut.store(true, Ordering::SeqCst);
    let start = Instant::now();
    let error = response.read_data().await.unwrap_err();
    assert!(matches!(error, NetError::Silent { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(asker.client.is_down(NODE));
}

#[tokio::test]
async fn a_restarted_node_is_dialled_again_at_once() {
    let ca = ca();
    let node = Node::start(&ca, Behaviour::Serve);
    let (addr, peer) = (node.addr, node.peer());
    let asker = Asker::new(&ca);
    asker.read(&peer, 0, 10).await.unwrap();
    node.server.shutdown().await;
    eventually("the client sees the connection close", || {
        asker.metrics.connections.get() == 0 || !asker.client.is_down(NODE)
    })
    .await;
    // The old endpoint lets go of its port when its last task ends.
    let deadline = soon(10_000);
    while std::net::UdpSocket::bind(addr).is_err() {
        assert!(Instant::now() < deadline, "the port is never free");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _node = Node::start_with(&ca, Behaviour::Serve, addr, Default::default());
    asker.read(&peer, 0, 10).await.unwrap();
}

#[tokio::test]
async fn an_address_that_does_not_resolve_is_named() {
    let asker = Asker::with_config(&ca(), impatient());
    let peer = Peer {
        id: NODE,
        addr: "no such host:1".into(),
    };
    let error = asker.read(&peer, 0, 10).await.unwrap_err();
    assert!(error.to_string().contains("no such host"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
