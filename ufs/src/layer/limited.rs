//! As many calls at once as the store serves best, and no more than the mount may cost.
//!
//! | module | holds |
//! |---|---|
//! | [`gate`] | slots: a number that changes, a queue, a share for each kind of request |
//! | [`controller`] | how many there are: what the store's throughput and refusals say |
//! | [`valve`] | both together, for one mount, within the bound of the process |
//! | [`bucket`], [`budget`] | bytes and requests per second |

mod bucket;
mod budget;
mod controller;
mod gate;
mod valve;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use millpond_proto::{ErrorKind, FileVersion};
use tokio::time::{Instant, timeout};

use super::{Ask, Layer, Work};
use crate::error::{Op, UfsError};
use crate::metrics::UfsMetrics;
use crate::ufs::{ByteStream, Choice, Ufs};

use budget::{Budget, Budgets, Taken, Turn};
use gate::Class;
use valve::Pass;

pub(crate) use budget::Rates;
pub(crate) use gate::Gate;
pub(crate) use valve::Valve;

/// Lets as many calls through as its [`Valve`] has slots, at the [`Rates`] of the mount; the
/// rest wait, and get `Busy` when they have waited too long. A read counts until its stream
/// ends or is dropped, a listing only while a page is being fetched.
#[derive(Debug, Clone)]
pub(crate) struct Limited {
    inner: Arc<dyn Ufs>,
    way: Arc<Way>,
}

/// What a call passes before it goes to the store.
#[derive(Debug)]
struct Way {
    valve: Arc<Valve>,
    budgets: Budgets,
    patience: Duration,
    metrics: Arc<UfsMetrics>,
}

/// A read takes so much from the budget at a time, so that a long one does not go before
/// everybody else.
const SLICE: u64 = 16 << 20;

impl Limited {
    pub(crate) fn new(
        inner: Arc<dyn Ufs>,
        valve: Arc<Valve>,
        rates: Rates,
        patience: Duration,
        metrics: Arc<UfsMetrics>,
    ) -> Self {
        let way = Way {
            valve,
            budgets: Budgets::new(rates, Instant::now()),
            patience,
            metrics,
        };
        Self {
            inner,
            way: Arc::new(way),
        }
    }

    async fn pass(&self, op: Op, path: &str) -> Result<Pass, UfsError> {
        self.way.pass(op, || self.inner.object_uri(path)).await
    }
}

impl Layer for Limited {
    fn inner(&self) -> &Arc<dyn Ufs> {
        &self.inner
    }

    async fn around<T: Send>(
        &self,
        ask: Ask<'_>,
        call: impl Future<Output = Result<T, UfsError>> + Send,
    ) -> Result<T, UfsError> {
        let mut pass = self.pass(ask.op, ask.path).await?;
        let sent = match ask.work {
            Work::Sends(bytes) => {
                let uri = || self.inner.object_uri(ask.path);
                if let Some(turn) = self.way.turn(ask.op, uri).await? {
                    turn.take(bytes).used(bytes);
                }
                pass.sends();
                bytes
            }
            Work::Little | Work::Moves => 0,
        };
        let result = call.await;
        if result.is_ok() {
            pass.came(sent);
        }
        match ask.work {
            // How long it takes says nothing of how busy the store is.
            Work::Moves if result.is_ok() => {}
            _ => pass.ended(&result),
        }
        result
    }

    fn pages<T: Send + 'static>(
        &self,
        op: Op,
        dir: &str,
        pages: BoxStream<'static, Result<T, UfsError>>,
    ) -> BoxStream<'static, Result<T, UfsError>> {
        let state = (pages, Arc::clone(&self.way), self.inner.object_uri(dir));
        futures::stream::try_unfold(state, move |(mut pages, way, uri)| async move {
            let pass = way.pass(op, || uri.clone()).await?;
            let page = pages.next().await.transpose();
            pass.ended(&page);
            Ok(page?.map(|page| (page, (pages, way, uri))))
        })
        .boxed()
    }

    async fn read_through(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        let all = range.clone();
        let chosen = self.read_chosen_through(path, version, Box::new(|| Some(all)));
        match chosen.await? {
            Some((_, stream)) => Ok(stream),
            None => Ok(futures::stream::empty().boxed()),
        }
    }

    async fn read_chosen_through(
        &self,
        path: &str,
        version: &FileVersion,
        choose: Choice<'_>,
    ) -> Result<Option<(Range<u64>, ByteStream)>, UfsError> {
        let mut pass = self.pass(Op::Read, path).await?;
        let turn = self
            .way
            .turn(Op::Read, || self.inner.object_uri(path))
            .await?;
        let Some(range) = choose() else {
            return Ok(None);
        };
        let len = range.end.saturating_sub(range.start);
        let taken = turn.map(|turn| turn.take(len.min(SLICE)));
        pass.sends();
        let opened = self.inner.read(path, version, range.clone()).await;
        let stream = opened.inspect_err(|error| pass.failed(error.kind()))?;
        let under_way = UnderWay {
            stream,
            pass,
            left: len - len.min(SLICE),
            taken,
        };
        Ok(Some((range, under_way.stream())))
    }
}

