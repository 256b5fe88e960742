//! Answers block requests: from memory, from disk, else from a fill.

mod asked;
mod check;
mod paths;
mod shared;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;
use tracing::{Instrument, debug, debug_span};

use millpond_net::NetError;
use millpond_net::block_server::{BlockService, LocalHit, Reply};
use millpond_net::tls::PeerRole;
use millpond_proto::checksum::page_checksums;
use millpond_proto::wire::frame::{BlockSource, Op, Request, Tier};
use millpond_proto::wire::local::Ask;
use millpond_proto::wire::pb;
use millpond_proto::{Epoch, ErrorKind, FileId, Mount, NodeId, Profile};
use millpond_store::{Hit, Policy, Store};

use crate::fill::{FillJob, FillReader, Fills, Joined, error_chain};
use crate::metadata::NodeMetadata;
use crate::metrics::NodeMetrics;
use crate::ufs_table::UfsTable;
use crate::view::CurrentView;

pub use self::asked::Asked;
use self::check::{BlockRange, Refusal};

/// How long a request for a mount that this node does not know waits for a newer view.
const MOUNT_PATIENCE: Duration = Duration::from_secs(1);

/// How often a block may be evicted between being found and being read before the request
/// is refused. Each time means that the tiers turned over in microseconds.
const MAX_TRIES: u32 = 4;

/// What a node answers requests with.
#[derive(Debug)]
pub struct NodeService {
    /// This node.
    pub me: NodeId,
    /// The view in use.
    pub view: Arc<CurrentView>,
    /// The tiers.
    pub store: Store,
    /// The fill engine.
    pub fills: Fills,
    /// The under-stores.
    pub ufs: Arc<UfsTable>,
    /// What stores say of paths.
    pub metadata: Arc<NodeMetadata>,
    /// The counters.
    pub metrics: Arc<NodeMetrics>,
    /// Blocks that clients peeked at and did not find.
    pub asked: Asked,
}

#[async_trait]
impl BlockService for NodeService {
    fn epoch(&self) -> Epoch {
        self.view.load().epoch()
    }

    async fn serve(
        &self,
        caller: PeerRole,
        request: Request,
        reply: Reply,
    ) -> Result<(), NetError> {
        let span = debug_span!("request", op = ?request.op, block = %request.block, %caller);
        async {
            match request.op {
                Op::Read => self.read(request, reply).await,
                Op::Peek => self.peek(request, reply).await,
                Op::Probe => self.probe(&request, reply).await,
                Op::Stats => self.stats(reply).await,
                Op::Stat | Op::List | Op::Forget | Op::Watch => self.paths(request, reply).await,
                Op::Local => {
                    let message = "the server answers this itself";
                    reply.fail(ErrorKind::Unsupported, message).await
                }
            }
        }
        .instrument(span)
        .await
    }

    async fn share(&self, ask: &Ask) -> Option<LocalHit> {
        self.shared(ask).await
    }
}

impl NodeService {
    async fn read(&self, request: Request, mut reply: Reply) -> Result<(), NetError> {
        let range = match BlockRange::of(&request, self.view.load().view().block_size) {
            Ok(range) => range,
            Err(refusal) => return self.refuse(reply, refusal).await,
        };
        for _ in 0..MAX_TRIES {
            match self.held(&request, &mut reply).await {
                Ok(Some(hit)) => {
                    self.metrics.read_served(hit.tier);
                    return self.send(hit, reply).await;
                }
                Ok(None) => {}
                Err(_) => return self.refuse(reply, Refusal::too_much()).await,
            }
            let joined = match self.fill_job(&request, &range).await {
                Ok(job) => self.fills.join(job).map_err(Refusal::from),
                Err(refusal) => Err(refusal),
            };
            match joined {
                Ok(Joined::Present) => {}
                Ok(Joined::Filling(reader)) => {
                    return self.stream(&range, reader, reply, true).await;
                }
                Err(refusal) => return self.refuse(reply, refusal).await,
            }
        }
        let message = "the block is evicted faster than it can be read; the tiers are too small";
        self.refuse(reply, Refusal::new(ErrorKind::Busy, message))
            .await
    }

    /// Another node, or a client that needs a few bytes, asks for what is here already. Bytes
    /// that are arriving from the UFS count as here: asking the UFS a second time would gain
    /// nothing. A request that says where the bytes come from is a client's: a block that
    /// clients ask for again and again is filled after all.
    async fn peek(&self, request: Request, mut reply: Reply) -> Result<(), NetError> {
        let range = match BlockRange::of(&request, self.view.load().view().block_size) {
            Ok(range) => range,
            Err(refusal) => return reply.fail(refusal.kind, refusal.message).await,
        };
        match self.held(&request, &mut reply).await {
            Ok(Some(hit)) => return self.send(hit, reply).await,
            Ok(None) => {}
            Err(_) => {
                let Refusal { kind, message } = Refusal::too_much();
                return reply.fail(kind, message).await;
            }
        }
        match self.fills.peek(&request.block) {
            Some(reader) => self.stream(&range, reader, reply, false).await,
            None if request.source.is_some() && self.asked.is_enough(request.block) => {
                self.read(request, reply).await
            }
            None => reply.fail(ErrorKind::NotFound, "not held here").await,
        }
    }

