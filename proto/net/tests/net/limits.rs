//! What a server lets nobody do to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_net::block_server::ServerLimits;
use millpond_net::metrics::{RejectLabels, RejectReason};
use millpond_net::quic;
use millpond_net::tls::PeerRole;
use millpond_proto::ErrorKind;
use millpond_proto::wire::frame::{RESPONSE_HEADER_LEN, Request, ResponseHead};
use quinn::{Connection, RecvStream};
use tokio_util::task::TaskTracker;

use super::support::{Asker, Behaviour, NODE, Node, ca, eventually, read, soon};

fn start(behaviour: Behaviour, limits: ServerLimits) -> (millpond_net::ca::ClusterCa, Node) {
    let ca = ca();
    let node = Node::start_with(&ca, behaviour, "127.0.0.1:0".parse().unwrap(), limits);
    (ca, node)
}

/// A connection without the manners of our client.
async fn raw(ca: &millpond_net::ca::ClusterCa, node: &Node) -> (quinn::Endpoint, Connection) {
    let endpoint = quic::client_endpoint(&ca.issue(PeerRole::Client).unwrap()).unwrap();
    let connecting = endpoint.connect(node.addr, &NODE.to_string()).unwrap();
    (endpoint, connecting.await.unwrap())
}

async fn head(recv: &mut RecvStream) -> ResponseHead {
    let mut bytes = [0; RESPONSE_HEADER_LEN];
    recv.read_exact(&mut bytes).await.unwrap();
    ResponseHead::decode(&bytes).unwrap()
}

fn rejected(node: &Node, reason: RejectReason) -> u64 {
    node.metrics
        .rejected
        .get_or_create(&RejectLabels { reason })
        .get()
}

#[tokio::test]
async fn malformed_requests_are_answered_counted_and_forgotten() {
    let limits = ServerLimits {
        request_timeout: Duration::from_millis(300),
        ..ServerLimits::default()
    };
    let (ca, node) = start(Behaviour::Serve, limits);
    let (_endpoint, connection) = raw(&ca, &node).await;
    let good = read(0, 10).encode().unwrap();
    let mut version = good.clone();
    version[2] = 9;
    let mut long_source = good.clone();
    long_source[6..8].copy_from_slice(&u16::MAX.to_le_bytes());
    let mut bad_source = good.clone();
    bad_source[6..8].copy_from_slice(&3u16.to_le_bytes());
    bad_source.extend_from_slice(&[0xff; 3]);
    let mut past_any_block = good.clone();
    past_any_block[40..48].copy_from_slice(&[0xff; 8]);
    let mut unknown_op = good.clone();
    unknown_op[3] = 200;
    let cases: [(&[u8], ErrorKind); 8] = [
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\nAccept: everything/at-all\r\n\r\n",
            ErrorKind::Invalid,
        ),
        (b"", ErrorKind::Invalid),
        (&good[..20], ErrorKind::Invalid),
        (&version, ErrorKind::Unsupported),
        (&long_source, ErrorKind::Invalid),
        (&bad_source, ErrorKind::Invalid),
        (&past_any_block, ErrorKind::Invalid),
        (&unknown_op, ErrorKind::Invalid),
    ];
    for (bytes, kind) in cases {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let head = head(&mut recv).await;
        assert_eq!(
            head.outcome,
            Err(kind),
            "{}",
            String::from_utf8_lossy(bytes)
        );
        let message = recv.read_to_end(1 << 14).await.unwrap();
        assert_eq!(message.len(), head.trailer_len as usize);
    }
    assert_eq!(rejected(&node, RejectReason::Malformed), 8);

    // One that is begun and never ended.
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&good[..30]).await.unwrap();
    assert_eq!(head(&mut recv).await.outcome, Err(ErrorKind::Timeout));

    assert!(
        node.service.callers.lock().is_empty(),
        "none reached the service"
    );
    // The connection goes on.
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&good).await.unwrap();
    send.finish().unwrap();
    assert_eq!(head(&mut recv).await.outcome, Ok(()));
}

#[tokio::test]
async fn more_requests_than_allowed_are_told_busy_at_once() {
    let limits = ServerLimits {
        requests: 6,
        requests_per_connection: 4,
        ..ServerLimits::default()
    };
    let (ca, node) = start(Behaviour::Hang, limits);
    let frame = read(0, 10).encode().unwrap();
    let open = async |connection: &Connection| {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&frame).await.unwrap();
        recv
    };
    let inside = || node.service.inside.load(Ordering::SeqCst);
    let (_endpoint, one) = raw(&ca, &node).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(open(&one).await);
    }
    eventually("four are inside", || inside() == 4).await;
    let mut fifth = open(&one).await;
    assert_eq!(head(&mut fifth).await.outcome, Err(ErrorKind::Busy));

    let (_endpoint, two) = raw(&ca, &node).await;
    held.push(open(&two).await);
    held.push(open(&two).await);
    eventually("six are inside", || inside() == 6).await;
    let mut seventh = open(&two).await;
    assert_eq!(head(&mut seventh).await.outcome, Err(ErrorKind::Busy));
    assert_eq!(rejected(&node, RejectReason::Busy), 2);

    node.behave(Behaviour::Serve);
    drop(held);
    eventually("the places are free again", || inside() == 0).await;
    Asker::new(&ca).read(&node.peer(), 0, 10).await.unwrap();
}

