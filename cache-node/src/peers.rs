//! Asks other nodes for blocks that they hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::timeout;

use millpond_net::block_client::{BlockClient, Peer};
use millpond_proto::wire::frame::{Op, Request};
use millpond_proto::{ErrorKind, NodeId};
use millpond_store::{Block, Policy};

use crate::fill::{FillJob, Peek};
use crate::view::CurrentView;

/// How long a node may take to say whether it holds a block. It looks into two indexes: one
/// that takes longer is in trouble, and the UFS is the better choice.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Asks nodes at the addresses that the view gives.
#[derive(Debug)]
pub struct PeerBlocks {
    client: BlockClient,
    view: Arc<CurrentView>,
}

impl PeerBlocks {
    /// Asks through `client`.
    pub fn new(client: BlockClient, view: Arc<CurrentView>) -> Self {
        Self { client, view }
    }
}

#[async_trait]
impl Peek for PeerBlocks {
    async fn peek(
        &self,
        node: NodeId,
        job: &FillJob,
        deadline: Instant,
    ) -> Result<Block, ErrorKind> {
        let placement = self.view.load();
        let member = placement.view().member(node);
        let peer = Peer {
            id: node,
            addr: member.ok_or(ErrorKind::NotFound)?.addr.clone(),
        };
        let request = Request {
            op: Op::Peek,
            epoch: placement.epoch(),
            block: job.block,
            offset: 0,
            len: job.block_len(),
            file_size: job.file_size,
            deadline_ms: 0,
            source: None,
            query: None,
        };
        let answer = self.client.request(&peer, &request, deadline.into());
        let answer = timeout(ANSWER_WITHIN, answer).await;
        let response = answer.map_err(|_| ErrorKind::Timeout)?;
        let response = response.map_err(|error| error.kind())?;
        // More than was asked for is not worth receiving.
        if response.head.data_len != job.block_len() {
            return Err(ErrorKind::Internal);
        }
        let data = response.read_data().await.map_err(|error| error.kind())?;
        Ok(Block {
            policy: Policy::default(),
            data: data.bytes,
            checksums: data.checksums.into(),
        })
    }
}