    async fn probe(&self, request: &Request, reply: Reply) -> Result<(), NetError> {
        let tier = self.store.locate(&request.block);
        reply.send(tier, Bytes::new(), &[]).await
    }

    async fn stats(&self, reply: Reply) -> Result<(), NetError> {
        let stats = self.metrics.node_stats(&self.store);
        let data = Bytes::from(pb::NodeStats::from(stats).encode_to_vec());
        let checksums = page_checksums(&data);
        reply.send(Tier::None, data, &checksums).await
    }

    /// The requested range if a tier holds its block. An error is to be answered with
    /// [`Refusal::too_much`].
    async fn held(&self, request: &Request, reply: &mut Reply) -> Result<Option<Hit>, NetError> {
        let (block, offset, len) = (&request.block, request.offset, request.len);
        if let Some(hit) = self.store.read_memory(block, offset, len) {
            return Ok(Some(hit));
        }
        if self.store.locate(block) == Tier::None {
            return Ok(None);
        }
        // Memory for the bytes of the answer is had before they are read from disk.
        reply.reserve(len).await?;
        Ok(self.store.read(block, offset, len).await)
    }

    async fn send(&self, hit: Hit, reply: Reply) -> Result<(), NetError> {
        let len = hit.data.len() as u64;
        let checksums = hit.checksums;
        reply.send(hit.tier, hit.data, &checksums).await?;
        self.metrics.served_bytes.inc_by(len);
        Ok(())
    }

    /// Passes on the bytes of a fill as they arrive.
    async fn stream(
        &self,
        range: &BlockRange,
        mut reader: FillReader,
        reply: Reply,
        counts: bool,
    ) -> Result<(), NetError> {
        let (mut at, end) = (range.start(), range.end());
        let first = match reader.next(at, end).await {
            Ok(chunk) => chunk,
            Err(error) if counts => return self.refuse(reply, error.into()).await,
            Err(error) => return reply.fail(error.kind(), error.to_string()).await,
        };
        let tier = first.tier;
        let mut checksums = first.checksums;
        at += first.data.len() as u32;
        let mut body = reply.head(tier, end - range.start()).await?;
        body.data(first.data).await?;
        while at < end {
            match reader.next(at, end).await {
                Ok(chunk) => {
                    at += chunk.data.len() as u32;
                    checksums.extend_from_slice(&chunk.checksums);
                    body.data(chunk.data).await?;
                }
                Err(error) => {
                    let kind = error.kind();
                    debug!(error = %error_chain(&error), "broke off in the middle of a block");
                    if counts {
                        self.metrics.read_failed(kind);
                    }
                    body.abort(kind);
                    return Ok(());
                }
            }
        }
        body.finish(&checksums).await?;
        if counts {
            self.metrics.read_served(tier);
        }
        self.metrics
            .served_bytes
            .inc_by(u64::from(end - range.start()));
        Ok(())
    }

    /// What is needed to fill the request's block, with the identity of the file checked:
    /// this is what keeps wrong bytes from being stored under an id.
    async fn fill_job(&self, request: &Request, range: &BlockRange) -> Result<FillJob, Refusal> {
        let Some(source) = &request.source else {
            let message = "a read must name its source";
            return Err(Refusal::new(ErrorKind::Invalid, message));
        };
        let BlockSource {
            mount,
            path,
            version,
        } = source;
        let Some(mount) = self.view.mount(*mount, MOUNT_PATIENCE).await else {
            let version = self.view.load().view().version;
            let message = format!("mount {mount} is not known here (view {version})");
            return Err(Refusal::new(ErrorKind::Unavailable, message));
        };
        let ufs = self.ufs.of(&mount).await.map_err(|error| Refusal {
            // The caller may have what this node lacks: let it ask the UFS itself.
            kind: ErrorKind::Unavailable,
            message: error_chain(&error),
        })?;
        let derived = FileId::derive(&ufs.object_uri(path), version, request.file_size);
        if derived != request.block.file {
            let message = format!(
                "block {} is not of {} in {version} with {} bytes",
                request.block,
                ufs.object_uri(path),
                request.file_size
            );
            return Err(Refusal::new(ErrorKind::Invalid, message));
        }
        let holders = self.view.load();
        let holders = holders.holders(&request.block, self.me, Instant::now());
        Ok(FillJob {
            block: request.block,
            range: range.of_file(),
            file_size: request.file_size,
            ufs,
            path: path.clone(),
            version: version.clone(),
            policy: mount_policy(&mount),
            holders,
        })
    }

    async fn refuse(&self, reply: Reply, refusal: Refusal) -> Result<(), NetError> {
        let Refusal { kind, message } = refusal;
        self.metrics.read_failed(kind);
        debug!(%kind, message, "refused");
        reply.fail(kind, message).await
    }
}

/// What full tiers do with the blocks of a mount. One whose option has no meaning, of a newer
/// release perhaps, is like any other.
fn mount_policy(mount: &Mount) -> Policy {
    Profile::of(&mount.options).unwrap_or_default().into()
}
