//! Blocks of a node on the same host: through its Unix socket, and over QUIC where that fails.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_net::block_client::{BlockClient, BlockClientConfig, Data, Peer};
use millpond_net::block_server::{
    BlockServer, BlockService, LocalHit, LocalSocket, Reply, ServerLimits,
};
use millpond_net::ca::ClusterCa;
use millpond_net::metrics::{
    ClientMetrics, LocalAnswer, LocalAnswerLabels, LocalFailure, LocalFailureLabels, ServerMetrics,
    Transport, TransportLabels,
};
use millpond_net::tls::PeerRole;
use millpond_net::{NetError, quic};
use millpond_proto::checksum::{crc32c, page_checksums, pieces};
use millpond_proto::wire::frame::{Request, Tier};
use millpond_proto::wire::local::Ask;
use millpond_proto::{BlockId, Epoch, FileId};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::support::{EPOCH, NODE, ca, content, read, soon};

const LEN: usize = 1_000_000;

/// What the node's socket does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Gives the block's file.
    File,
    /// Gives bytes.
    Memory,
    /// Has nothing.
    Nothing,
    /// Never answers.
    Hang,
}

struct Service {
    manner: Mutex<Manner>,
    /// The block's file.
    path: PathBuf,
    checksums: Vec<u32>,
    /// Asks that said that the file is damaged.
    damaged: Mutex<Vec<(u32, u32)>>,
}

#[async_trait]
impl BlockService for Service {
    fn epoch(&self) -> Epoch {
        EPOCH
    }

    async fn serve(&self, _: PeerRole, request: Request, reply: Reply) -> Result<(), NetError> {
        let (data, sums) = range(request.offset, request.len);
        reply.send(Tier::Memory, data, &sums).await
    }

    async fn share(&self, ask: &Ask) -> Option<LocalHit> {
        let manner = *self.manner.lock();
        if ask.damaged {
            self.damaged.lock().push((ask.offset, ask.len));
        }
        match manner {
            Manner::File if !ask.damaged => Some(LocalHit::File {
                file: File::open(&self.path).ok()?,
                start: 0,
                len: LEN as u32,
                checksums: self.checksums.clone(),
            }),
            Manner::File | Manner::Memory => {
                let (data, checksums) = range(ask.offset, ask.len);
                Some(LocalHit::Bytes {
                    data,
                    checksums,
                    tier: Tier::Memory,
                })
            }
            Manner::Nothing => None,
            Manner::Hang => std::future::pending().await,
        }
    }
}

fn range(offset: u32, len: u32) -> (Bytes, Vec<u32>) {
    let data = content(LEN).slice(offset as usize..(offset + len) as usize);
    let sums = pieces(offset, len)
        .map(|p| crc32c(&data[p.start as usize..(p.start + p.len) as usize]))
        .collect();
    (data, sums)
}

struct World {
    service: Arc<Service>,
    server: BlockServer,
    served: Arc<ServerMetrics>,
    peer: Peer,
    client: BlockClient,
    metrics: Arc<ClientMetrics>,
    dir: tempfile::TempDir,
}

impl World {
    fn new(manner: Manner) -> Self {
        Self::with(manner, &ca(), true)
    }

    fn with(manner: Manner, ca: &ClusterCa, has_socket: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("block");
        std::fs::write(&path, content(LEN)).unwrap();
        let service = Arc::new(Service {
            manner: Mutex::new(manner),
            path,
            checksums: page_checksums(&content(LEN)),
            damaged: Mutex::default(),
        });
        let any = "127.0.0.1:0".parse().unwrap();
        let identity = ca.issue(PeerRole::Node(NODE)).unwrap();
        let endpoint = quic::server_endpoint(any, &identity).unwrap();
        let addr = endpoint.local_addr().unwrap().to_string();
        let socket = has_socket.then(|| LocalSocket::bind(NODE, Vec::new()).unwrap());
        let served = Arc::new(ServerMetrics::default());
        let server = BlockServer::start_with(
            endpoint,
            socket,
            Arc::clone(&service),
            ServerLimits::default(),
            Arc::clone(&served),
        );
        let metrics = Arc::new(ClientMetrics::default());
        let config = BlockClientConfig {
            local: true,
            ..BlockClientConfig::default()
        };
        let endpoint = quic::client_endpoint(&ca.issue(PeerRole::Client).unwrap()).unwrap();
        Self {
            service,
            server,
            served,
            peer: Peer { id: NODE, addr },
            client: BlockClient::new(endpoint, config, Arc::clone(&metrics)),
            metrics,
            dir,
        }
    }

