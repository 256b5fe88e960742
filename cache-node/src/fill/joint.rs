//! One request that brings several blocks.
//!
//! Each block stays its own fill, with its own waiters, who get its bytes as they arrive, and
//! its own end. The fill whose request it is reads the stream for all of them.
//!
//! # When the request fails
//!
//! - **For good** (the file changed, the caller lacks a right, the body is too long, or all
//!   bytes came and then an error instead of the end): all of its blocks fail with the cause,
//!   and nothing of it is kept.
//! - **Otherwise** what came whole is good, for it is of the version that was asked for. The
//!   fill whose request it was fails with the cause if its own block is not whole. The others
//!   go on alone where their bytes end: they had no request of their own yet.

use std::time::Duration;

use futures::StreamExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use millpond_proto::BlockId;
use millpond_store::Block;
use millpond_ufs::UfsError;
use millpond_ufs::ufs::ByteStream;

use crate::metrics::NodeMetrics;

use super::buffer::BlockWriter;
use super::error::FillError;
use super::queue::{Part, Run};

/// What a fill hears of the request that takes its block along.
#[derive(Debug)]
pub(super) enum News {
    /// It is over.
    Ended(Result<Block, FillError>),
    /// It broke off here: go on alone.
    GoOn(BlockWriter),
}

/// Why a request did not bring all that it was to bring.
#[derive(Debug, Clone)]
pub(super) enum Broken {
    /// The UFS refused or broke off.
    Ufs(UfsError),
    /// Nothing came for so long.
    Stalled(Duration),
    /// The body ended early.
    Short,
    /// So many bytes came beyond the end.
    TooLong(u64),
}

/// Blocks that one request brings, in the order of the file.
#[derive(Debug)]
pub(super) struct Joint {
    /// The block of the fill whose request it is.
    own: BlockId,
    parts: Vec<Filling>,
    /// The first that is not whole.
    current: usize,
}

#[derive(Debug)]
struct Filling {
    part: Part,
    writer: BlockWriter,
    /// None for the fill whose request it is.
    news: Option<oneshot::Sender<News>>,
}

impl Joint {
    /// The parts of `run`, none of which has begun, with the request of the fill of `own`.
    pub(super) fn of(own: BlockId, run: Run) -> Self {
        let parts = run.parts.into_iter().map(|(part, news)| {
            let writer = BlockWriter::new((part.range.end - part.range.start) as u32);
            Filling { part, writer, news }
        });
        Self {
            own,
            parts: parts.collect(),
            current: 0,
        }
    }

    /// One block alone, of which `writer` may have some already.
    pub(super) fn alone(part: Part, writer: BlockWriter) -> Self {
        let own = part.block;
        let news = None;
        let parts = vec![Filling { part, writer, news }];
        Self {
            own,
            parts,
            current: 0,
        }
    }

    /// How many blocks come with another one's request.
    pub(super) fn joined(&self) -> u64 {
        self.parts.iter().filter(|p| p.news.is_some()).count() as u64
    }

    /// Reads `stream` into the blocks, and tells all but the own fill how it ended.
    pub(super) async fn read(
        mut self,
        stream: ByteStream,
        stall: Duration,
        metrics: &NodeMetrics,
    ) -> Result<Block, FillError> {
        for filling in &self.parts {
            filling.part.fill.streams_into(filling.writer.buffer());
        }
        let received = self.receive(stream, stall, metrics).await;
        self.settle(received)
    }

    /// The request did not even begin.
    pub(super) fn failed(self, cause: Broken) -> Result<Block, FillError> {
        self.settle(Err(cause))
    }

    async fn receive(
        &mut self,
        mut stream: ByteStream,
        stall: Duration,
        metrics: &NodeMetrics,
    ) -> Result<(), Broken> {
        loop {
            let next = timeout(stall, stream.next()).await;
            let Some(chunk) = next.map_err(|_| Broken::Stalled(stall))? else {
                break;
            };
            let chunk = chunk.map_err(Broken::Ufs)?;
            metrics.ufs_bytes.inc_by(chunk.len() as u64);
            self.append(&chunk)?;
        }
        match self.current == self.parts.len() {
            true => Ok(()),
            false => Err(Broken::Short),
        }
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() {
            let Some(filling) = self.parts.get_mut(self.current) else {
                return Err(Broken::TooLong(bytes.len() as u64));
            };
            let missing = filling.writer.missing() as usize;
            let (now, later) = bytes.split_at(bytes.len().min(missing));
            filling.writer.append(now);
            filling.part.fill.advanced();
            if filling.writer.missing() == 0 {
                self.current += 1;
            }
            bytes = later;
        }
        Ok(())
    }

    fn settle(self, received: Result<(), Broken>) -> Result<Block, FillError> {
        let all_came = self.current == self.parts.len();
        let mut own = Err(FillError::Lost { block: self.own });
        for Filling { part, writer, news } in self.parts {
            let len = writer.len();
            let have = len - writer.missing();
            let is_whole = have == len;
            let ended = match &received {
                Err(cause) if all_came || cause.is_final() || (news.is_none() && !is_whole) => {
                    Err(cause.of(part.block, have, len))
                }
                Err(_) if !is_whole => {
                    if let Some(news) = news {
                        let _ = news.send(News::GoOn(writer));
                    }
                    continue;
                }
                Ok(()) | Err(_) => {
                    let short = Broken::Short.of(part.block, have, len);
                    writer.finish().ok_or(short)
                }
            };
            match news {
                // A fill that is gone does not need it.
                Some(news) => drop(news.send(News::Ended(ended))),
                None => own = ended,
            }
        }
        own
    }
}

impl Broken {
    /// Whether it says something of the whole request, and not only that it went no further.
    fn is_final(&self) -> bool {
        match self {
            Self::Ufs(error) => !error.kind().is_transient(),
            Self::TooLong(_) => true,
            Self::Stalled(_) | Self::Short => false,
        }
    }

    /// The error of the fill of `block`, which has `have` of its `len` bytes.
    pub(super) fn of(&self, block: BlockId, have: u32, len: u32) -> FillError {
        match self {
            Self::Ufs(source) => FillError::Ufs {
                block,
                source: source.clone(),
            },
            Self::Stalled(after) => FillError::Stalled {
                block,
                have,
                len,
                after: *after,
            },
            Self::Short => FillError::Length {
                block,
                have: u64::from(have),
                len,
            },
            Self::TooLong(excess) => FillError::Length {
                block,
                have: u64::from(have) + excess,
                len,
            },
        }
    }
}