#[tokio::test]
async fn more_connections_than_allowed_are_refused() {
    let limits = ServerLimits {
        connections: 1,
        ..ServerLimits::default()
    };
    let (ca, node) = start(Behaviour::Serve, limits);
    let (endpoint, first) = raw(&ca, &node).await;
    let second = endpoint.connect(node.addr, &NODE.to_string()).unwrap();
    assert!(second.await.is_err());
    assert_eq!(rejected(&node, RejectReason::Connections), 1);
    first.close(0u32.into(), b"");
    eventually("the place is free", || node.metrics.connections.get() == 0).await;
    Asker::new(&ca).read(&node.peer(), 0, 10).await.unwrap();
}

#[tokio::test]
async fn bytes_in_flight_stay_within_their_limit() {
    const LIMIT: u64 = 1 << 20;
    let limits = ServerLimits {
        in_flight_bytes: LIMIT,
        longest_wait: Duration::from_secs(600),
        ..ServerLimits::default()
    };
    let (ca, node) = start(Behaviour::Serve, limits);
    let asker = Arc::new(Asker::new(&ca));
    let tasks = TaskTracker::new();
    for i in 0..24 {
        let (asker, peer) = (Arc::clone(&asker), node.peer());
        tasks.spawn(async move {
            asker.read(&peer, i, 400_000).await.unwrap();
        });
    }
    tasks.close();
    let mut peak = 0;
    while !tasks.is_empty() {
        peak = peak.max(node.metrics.in_flight_bytes.get());
        tokio::task::yield_now().await;
    }
    assert!(peak > 0 && peak as u64 <= LIMIT, "{peak}");
    // A block larger than the limit passes alone.
    asker.read(&node.peer(), 0, 3 << 20).await.unwrap();
    eventually("all are given back", || {
        node.metrics.in_flight_bytes.get() == 0
    })
    .await;
}

/// Who waits for memory is told while there is time to ask elsewhere, not when there is none.
#[tokio::test]
async fn who_waits_too_long_for_memory_is_told_busy() {
    let limits = ServerLimits {
        in_flight_bytes: 1 << 20,
        longest_wait: Duration::from_millis(100),
        slow_reader_timeout: Duration::from_secs(600),
        ..ServerLimits::default()
    };
    let (ca, node) = start(Behaviour::Serve, limits);
    // More than the windows let through, and never read: it holds all there is.
    let (_endpoint, greedy) = raw(&ca, &node).await;
    let (mut send, mut held) = greedy.open_bi().await.unwrap();
    send.write_all(&read(0, 48 << 20).encode().unwrap())
        .await
        .unwrap();
    assert_eq!(head(&mut held).await.outcome, Ok(()));
    let asker = Asker::new(&ca);
    for turn in 1..4 {
        let error = asker.read(&node.peer(), 0, 1000).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert_eq!(rejected(&node, RejectReason::Busy), turn);
    }
    // What needs no memory is answered.
    let stats = Request {
        op: millpond_proto::wire::frame::Op::Probe,
        ..read(0, 0)
    };
    let peer = node.peer();
    let answer = asker.client.request(&peer, &stats, soon(20_000));
    assert_eq!(answer.await.unwrap().head.data_len, 0);
    greedy.close(0u32.into(), b"");
    eventually("it is given back", || {
        node.metrics.in_flight_bytes.get() == 0
    })
    .await;
    asker.read(&node.peer(), 0, 1000).await.unwrap();
}

/// A flood of streams on which nothing comes takes the places of its own connection alone.
#[tokio::test]
async fn streams_without_a_request_keep_nobody_else_out() {
    let limits = ServerLimits {
        requests: 4,
        requests_per_connection: 16,
        request_timeout: Duration::from_secs(600),
        ..ServerLimits::default()
    };
    let (ca, node) = start(Behaviour::Serve, limits);
    let (_endpoint, flood) = raw(&ca, &node).await;
    let frame = read(0, 10).encode().unwrap();
    let mut streams = Vec::new();
    for _ in 0..64 {
        let (mut send, recv) = flood.open_bi().await.unwrap();
        send.write_all(&frame[..10]).await.unwrap();
        streams.push((send, recv));
    }
    // Those beyond its share are told so, the others wait for the rest of their requests.
    eventually("the flood is cut off", || {
        rejected(&node, RejectReason::Busy) == 48
    })
    .await;
    let asker = Asker::new(&ca);
    for _ in 0..8 {
        asker.read(&node.peer(), 0, 10).await.unwrap();
    }
    assert_eq!(rejected(&node, RejectReason::Busy), 48);
    flood.close(0u32.into(), b"");
    eventually("its connection is gone", || {
        node.metrics.connections.get() == 1
    })
    .await;
}