    async fn ask(&self, offset: u32, len: u32) -> Result<Data, NetError> {
        let request = read(offset, len);
        let response = self
            .client
            .request(&self.peer, &request, soon(60_000))
            .await?;
        assert_eq!(response.head.epoch, EPOCH);
        response.read_data().await
    }

    /// Reads a range, which must be right whatever way it comes.
    async fn read(&self, offset: u32, len: u32) {
        let data = self.ask(offset, len).await.unwrap();
        let (bytes, checksums) = range(offset, len);
        assert!(data.bytes == bytes, "{offset}+{len}");
        assert_eq!(data.checksums, checksums);
    }

    /// Reads until something comes by this way.
    async fn read_until(&self, transport: Transport) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.bytes(transport) == 0 {
            assert!(Instant::now() < deadline, "nothing comes by {transport:?}");
            self.read(0, LEN as u32).await;
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn bytes(&self, transport: Transport) -> u64 {
        let labels = TransportLabels { transport };
        self.metrics.read_bytes.get_or_create(&labels).get()
    }

    fn failures(&self, reason: LocalFailure) -> u64 {
        let labels = LocalFailureLabels { reason };
        self.metrics.local_failures.get_or_create(&labels).get()
    }

    fn answers(&self, answer: LocalAnswer) -> u64 {
        let labels = LocalAnswerLabels { answer };
        self.served.local_answers.get_or_create(&labels).get()
    }

    fn behave(&self, manner: Manner) {
        *self.service.manner.lock() = manner;
    }
}

#[tokio::test]
async fn a_block_file_is_asked_for_once_and_read_many_times() {
    let world = World::new(Manner::File);
    world.read_until(Transport::Descriptor).await;
    for i in 0..300 {
        world.read(i * 1117, 1 + i * 2003).await;
    }
    world.read(LEN as u32 - 1, 1).await;
    assert!(world.answers(LocalAnswer::Descriptor) < 300);
    assert!(world.bytes(Transport::Descriptor) > LEN as u64);
    assert_eq!(world.metrics.descriptors.get(), 1);
    world.client.shutdown().await;
    assert_eq!(world.metrics.descriptors.get(), 0);
    world.server.shutdown().await;
}

#[tokio::test]
async fn what_is_in_memory_comes_as_bytes() {
    let world = World::new(Manner::Memory);
    world.read_until(Transport::Socket).await;
    for i in 0..100 {
        world.read(i * 1117, 1 + i * 6007).await;
    }
    assert_eq!(world.bytes(Transport::Descriptor), 0);
}

#[tokio::test]
async fn answers_of_any_kind_can_be_taken_chunk_by_chunk() {
    let world = World::new(Manner::File);
    world.read_until(Transport::Descriptor).await;
    let request = read(7, 300_000);
    let asked = world
        .client
        .request(&world.peer, &request, soon(60_000))
        .await;
    let mut response = asked.unwrap();
    let mut got = Vec::new();
    while let Some(chunk) = response.next_chunk().await.unwrap() {
        got.extend_from_slice(&chunk);
    }
    let (bytes, checksums) = range(7, 300_000);
    assert_eq!(Bytes::from(got), bytes);
    assert_eq!(response.finish().await.unwrap(), checksums);
}

#[tokio::test]
async fn what_the_socket_does_not_have_comes_over_quic_without_a_failure() {
    let world = World::new(Manner::Nothing);
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.answers(LocalAnswer::Elsewhere) < 5 {
        assert!(Instant::now() < deadline);
        world.read(5, 100_000).await;
    }
    assert_eq!(
        world.bytes(Transport::Socket) + world.bytes(Transport::Descriptor),
        0
    );
}

#[tokio::test]
async fn a_node_without_a_socket_is_asked_over_quic() {
    let world = World::with(Manner::File, &ca(), false);
    for i in 0..50 {
        world.read(i, 1000).await;
    }
    assert_eq!(world.bytes(Transport::Quic), 50_000);
    assert!(
        world
            .metrics
            .local_failures
            .get_or_create(&LocalFailureLabels {
                reason: LocalFailure::Connect
            })
            .get()
            == 0
    );
}

/// The client finds out, reads the right bytes nevertheless, and tells the node, which sees
/// for itself.
#[tokio::test]
async fn a_damaged_file_is_told_to_the_node_and_read_as_bytes() {
    let world = World::new(Manner::File);
    let path = world.dir.path().join("block");
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(b"not what was written", 70_000).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.service.damaged.lock().is_empty() {
        assert!(Instant::now() < deadline, "never told");
        world.read(69_000, 5000).await;
    }
    assert_eq!(world.service.damaged.lock()[0], (69_000, 5000));
    assert!(world.failures(LocalFailure::Corrupt) > 0);
    assert!(world.metrics.corrupt_pages.get() > 0);
    // Other pages of the file are as they were.
    let before = world.bytes(Transport::Descriptor);
    world.read(200_000, 100_000).await;
    assert!(world.bytes(Transport::Descriptor) >= before);
}

#[tokio::test]
async fn a_dropped_block_can_be_read_while_its_descriptor_is_kept_and_after() {
    let world = World::new(Manner::File);
    world.read_until(Transport::Descriptor).await;
    std::fs::remove_file(world.dir.path().join("block")).unwrap();
    for i in 0..20 {
        world.read(i * 10_000, 200_000).await;
    }
    // The descriptor is closed soon, so that the room on disk is free; reads go on.
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.metrics.descriptors.get() > 0 {
        assert!(Instant::now() < deadline, "never closed");
        sleep(Duration::from_millis(20)).await;
    }
    world.read(0, LEN as u32).await;
    assert_eq!(world.metrics.descriptors.get(), 0);
}

#[tokio::test]
async fn a_socket_that_does_not_answer_is_left_alone_and_quic_serves() {
    let world = World::new(Manner::Memory);
    world.read_until(Transport::Socket).await;
    world.behave(Manner::Hang);
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.failures(LocalFailure::Timeout) == 0 {
        assert!(Instant::now() < deadline, "never given up");
        world.read(0, 1000).await;
    }
    let quic = world.bytes(Transport::Quic);
    world.read(0, 1000).await;
    assert!(world.bytes(Transport::Quic) >= quic);
    // It is tried again after a while.
    world.behave(Manner::Memory);
    let socket = world.bytes(Transport::Socket);
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.bytes(Transport::Socket) == socket {
        assert!(Instant::now() < deadline, "never tried again");
        world.read(0, 1000).await;
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn requests_under_way_when_the_node_dies_fail_and_kept_descriptors_do_not() {
    let ca = ca();
    let World {
        server,
        peer,
        client,
        metrics,
        dir: _dir,
        service,
        ..
    } = {
        let world = World::with(Manner::File, &ca, true);
        world.read_until(Transport::Descriptor).await;
        world
    };
    server.shutdown().await;
    drop(service);
    let request = |block: u64| Request {
        block: BlockId::new(FileId([3; 16]), block),
        ..read(0, 1000)
    };
    // Block 5 is the one whose descriptor is kept; for the other nobody is there.
    let gone = client.request(&peer, &request(6), soon(20_000)).await;
    assert!(gone.unwrap_err().kind().try_next_source());
    let kept = client.request(&peer, &request(5), soon(20_000)).await;
    match kept {
        Ok(response) => {
            let data = response.read_data().await.unwrap();
            assert_eq!(data.bytes, content(LEN).slice(..1000));
        }
        // A very slow machine: the descriptor was kept for its time.
        Err(error) => assert!(error.kind().try_next_source(), "{error}"),
    }
    assert!(metrics.descriptors.get() <= 1);
}
