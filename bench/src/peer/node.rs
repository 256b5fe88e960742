//! The node that is asked, by the client's own means of asking: its connection, its identity,
//! its requests, its checks of every checksum.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use millpond_client::{ClientConfig, FileSystem};
use millpond_net::block_client::{BlockClient, Peer};
use millpond_proto::wire::frame::{BlockSource, Op, Request, Tier};
use millpond_proto::{BlockId, BlockSize, Epoch, FileId};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::limits::content::Content;
use crate::limits::{quinn, workers};
use crate::measure::Sample;
use crate::process_cluster::wait_for;
use crate::scenario::Context;

/// Bytes of the file, all of which the node holds in memory: as many as the limit's server.
pub(super) const SET: u64 = quinn::SET;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Requests in flight while all bytes are checked.
const CHECKED_AT_ONCE: usize = 16;
/// How long the client may take to learn of the node and of the mount.
const LEARNS: Duration = Duration::from_secs(20);

/// One node, and a connection to it.
pub(super) struct Node {
    runtime: Handle,
    asker: Arc<Asker>,
    content: Content,
    pids: Vec<u32>,
    /// Where its blocks must be.
    tier: Tier,
}

/// Asks for ranges of one file.
struct Asker {
    client: BlockClient,
    peer: Peer,
    epoch: Epoch,
    block_size: BlockSize,
    file: FileId,
    size: u64,
    source: BlockSource,
}

impl Node {
    /// Connects to the only node of a cluster and has it read the file at `path`, a mount and
    /// a name. Whatever is read from then on must come from `tier`.
    pub(super) fn connect(
        context: &Context,
        cluster: &Cluster,
        path: &str,
        content: Content,
        config: ClientConfig,
        tier: Tier,
    ) -> Result<Self> {
        let filesystem = cluster.client(config)?;
        let runtime = &context.runtime;
        let mounted = || runtime.block_on(filesystem.stat(path)).is_ok();
        wait_for(LEARNS, || {
            let node = filesystem.view().serving().next().is_some();
            (node && mounted()).then_some(())
        })
        .context("the client does not learn of the node and the mount")?;
        let asker = runtime.block_on(Asker::new(&filesystem, path))?;
        let node = Self {
            runtime: runtime.clone(),
            asker: Arc::new(asker),
            content,
            pids: cluster.pids(),
            tier,
        };
        // The first pass fills.
        let whole_block = node.asker.block_size.bytes();
        node.pass(whole_block as u32, false)?;
        Ok(node)
    }

    /// Waits until all bytes come from the tier.
    pub(super) fn wait_for_tier(&self) -> Result<()> {
        let whole_block = self.asker.block_size.bytes() as u32;
        let arrived = wait_for(LEARNS, || self.pass(whole_block, true).ok());
        // What is missing, if anything is.
        arrived.or_else(|_| self.pass(whole_block, true))?;
        Ok(())
    }

    /// What the names of all its block files begin with.
    pub(super) fn name_of_blocks(&self) -> String {
        format!("{}.", self.asker.file)
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> u64 {
        self.asker.block_size.count(self.asker.size)
    }

    /// Reads all bytes once by requests of `request` bytes and compares them; how many. Each
    /// must come from the node's tier.
    pub(super) fn verify(&self, request: u32) -> Result<u64> {
        self.pass(request, true)
    }

    fn pass(&self, request: u32, warm: bool) -> Result<u64> {
        let (asker, content, expected) = (&self.asker, self.content, self.tier);
        let len = u64::from(request);
        let ask = move |number: u64| {
            let asker = Arc::clone(asker);
            async move {
                let offset = number * len;
                let (tier, bytes) = asker.ask(offset, request).await?;
                ensure!(
                    !warm || tier == expected,
                    "the node has bytes at {offset} in tier {tier:?}, not {expected:?}"
                );
                let wrong = content.mismatches(offset, &bytes);
                ensure!(
                    wrong == 0 && bytes.len() as u64 == len,
                    "of {} bytes at {offset} {wrong} are wrong",
                    bytes.len()
                );
                Ok(len)
            }
        };
        let total = stream::iter(0..SET / len)
            .map(ask)
            .buffer_unordered(CHECKED_AT_ONCE)
            .try_fold(0, async |sum, len| Ok(sum + len));
        self.runtime.block_on(total)
    }

    /// Keeps `in_flight` requests of `request` bytes each under way for `duration`; CPU time
    /// of all ends.
    pub(super) fn run(&self, request: u32, in_flight: usize, duration: Duration) -> Result<Sample> {
        let asker = Arc::clone(&self.asker);
        let len = u64::from(request);
        let places = SET / len;
        let ask = move |number: u64| {
            let asker = Arc::clone(&asker);
            async move {
                let (_, bytes) = asker.ask(number % places * len, request).await?;
                Ok(bytes.len() as u64)
            }
        };
        workers::requests(&self.runtime, in_flight, duration, &self.pids, ask)
    }
}

impl Asker {
    async fn new(filesystem: &FileSystem, path: &str) -> Result<Self> {
        let view = filesystem.view();
        let node = view.serving().next().context("there is no node")?;
        let attr = filesystem.stat(path).await?;
        let (_, name) = path.rsplit_once('/').context("no file")?;
        Ok(Self {
            client: filesystem
                .block_client()
                .context("the client asks no nodes")?,
            peer: Peer {
                id: node.id,
                addr: node.addr.clone(),
            },
            epoch: view.epoch,
            block_size: view.block_size,
            file: attr.file_id.context("the file has no id")?,
            size: attr.size,
            source: BlockSource {
                mount: attr.mount.context("the file has no mount")?,
                path: name.to_owned(),
                version: attr.version.context("the file has no version")?,
            },
        })
    }

