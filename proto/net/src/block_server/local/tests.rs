//! Who is let in, and what they may do.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use millpond_proto::checksum::page_checksums;
use millpond_proto::wire::frame::Op;
use millpond_proto::wire::local::{
    ANSWER_LEN, Answer, Ask, CHALLENGE_LEN, Challenge, Hello, Shared as What,
};
use millpond_proto::{BlockId, Epoch, FileId};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::{Reply, ServerLimits, reply};
use super::*;
use crate::local::{End, receive_all, send};
use crate::metrics::{LocalAnswer, LocalAnswerLabels, RejectLabels, ServerMetrics};

fn door(users: Vec<u32>) -> Door {
    Door {
        name: "a".to_owned(),
        host: [1; 16],
        master: [2; 32],
        users,
        own: 500,
        connections: Arc::new(Semaphore::new(1)),
    }
}

#[test]
fn root_the_nodes_own_user_and_those_named_are_let_in() {
    let door = door(vec![7]);
    for user in [0, 500, 7] {
        assert!(door.lets_in(user), "{user}");
    }
    for user in [1, 6, 8, 499, 65_534, u32::MAX] {
        assert!(!door.lets_in(user), "{user}");
    }
}

#[test]
fn only_clients_on_this_host_are_told_a_secret_of_their_own() {
    let door = door(Vec::new());
    let asks = |caller, host| {
        let request = Request {
            op: Op::Local,
            epoch: Epoch(0),
            block: BlockId::new(FileId(host), 0),
            offset: 0,
            len: 0,
            file_size: 0,
            deadline_ms: 0,
            source: None,
            query: None,
        };
        door.offer(caller, &request)
    };
    let one = asks(PeerRole::Client, [1; 16]).unwrap();
    let other = asks(PeerRole::Client, [1; 16]).unwrap();
    assert_ne!((one.client, one.secret), (other.client, other.secret));
    assert_eq!(door.secret(&one.client).0, one.secret);
    let elsewhere = asks(PeerRole::Client, [3; 16]).unwrap_err();
    assert_eq!(elsewhere.0, ErrorKind::NotFound);
    let node = asks(PeerRole::Node(NodeId(1)), [1; 16]).unwrap_err();
    assert_eq!(node.0, ErrorKind::Denied);
}

/// Block 0 is a file, block 1 in memory, all others are not here.
struct Service {
    content: Bytes,
    damaged: AtomicUsize,
}

#[async_trait]
impl BlockService for Service {
    fn epoch(&self) -> Epoch {
        Epoch(3)
    }

    async fn serve(&self, _: PeerRole, _: Request, _: Reply) -> Result<(), NetError> {
        Ok(())
    }

    async fn share(&self, ask: &Ask) -> Option<LocalHit> {
        self.damaged
            .fetch_add(usize::from(ask.damaged), Ordering::SeqCst);
        match ask.block.index {
            0 => {
                let mut file = tempfile::tempfile().unwrap();
                io::Write::write_all(&mut file, &self.content).unwrap();
                Some(LocalHit::File {
                    file,
                    start: 0,
                    len: self.content.len() as u32,
                    checksums: page_checksums(&self.content),
                })
            }
            1 => {
                let end = (ask.offset + ask.len) as usize;
                let data = self.content.slice(ask.offset as usize..end);
                Some(LocalHit::Bytes {
                    checksums: page_checksums(&data),
                    data,
                    tier: Tier::Memory,
                })
            }
            _ => None,
        }
    }
}

/// A node's socket without the rest of the node.
struct Node {
    name: String,
    secret: ([u8; 16], Secret),
    metrics: Arc<ServerMetrics>,
    stop: CancellationToken,
}

impl Node {
    fn start(limits: ServerLimits, connections: usize, users: Vec<u32>) -> Self {
        let socket = LocalSocket::bind(NodeId(1), users).unwrap();
        let (listener, door) = socket.with_connections(connections).open();
        let door = Arc::new(door);
        let metrics = Arc::new(ServerMetrics::default());
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            service: Arc::new(Service {
                content: (0..4_000_000u32).map(|i| ((i * 7) >> 4) as u8).collect(),
                damaged: AtomicUsize::new(0),
            }),
            door: Some(Arc::clone(&door)),
            requests: Arc::new(Semaphore::new(limits.requests)),
            bytes: Arc::new(Semaphore::new(reply::permits(limits.in_flight_bytes))),
            connections: Arc::new(Semaphore::new(1)),
            limits,
            metrics: Arc::clone(&metrics),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        let client = [9; 16];
        let (name, secret) = (door.name.clone(), door.secret(&client));
        shared.tasks.clone().spawn(accept(listener, door, shared));
        Self {
            name,
            secret: (client, secret),
            metrics,
            stop,
        }
    }

    fn standard() -> Self {
        Self::start(ServerLimits::default(), 8, Vec::new())
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(format!("\0{}", self.name))
            .await
            .unwrap()
    }