impl Way {
    /// Waits for a slot and for the budget of requests.
    async fn pass(&self, op: Op, uri: impl Fn() -> String) -> Result<Pass, UfsError> {
        let _waits = Waits::begin(&self.metrics);
        let class = match op {
            Op::Read | Op::Put | Op::Upload | Op::Copy => Class::Read,
            Op::Open
            | Op::Stat
            | Op::List
            | Op::ReadLink
            | Op::Rename
            | Op::Remove
            | Op::CreateDir
            | Op::RemoveDir
            | Op::Link
            | Op::GetAttributes
            | Op::SetAttributes => Class::Metadata,
        };
        let Some(mut pass) = self.valve.enter(class, self.patience).await else {
            let cause = "too many calls to this store are in flight";
            // Slots may be held by those who wait for a budget.
            let option = match (&self.budgets.bytes, &self.budgets.requests) {
                (None, None) => "concurrency",
                (Some(_), None) => "concurrency or ufs_bandwidth",
                (None, Some(_)) => "concurrency or ufs_requests",
                (Some(_), Some(_)) => "concurrency, ufs_bandwidth or ufs_requests",
            };
            return Err(self.busy(op, uri(), cause, option));
        };
        if let Some(requests) = &self.budgets.requests {
            let cause = "the mount's budget of requests is used up";
            let turn = timeout(self.patience, requests.turn()).await;
            let turn = turn.map_err(|_| self.busy(op, uri(), cause, "ufs_requests"))?;
            turn.take(1).used(1);
        }
        pass.sends();
        Ok(pass)
    }

    /// Waits for the budget of bytes, if there is one.
    async fn turn(&self, op: Op, uri: impl Fn() -> String) -> Result<Option<Turn>, UfsError> {
        let Some(bytes) = &self.budgets.bytes else {
            return Ok(None);
        };
        let _waits = Waits::begin(&self.metrics);
        let cause = "the mount's budget of bytes is used up";
        let turn = timeout(self.patience, bytes.turn()).await;
        let turn = turn.map_err(|_| self.busy(op, uri(), cause, "ufs_bandwidth"))?;
        Ok(Some(turn))
    }

    fn busy(&self, op: Op, uri: String, cause: &str, option: &str) -> UfsError {
        UfsError::new(ErrorKind::Busy, op, uri, cause)
            .with_tried(self.patience)
            .with_hint(format!("try again later, or raise the option {option}"))
    }
}

/// A read with its slot and its share of the budget.
struct UnderWay {
    stream: ByteStream,
    pass: Pass,
    /// Bytes for which nothing was taken from the budget yet.
    left: u64,
    taken: Option<Taken>,
}

impl UnderWay {
    fn stream(self) -> ByteStream {
        futures::stream::unfold(self, |mut this| async move {
            let piece = this.stream.next().await;
            match &piece {
                Some(Ok(bytes)) => this.came(bytes.len() as u64).await,
                Some(Err(error)) => this.pass.failed(error.kind()),
                None => this.pass.served(),
            }
            piece.map(|piece| (piece, this))
        })
        .boxed()
    }

    async fn came(&mut self, bytes: u64) {
        self.pass.came(bytes);
        let Some(taken) = &mut self.taken else {
            return;
        };
        let uncovered = taken.used(bytes);
        if uncovered > 0 {
            let budget: Arc<Budget> = taken.budget();
            let slice = self.left.min(SLICE);
            self.left -= slice;
            let mut next = budget.turn().await.take(slice.max(uncovered));
            next.used(uncovered);
            self.taken = Some(next);
        }
    }
}

/// Somebody who waits, as long as this lives.
struct Waits<'a>(&'a UfsMetrics);

impl<'a> Waits<'a> {
    fn begin(metrics: &'a UfsMetrics) -> Self {
        metrics.waiting_changed(1);
        Self(metrics)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting_changed(-1);
    }
}

#[cfg(test)]
pub(crate) mod tests;