/// One that begins a request and leaves it at that is given up and counted.
#[tokio::test]
async fn a_stream_whose_request_never_ends_is_given_up() {
    let limits = ServerLimits {
        request_timeout: Duration::from_millis(50),
        ..ServerLimits::default()
    };
    let (ca, node) = start(Behaviour::Serve, limits);
    let (_endpoint, connection) = raw(&ca, &node).await;
    let frame = read(0, 10).encode().unwrap();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&frame[..10]).await.unwrap();
        streams.push((send, recv));
    }
    eventually("all are given up", || {
        rejected(&node, RejectReason::Malformed) == 8
    })
    .await;
    assert!(node.service.callers.lock().is_empty());
}

#[tokio::test]
async fn a_caller_that_reads_nothing_is_dropped() {
    let limits = ServerLimits {
        slow_reader_timeout: Duration::from_millis(300),
        ..ServerLimits::default()
    };
    let (ca, node) = start(Behaviour::Serve, limits);
    let (_endpoint, connection) = raw(&ca, &node).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    // More than the stream's window, so that the server must wait for the reader.
    send.write_all(&read(0, 48 << 20).encode().unwrap())
        .await
        .unwrap();
    send.finish().unwrap();
    assert_eq!(head(&mut recv).await.outcome, Ok(()));
    eventually("the server gives up", || {
        node.service.undelivered.load(Ordering::SeqCst) == 1
    })
    .await;
    eventually("nothing is held any more", || {
        node.metrics.in_flight_bytes.get() == 0 && node.metrics.in_flight.get() == 0
    })
    .await;
    let end = recv.read_to_end(64 << 20).await;
    assert!(end.is_err(), "the caller sees a reset, not an end");
}

#[tokio::test]
async fn shutdown_lets_requests_in_flight_end() {
    let (ca, node) = start(Behaviour::Serve, ServerLimits::default());
    let asker = Arc::new(Asker::new(&ca));
    asker.read(&node.peer(), 0, 10).await.unwrap();
    let request = read(0, 8 << 20);
    let response = asker
        .client
        .request(&node.peer(), &request, soon(20_000))
        .await
        .unwrap();
    let tasks = TaskTracker::new();
    let reading = tasks.spawn(response.read_data());
    let peer = node.peer();
    node.server.shutdown().await;
    assert_eq!(reading.await.unwrap().unwrap().bytes.len(), 8 << 20);
    let error = asker
        .client
        .request(&peer, &read(0, 10), soon(3000))
        .await
        .unwrap_err();
    assert!(error.kind().try_next_source(), "{error}");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let limits = ServerLimits {
        drain_timeout: Duration::from_millis(200),
        ..ServerLimits::default()
    };
    let (ca, node) = start(Behaviour::Hang, limits);
    let asker = Arc::new(Asker::new(&ca));
    let (peer, in_task) = (node.peer(), Arc::clone(&asker));
    let tasks = TaskTracker::new();
    let hanging = tasks.spawn(async move { in_task.read(&peer, 0, 10).await.unwrap_err() });
    eventually("it hangs", || {
        node.service.inside.load(Ordering::SeqCst) == 1
    })
    .await;
    node.server.shutdown().await;
    let error = hanging.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// Bytes per packet decide throughput: the path must carry the measured size, both ways.
#[tokio::test]
async fn datagrams_grow_to_the_measured_size() {
    let (ca, node) = start(Behaviour::Serve, ServerLimits::default());
    let (_endpoint, connection) = raw(&ca, &node).await;
    let frame = read(0, 2 << 20).encode().unwrap();
    let deadline = soon(15_000);
    loop {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&frame).await.unwrap();
        send.finish().unwrap();
        let before = connection.stats().udp_rx;
        let got = recv.read_to_end(4 << 20).await.unwrap().len() as u64;
        let after = connection.stats();
        let datagrams = after.udp_rx.datagrams - before.datagrams;
        // Theirs: about 6500 bytes each, a few small ones allowed. Ours: as discovered.
        let theirs = got / datagrams.max(1);
        if theirs > 5000 && after.path.current_mtu == quic::MAX_DATAGRAM {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{theirs} bytes a datagram, MTU {}",
            after.path.current_mtu
        );
    }
}

/// A deadline in the request holds at the server, whatever the caller does later.
#[tokio::test]
async fn the_callers_deadline_ends_the_work() {
    let (ca, node) = start(Behaviour::Hang, ServerLimits::default());
    let (_endpoint, connection) = raw(&ca, &node).await;
    let frame = Request {
        deadline_ms: 200,
        ..read(0, 10)
    };
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&frame.encode().unwrap()).await.unwrap();
    send.finish().unwrap();
    let mut byte = [0];
    let reset = recv.read_exact(&mut byte).await.unwrap_err();
    let code = millpond_proto::wire::status::to_code(ErrorKind::Timeout);
    assert!(reset.to_string().contains(&code.to_string()), "{reset}");
    assert_eq!(node.service.inside.load(Ordering::SeqCst), 0);
}