    /// A connection that has shown who it is.
    async fn enter(&self) -> UnixStream {
        let stream = self.connect().await;
        let (client, secret) = &self.secret;
        let hello = Hello {
            client: *client,
            nonce: [1; 32],
        };
        send(&stream, &hello.encode(), None).await.unwrap();
        let mut bytes = [0; CHALLENGE_LEN];
        receive_all(&stream, &mut bytes, &mut None).await.unwrap();
        let challenge = Challenge::decode(&bytes).unwrap();
        let expected = secret.proof(End::Node, &hello.nonce, &challenge.nonce);
        assert!(expected == challenge.proof, "the node proves itself first");
        let proof = secret.proof(End::Client, &hello.nonce, &challenge.nonce);
        send(&stream, proof.as_bytes(), None).await.unwrap();
        stream
    }

    fn rejected(&self, reason: RejectReason) -> u64 {
        let labels = RejectLabels { reason };
        self.metrics.rejected.get_or_create(&labels).get()
    }

    fn answered(&self, answer: LocalAnswer) -> u64 {
        let labels = LocalAnswerLabels { answer };
        self.metrics.local_answers.get_or_create(&labels).get()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn ask(index: u64, offset: u32, len: u32) -> Ask {
    Ask {
        block: BlockId::new(FileId([2; 16]), index),
        offset,
        len,
        damaged: false,
    }
}

/// Asks and reads the head of the answer, with its checksums.
async fn exchange(stream: &UnixStream, ask: &Ask) -> (Answer, Vec<u8>, Option<OwnedFd>) {
    send(stream, &ask.encode(), None).await.unwrap();
    let (mut head, mut descriptor) = ([0; ANSWER_LEN], None);
    receive_all(stream, &mut head, &mut descriptor)
        .await
        .unwrap();
    let answer = Answer::decode(&head, ask).unwrap();
    let mut sums = vec![0; answer.checksums_len()];
    receive_all(stream, &mut sums, &mut descriptor)
        .await
        .unwrap();
    (answer, sums, descriptor)
}

/// Waits for the other end to close.
async fn is_closed(stream: &UnixStream) {
    while receive_all(stream, &mut [0; 1], &mut None).await.is_ok() {}
}

async fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !met() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn files_bytes_and_neither_are_answered_on_one_connection() {
    let node = Node::standard();
    let stream = node.enter().await;
    for _ in 0..3 {
        let (answer, _, descriptor) = exchange(&stream, &ask(0, 5, 10)).await;
        let len = 4_000_000;
        assert_eq!(answer.what, What::File { start: 0, len });
        assert_eq!((answer.epoch, answer.tier), (Epoch(3), Tier::Disk));
        assert!(descriptor.is_some());
        let (answer, _, descriptor) = exchange(&stream, &ask(1, 65_536, 65_536)).await;
        let (len, pieces) = (65_536, 1);
        assert_eq!(answer.what, What::Bytes { len, pieces });
        assert!(descriptor.is_none());
        let mut data = vec![0; 65_536];
        receive_all(&stream, &mut data, &mut None).await.unwrap();
        assert!(
            (65_536..)
                .zip(&data)
                .all(|(i, b): (u32, _)| *b == ((i * 7) >> 4) as u8)
        );
        let (answer, ..) = exchange(&stream, &ask(2, 0, 1)).await;
        assert_eq!(answer.what, What::Elsewhere);
    }
    // A range that the file does not have.
    let (answer, ..) = exchange(&stream, &ask(0, 3_999_999, 2)).await;
    assert_eq!(answer.what, What::Elsewhere);
    eventually("all are counted", || {
        node.answered(LocalAnswer::Elsewhere) == 4
    })
    .await;
    assert_eq!(node.answered(LocalAnswer::Descriptor), 3);
    assert_eq!(node.answered(LocalAnswer::Bytes), 3);
    assert_eq!(node.metrics.in_flight_bytes.get(), 0);
}

#[tokio::test]
async fn who_does_not_know_the_secret_is_shown_out() {
    let node = Node::standard();
    let hello = Hello {
        client: [9; 16],
        nonce: [1; 32],
    };
    // The proof of the other end, sent back; and one of an older secret.
    for old in [false, true] {
        let stream = node.connect().await;
        send(&stream, &hello.encode(), None).await.unwrap();
        let mut bytes = [0; CHALLENGE_LEN];
        receive_all(&stream, &mut bytes, &mut None).await.unwrap();
        let challenge = Challenge::decode(&bytes).unwrap();
        let other = Secret([0; 32]).proof(End::Client, &hello.nonce, &challenge.nonce);
        let proof = if old {
            *other.as_bytes()
        } else {
            challenge.proof
        };
        send(&stream, &proof, None).await.unwrap();
        is_closed(&stream).await;
    }
    let stream = node.connect().await;
    send(&stream, &[b'x'; 56], None).await.unwrap();
    is_closed(&stream).await;
    eventually("three are counted", || {
        node.rejected(RejectReason::Denied) == 3
    })
    .await;
    eventually("none is left", || node.metrics.local_connections.get() == 0).await;
}

#[tokio::test]
async fn asks_that_make_no_sense_end_the_connection() {
    let node = Node::standard();
    for bad in [
        [b'x'; 40],
        ask(0, u32::MAX, u32::MAX).encode(),
        ask(0, 0, 0).encode(),
    ] {
        let stream = node.enter().await;
        send(&stream, &bad, None).await.unwrap();
        is_closed(&stream).await;
    }
    assert_eq!(node.rejected(RejectReason::Malformed), 3);
}

/// Else descriptors would pile up in the socket, for which the node answers to the system.
#[tokio::test]
async fn who_asks_again_before_reading_is_shown_out() {
    let node = Node::standard();
    let stream = node.enter().await;
    let one = ask(0, 0, 1).encode();
    send(&stream, &[one, one, one].concat(), None)
        .await
        .unwrap();
    is_closed(&stream).await;
    eventually("it is counted", || {
        node.rejected(RejectReason::Malformed) == 1
    })
    .await;
    assert_eq!(node.answered(LocalAnswer::Descriptor), 1);
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_at_once() {
    let node = Node::start(ServerLimits::default(), 2, Vec::new());
    let (one, two) = (node.enter().await, node.enter().await);
    is_closed(&node.connect().await).await;
    assert_eq!(node.rejected(RejectReason::Connections), 1);
    drop(one);
    eventually("a place is free", || {
        node.metrics.local_connections.get() == 1
    })
    .await;
    // The place is given back a moment after the count.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stream = node.connect().await;
        let hello = Hello {
            client: [9; 16],
            nonce: [1; 32],
        };
        let sent = send(&stream, &hello.encode(), None).await;
        let mut bytes = [0; CHALLENGE_LEN];
        if sent.is_ok() && receive_all(&stream, &mut bytes, &mut None).await.is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "never let in again");
    }
    drop(two);
}

#[tokio::test]
async fn who_reads_nothing_holds_memory_for_a_while_only() {
    let limits = ServerLimits {
        slow_reader_timeout: Duration::from_millis(100),
        ..ServerLimits::default()
    };
    let node = Node::start(limits, 8, Vec::new());
    let stream = node.enter().await;
    let much = ask(1, 0, 4_000_000);
    send(&stream, &much.encode(), None).await.unwrap();
    eventually("the node gives up", || {
        node.metrics.local_connections.get() == 0
    })
    .await;
    assert_eq!(node.metrics.in_flight_bytes.get(), 0);
    assert_eq!(node.answered(LocalAnswer::Bytes), 0);
}

/// Memory for answers is shared with those over QUIC; who gets none is sent there to wait.
#[tokio::test]
async fn what_finds_no_memory_or_place_is_sent_elsewhere() {
    let limits = ServerLimits {
        in_flight_bytes: 1 << 20,
        slow_reader_timeout: Duration::from_secs(600),
        ..ServerLimits::default()
    };
    let node = Node::start(limits, 8, Vec::new());
    let greedy = node.enter().await;
    send(&greedy, &ask(1, 0, 4_000_000).encode(), None)
        .await
        .unwrap();
    eventually("it holds all", || {
        node.metrics.in_flight_bytes.get() == 4_000_000
    })
    .await;
    let stream = node.enter().await;
    let (answer, ..) = exchange(&stream, &ask(1, 0, 1)).await;
    assert_eq!(answer.what, What::Elsewhere);
    let damaged = Ask {
        damaged: true,
        ..ask(1, 0, 1)
    };
    let (answer, ..) = exchange(&stream, &damaged).await;
    assert_eq!(answer.what, What::Elsewhere);
    // A file is no memory.
    let (answer, ..) = exchange(&stream, &ask(0, 0, 1)).await;
    assert!(matches!(answer.what, What::File { .. }));
    assert_eq!(node.rejected(RejectReason::Busy), 2);
    drop(greedy);
    eventually("it is given back", || {
        node.metrics.in_flight_bytes.get() == 0
    })
    .await;

    let none = ServerLimits {
        requests: 0,
        ..ServerLimits::default()
    };
    let node = Node::start(none, 8, Vec::new());
    let stream = node.enter().await;
    let (answer, ..) = exchange(&stream, &ask(0, 0, 1)).await;
    assert_eq!(answer.what, What::Elsewhere);
    assert_eq!(node.rejected(RejectReason::Busy), 1);
}

#[tokio::test]
async fn a_stopping_node_ends_its_connections() {
    let node = Node::standard();
    let stream = node.enter().await;
    exchange(&stream, &ask(0, 0, 1)).await;
    node.stop.cancel();
    is_closed(&stream).await;
}

mod user;
