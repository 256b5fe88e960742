//! Reading from the UFS itself.
//!
//! The first byte of a request to an object store takes its usual time nearly always, and many
//! times that now and then, because of where the request went and not because of what it asks
//! for. So a request that is later than nine in ten others, and that a reader waits for, is
//! sent a second time (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use millpond_proto::ErrorKind;
use millpond_ufs::{UfsError, ufs::ByteStream};
use tokio::time::{Instant, sleep};

use super::OpenFile;
use crate::core::Core;
use crate::detour::Size;
use crate::error::ClientError;

/// Of so many requests at most one is sent twice.
const SELDOM: u64 = 20;

/// The bytes of one request, in order, measured as they come.
pub(super) struct Reading<'a> {
    core: &'a Core,
    file: &'a OpenFile,
    stream: ByteStream,
    /// Bytes still to come.
    left: u64,
    first: Option<Bytes>,
    started: Instant,
    /// When the first byte came.
    since: Instant,
    total: u64,
}

/// Asks for `range` and waits for its first bytes. `wanted` ends when somebody waits for them.
pub(super) async fn begin<'a>(
    core: &'a Core,
    file: &'a OpenFile,
    range: Range<u64>,
    wanted: impl Future<Output = ()> + Send,
) -> Result<Reading<'a>, ClientError> {
    let total = range.end - range.start;
    let started = Instant::now();
    let ask = || -> BoxFuture<'_, _> { Box::pin(first_bytes(file, range.clone())) };
    let mut asked = FuturesUnordered::from_iter([ask()]);
    let overdue = file.pace.lock().overdue();
    let alarm = async {
        match overdue {
            Some(overdue) => {
                sleep(overdue).await;
                wanted.await;
            }
            None => std::future::pending().await,
        }
    };
    let mut alarm = std::pin::pin!(alarm);
    let mut armed = true;
    let mut failed = None;
    let (first, stream) = loop {
        tokio::select! {
            answer = asked.next() => match (answer, failed.take()) {
                (Some(Ok(answer)), _) => break answer,
                (Some(Err(error)), _) => failed = Some(error),
                (None, Some(error)) => return Err(ClientError::of_ufs(error, &file.path)),
                (None, None) => return Err(ClientError::ShutDown),
            },
            () = &mut alarm, if armed => {
                armed = false;
                if core.may_ask_twice() {
                    asked.push(ask());
                }
            }
        }
    };
    core.ufs_requests.fetch_add(1, Ordering::Relaxed);
    let since = Instant::now();
    file.pace.lock().answered(since - started);
    Ok(Reading {
        core,
        file,
        stream,
        left: total,
        first: Some(first),
        started,
        since,
        total,
    })
}

async fn first_bytes(file: &OpenFile, range: Range<u64>) -> Result<(Bytes, ByteStream), UfsError> {
    let mut stream = file.ufs.read(&file.below, &file.version, range).await?;
    loop {
        match stream.next().await.transpose()? {
            Some(bytes) if bytes.is_empty() => {}
            Some(bytes) => return Ok((bytes, stream)),
            None => return Ok((Bytes::new(), stream)),
        }
    }
}

impl Core {
    /// Whether a request may be sent a second time. It costs no memory to speak of: only the
    /// first bytes of the later answer are received, if any.
    fn may_ask_twice(&self) -> bool {
        let requests = self.ufs_requests.load(Ordering::Relaxed);
        let twice = self.ufs_repeats.load(Ordering::Relaxed);
        let permitted = (twice + 1) * SELDOM <= requests;
        if permitted {
            self.ufs_repeats.fetch_add(1, Ordering::Relaxed);
            self.metrics.hedges.inc();
        }
        permitted
    }
}

impl Reading<'_> {
    /// The next bytes; none after the last. More or fewer than were asked for are an error.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let bytes = match self.first.take() {
            Some(first) => Some(first).filter(|first| !first.is_empty()),
            None => match self.stream.next().await.transpose() {
                Ok(next) => next,
                Err(error) => return Err(ClientError::of_ufs(error, &self.file.path)),
            },
        };
        let Some(bytes) = bytes else {
            if self.left > 0 {
                return Err(self.wrong_length());
            }
            let now = Instant::now();
            let mut pace = self.file.pace.lock();
            pace.ended(self.total, now - self.since);
            let size = Size::of(self.total);
            pace.delivery.add(size, now - self.started, now.into_std());
            return Ok(None);
        };
        let len = bytes.len() as u64;
        if len > self.left {
            return Err(self.wrong_length());
        }
        self.left -= len;
        self.core.metrics.ufs_read_bytes.inc_by(len);
        let now = std::time::Instant::now();
        self.file.pace.lock().came(len, now);
        Ok(Some(bytes))
    }

    /// Exactly `len` more bytes, contiguous. `rest` is what the last call had too much, and is
    /// left what this one has.
    pub(super) async fn take(
        &mut self,
        len: usize,
        rest: &mut Bytes,
    ) -> Result<Bytes, ClientError> {
        if rest.is_empty() {
            *rest = self.some().await?;
        }
        // A large part that came whole is not copied; a small one would keep all that it came
        // with from being freed.
        if rest.len() >= len && len as u64 >= SHARED {
            return Ok(rest.split_to(len));
        }
        let mut whole = BytesMut::with_capacity(len);
        loop {
            let more = rest.split_to(rest.len().min(len - whole.len()));
            whole.extend_from_slice(&more);
            if whole.len() == len {
                return Ok(whole.freeze());
            }
            *rest = self.some().await?;
        }
    }

    async fn some(&mut self) -> Result<Bytes, ClientError> {
        loop {
            match self.next().await? {
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => return Ok(bytes),
                None => return Err(self.wrong_length()),
            }
        }
    }

    /// Waits for the end: that is where a store finds out that the file changed meanwhile.
    pub(super) async fn end(mut self) -> Result<(), ClientError> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    fn wrong_length(&self) -> ClientError {
        let error = UfsError::new(
            ErrorKind::Unavailable,
            millpond_ufs::Op::Read,
            self.file.ufs.object_uri(&self.file.below),
            format!("the store did not send the {} bytes asked for", self.total),
        );
        ClientError::of_ufs(error, &self.file.path)
    }
}

/// Bytes of at least this length are shared with the buffer that they came in.
const SHARED: u64 = 1 << 20;

/// All of `range`, for somebody who waits.
pub(super) async fn read(
    core: &Arc<Core>,
    file: &OpenFile,
    range: Range<u64>,
) -> Result<Bytes, ClientError> {
    let len = (range.end - range.start) as usize;
    let mut reading = begin(core, file, range, async {}).await?;
    let mut rest = Bytes::new();
    let data = reading.take(len, &mut rest).await?;
    reading.end().await?;
    Ok(data)
}
