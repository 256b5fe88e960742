//! Having the cache nodes hold a file, without its data passing through the client.
//!
//! A node that is asked for a single byte of a block fills all of it, so each block costs two
//! requests that carry a byte: one that makes its owner fill it, and one that asks whether the
//! owner kept it. Reading the file would not do: a client that reads may go round a node that
//! is slow for a moment, which then has nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use millpond_net::NetError;
use millpond_net::block_client::Peer;
use millpond_proto::wire::frame::{BlockSource, Op, Request, Tier};
use millpond_proto::{BlockId, ErrorKind};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::core::Core;
use crate::error::ClientError;
use crate::fetch::OpenFile;
use crate::peers::Peers;

/// Blocks of a file that are loaded at a time.
const AT_ONCE: usize = 8;

/// Between two rounds of questions to the owners of a block.
const PAUSE: Duration = Duration::from_millis(100);

/// What loading a file, or several, came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Bytes of the files.
    pub bytes: u64,
    /// Their blocks.
    pub blocks: u64,
    /// Blocks that their nodes had to fetch; the others were there.
    pub filled: u64,
    /// Blocks that were fetched and not kept, because the tiers of their node have no room for
    /// them.
    pub not_kept: u64,
}

impl Loaded {
    /// The sum of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            blocks: self.blocks + other.blocks,
            filled: self.filled + other.filled,
            not_kept: self.not_kept + other.not_kept,
        }
    }
}

impl Core {
    /// Has the owners of all blocks of `file` hold them.
    ///
    /// # Errors
    /// `Stale` if the file was replaced meanwhile; `Unavailable` if no node is in service; the
    /// kind of the node or the UFS that failed until the deadline of a block.
    pub(crate) async fn load(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
    ) -> Result<Loaded, ClientError> {
        let Some(peers) = &self.peers else {
            return Err(no_nodes(file));
        };
        let empty = Loaded {
            bytes: file.size,
            ..Loaded::default()
        };
        stream::iter(0..self.layout.block_size().count(file.size))
            .map(|index| self.load_block(peers, file, BlockId::new(file.id, index)))
            .buffer_unordered(AT_ONCE)
            .try_fold(empty, |sum, block| async move { Ok(sum.and(block)) })
            .await
    }

    async fn load_block(
        &self,
        peers: &Peers,
        file: &OpenFile,
        block: BlockId,
    ) -> Result<Loaded, ClientError> {
        let deadline = Instant::now() + self.config.deadline;
        loop {
            let error = match self.load_once(peers, file, block, deadline).await {
                Ok(loaded) => return Ok(loaded),
                Err(error) => error,
            };
            if !error.kind().try_next_source() || Instant::now() + PAUSE >= deadline {
                return Err(error);
            }
            tracing::debug!(
                %block,
                path = file.path,
                error = &error as &dyn std::error::Error,
                "a block could not be loaded, trying again"
            );
            sleep(PAUSE).await;
        }
    }

    /// Asks the owners one after the other. The next one only takes the place of one that
    /// cannot be reached: a block belongs where its readers look first.
    async fn load_once(
        &self,
        peers: &Peers,
        file: &OpenFile,
        block: BlockId,
        deadline: Instant,
    ) -> Result<Loaded, ClientError> {
        let snapshot = self.snapshot();
        let epoch = snapshot.view().epoch;
        let last = self.layout.block_size().block_len(block.index, file.size) - 1;
        let request = |op| Request {
            op,
            epoch,
            block,
            // The last byte is there when the block is.
            offset: last,
            len: 1,
            file_size: file.size,
            deadline_ms: 0,
            source: (op == Op::Read).then(|| BlockSource {
                mount: file.mount,
                path: file.below.clone(),
                version: file.version.clone(),
            }),
            query: None,
        };
        let mut failed = no_nodes(file);
        for owner in snapshot.owners(&block) {
            // Half of the time is left for the next if this one is hung.
            let until = deadline.min(Instant::now() + self.config.deadline / 2);
            let ask = |op| ask(peers, &owner, request(op), until);
            let error = match ask(Op::Read).await {
                Ok(Tier::Memory | Tier::Disk) => return Ok(one(false, true)),
                Ok(_) => match ask(Op::Peek).await {
                    Ok(_) => return Ok(one(true, true)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        return Ok(one(true, false));
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let kind = error.kind();
            failed = match kind {
                ErrorKind::Stale | ErrorKind::NotFound => ClientError::Stale {
                    path: file.path.clone(),
                },
                _ => error.into(),
            };
            if kind == ErrorKind::Busy || !kind.try_next_source() {
                break;
            }
        }
        Err(failed)
    }
}

async fn ask(
    peers: &Peers,
    owner: &Peer,
    request: Request,
    deadline: Instant,
) -> Result<Tier, NetError> {
    let response = peers.client.request(owner, &request, deadline).await?;
    let tier = response.head.tier;
    response.read_data().await?;
    Ok(tier)
}

const fn one(filled: bool, kept: bool) -> Loaded {
    Loaded {
        bytes: 0,
        blocks: 1,
        filled: filled as u64,
        not_kept: !kept as u64,
    }
}

fn no_nodes(file: &OpenFile) -> ClientError {
    ClientError::NoNodes {
        path: file.path.clone(),
    }
}
