//! One fill as its waiters see it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use millpond_proto::BlockId;
use millpond_proto::checksum::{PAGE_SIZE, crc32c, pieces};
use millpond_proto::wire::frame::Tier;
use millpond_store::Block;

use super::buffer::BlockBuffer;
use super::error::FillError;

/// A fill under way, shared by the task that runs it and by everyone who waits for it.
#[derive(Debug)]
pub(crate) struct Fill {
    block: BlockId,
    progress: watch::Sender<Progress>,
}

/// How far a fill is. Only grows: a source once chosen stays, published bytes stay.
#[derive(Debug, Default)]
struct Progress {
    from: Option<Source>,
    outcome: Option<Result<(), FillError>>,
}

/// Where the bytes come from and where they lie.
#[derive(Debug, Clone)]
enum Source {
    /// Growing, from the UFS.
    Ufs(Arc<BlockBuffer>),
    /// Whole, from another node.
    Peer(Block),
}

impl Source {
    fn published(&self) -> u32 {
        match self {
            Self::Ufs(buffer) => buffer.published(),
            Self::Peer(block) => block.data.len() as u32,
        }
    }

    fn slice(&self, range: Range<u32>) -> Option<Bytes> {
        match self {
            Self::Ufs(buffer) => buffer.slice(range),
            Self::Peer(block) => (range.end <= self.published())
                .then(|| block.data.slice(range.start as usize..range.end as usize)),
        }
    }

    fn page_checksum(&self, page: u32) -> Option<u32> {
        match self {
            Self::Ufs(buffer) => buffer.page_checksum(page),
            Self::Peer(block) => block.checksums.get(page as usize).copied(),
        }
    }

    const fn tier(&self) -> Tier {
        match self {
            Self::Ufs(_) => Tier::Ufs,
            Self::Peer(_) => Tier::Peer,
        }
    }
}

impl Fill {
    pub(crate) fn new(block: BlockId) -> Arc<Self> {
        Arc::new(Self {
            block,
            progress: watch::Sender::new(Progress::default()),
        })
    }

    pub(crate) const fn block(&self) -> BlockId {
        self.block
    }

    /// The bytes will come from the UFS, into `buffer`.
    pub(crate) fn streams_into(&self, buffer: Arc<BlockBuffer>) {
        let from = Some(Source::Ufs(buffer));
        self.progress.send_modify(|progress| progress.from = from);
    }

    /// More of the buffer is published.
    pub(crate) fn advanced(&self) {
        self.progress.send_modify(|_| ());
    }

    /// The whole block came from another node.
    pub(crate) fn came_from_peer(&self, block: Block) {
        let from = Some(Source::Peer(block));
        self.progress.send_modify(|progress| progress.from = from);
    }

    /// The fill is over. The first outcome counts.
    pub(crate) fn ended(&self, outcome: Result<(), FillError>) {
        self.progress.send_if_modified(|progress| {
            let first = progress.outcome.is_none();
            if first {
                progress.outcome = Some(outcome);
            }
            first
        });
    }

    /// Whether bytes are coming from the UFS: waiting for such a fill waits for no other node.
    pub(crate) fn reads_the_ufs(&self) -> bool {
        matches!(self.progress.borrow().from, Some(Source::Ufs(_)))
    }

    pub(crate) fn reader(self: &Arc<Self>) -> FillReader {
        FillReader {
            progress: self.progress.subscribe(),
            fill: Arc::clone(self),
        }
    }
}

/// A waiter of a fill. Dropping it leaves the fill alone.
#[derive(Debug)]
pub struct FillReader {
    fill: Arc<Fill>,
    progress: watch::Receiver<Progress>,
}

/// A piece of a block that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FillChunk {
    /// The bytes, sharing the fill's memory.
    pub data: Bytes,
    /// One CRC32C per page piece of `data` (see `millpond_proto::checksum::pieces`).
    pub checksums: Vec<u32>,
    /// Where the bytes come from: `Ufs` or `Peer`.
    pub tier: Tier,
}

impl FillReader {
    /// Waits until the bytes at `at` are there and returns as many as are, at most up to
    /// `end`; the piece ends at a page boundary or at `end`. `at < end` and `end` is at most
    /// the block's length.
    ///
    /// # Errors
    /// [`FillError`] if the fill fails before it reaches those bytes.
    ///
    /// # Cancel safety
    /// Cancel safe: the same call can be made again.
    pub async fn next(&mut self, at: u32, end: u32) -> Result<FillChunk, FillError> {
        let page_end = (at / PAGE_SIZE + 1).saturating_mul(PAGE_SIZE).min(end);
        let lost = || FillError::Lost {
            block: self.fill.block(),
        };
        let source = {
            let ready = |p: &Progress| {
                p.outcome.is_some() || p.from.as_ref().is_some_and(|f| f.published() >= page_end)
            };
            let progress = self.progress.wait_for(ready).await.map_err(|_| lost())?;
            match (&progress.from, &progress.outcome) {
                (Some(from), _) if from.published() >= page_end => from.clone(),
                (_, Some(Err(error))) => return Err(error.clone()),
                _ => return Err(lost()),
            }
        };
        let published = source.published().min(end);
        let stop = if published == end {
            end
        } else {
            published / PAGE_SIZE * PAGE_SIZE
        };
        let data = source.slice(at..stop).ok_or_else(lost)?;
        let checksums = pieces(at, stop - at)
            .map(|piece| {
                let bytes = &data[piece.start as usize..][..piece.len as usize];
                let page_start = piece.page * PAGE_SIZE;
                let whole_page = at + piece.start == page_start && piece.len == PAGE_SIZE;
                whole_page
                    .then(|| source.page_checksum(piece.page))
                    .flatten()
                    .unwrap_or_else(|| crc32c(bytes))
            })
            .collect();
        Ok(FillChunk {
            data,
            checksums,
            tier: source.tier(),
        })
    }

    /// Waits until the fill is over: the block is in the store, or the fill failed.
    ///
    /// # Errors
    /// [`FillError`] if the fill failed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&mut self) -> Result<(), FillError> {
        let ended = |p: &Progress| p.outcome.is_some();
        let outcome = match self.progress.wait_for(ended).await {
            Ok(progress) => progress.outcome.clone(),
            Err(_) => None,
        };
        outcome.unwrap_or_else(|| {
            Err(FillError::Lost {
                block: self.fill.block(),
            })
        })
    }
}