    /// `len` bytes at `offset`, which lie within one block, as the client would ask for them.
    async fn ask(&self, offset: u64, len: u32) -> Result<(Tier, Bytes)> {
        let block = self.block_size.bytes();
        let request = Request {
            op: Op::Read,
            epoch: self.epoch,
            block: BlockId::new(self.file, offset / block),
            offset: (offset % block) as u32,
            len,
            file_size: self.size,
            deadline_ms: 0,
            source: Some(self.source.clone()),
            query: None,
        };
        let deadline = Instant::now() + DEADLINE;
        let response = self.client.request(&self.peer, &request, deadline).await?;
        let tier = response.head.tier;
        let data = response.read_data().await?;
        Ok((tier, data.bytes))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use millpond_net::block_client::BlockClientConfig;
    use millpond_net::block_server::{BlockServer, BlockService, Reply, ServerLimits};
    use millpond_net::ca::ClusterCa;
    use millpond_net::metrics::{ClientMetrics, ServerMetrics};
    use millpond_net::tls::PeerRole;
    use millpond_net::{NetError, quic};
    use millpond_proto::checksum::{crc32c, pieces};
    use millpond_proto::{ClusterId, FileVersion, MountId, NodeId};

    use super::*;

    /// What a node may do wrong.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Fault {
        None,
        /// A byte that changed on its way.
        Corrupt,
        /// Other bytes, with their own checksums.
        Wrong,
        /// The right bytes from elsewhere.
        Cold,
    }

    struct Service(Fault, Content);

    #[async_trait]
    impl BlockService for Service {
        fn epoch(&self) -> Epoch {
            Epoch(1)
        }

        async fn serve(
            &self,
            _caller: PeerRole,
            request: Request,
            reply: Reply,
        ) -> Result<(), NetError> {
            let at = request.block.index * BlockSize::DEFAULT.bytes() + u64::from(request.offset);
            let mut bytes = self.1.bytes(at, request.len as usize);
            let sums = |bytes: &[u8]| -> Vec<u32> {
                pieces(request.offset, request.len)
                    .map(|piece| &bytes[piece.start as usize..][..piece.len as usize])
                    .map(crc32c)
                    .collect()
            };
            let before = sums(&bytes);
            if matches!(self.0, Fault::Corrupt | Fault::Wrong) && at == 0 {
                bytes[100] ^= 1;
            }
            let sums = match self.0 {
                Fault::Corrupt => before,
                _ => sums(&bytes),
            };
            let tier = match self.0 {
                Fault::Cold => Tier::Ufs,
                _ => Tier::Memory,
            };
            reply.send(tier, bytes.into(), &sums).await
        }
    }

    fn read_all(fault: Fault) -> Result<u64> {
        millpond_process::init_crypto();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _within = runtime.enter();
        let (ca, id) = (ClusterCa::create(&ClusterId([1; 16])).unwrap(), NodeId(1));
        let identity = ca.issue(PeerRole::Node(id)).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let endpoint = quic::server_endpoint(any, &identity).unwrap();
        let addr = endpoint.local_addr().unwrap().to_string();
        let content = Content::new(3, SET);
        let service = Arc::new(Service(fault, content));
        let (limits, metrics) = (ServerLimits::default(), Arc::new(ServerMetrics::default()));
        let server = BlockServer::start(endpoint, service, limits, metrics);
        let endpoint = quic::client_endpoint(&ca.issue(PeerRole::Client).unwrap()).unwrap();
        let metrics = Arc::new(ClientMetrics::default());
        let node = Node {
            runtime: runtime.handle().clone(),
            asker: Arc::new(Asker {
                client: BlockClient::new(endpoint, BlockClientConfig::default(), metrics),
                peer: Peer { id, addr },
                epoch: Epoch(1),
                block_size: BlockSize::DEFAULT,
                file: FileId([2; 16]),
                size: SET,
                source: BlockSource {
                    mount: MountId(1),
                    path: "file".to_owned(),
                    version: FileVersion::ETag("\"1\"".into()),
                },
            }),
            content,
            pids: Vec::new(),
            tier: Tier::Memory,
        };
        let read = node.verify(1 << 20);
        runtime.block_on(server.shutdown());
        read
    }

    #[test]
    fn only_right_bytes_from_memory_count() {
        assert_eq!(read_all(Fault::None).unwrap(), SET);
        for (fault, says) in [
            (Fault::Corrupt, "checksum"),
            (Fault::Wrong, "1 are wrong"),
            (Fault::Cold, "not Memory"),
        ] {
            let error = format!("{:#}", read_all(fault).unwrap_err());
            assert!(error.contains(says), "{fault:?}: {error}");
        }
    }
}
