//! What a fill promises, against a UFS that counts, waits and fails on command.

mod joint;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use millpond_proto::checksum::page_checksums;
use millpond_proto::{FileId, FileVersion, NodeId};
use millpond_store::{Block, Policy, StoreConfig};
use millpond_ufs::ufs::{ByteStream, Choice};
use millpond_ufs::{Entry, Metadata, Op, Ufs, UfsError};

use super::*;

/// A UFS with one endless file whose bytes follow from their offsets.
#[derive(Debug)]
struct FakeUfs {
    reads: AtomicUsize,
    /// Bytes of reads under way, and the most there ever were.
    open_bytes: AtomicU64,
    most_open_bytes: AtomicU64,
    /// Chunks that may be sent; one permit each.
    gate: Semaphore,
    chunk: usize,
    /// Reads that may go out; one permit each.
    turns: Semaphore,
    ranges: Mutex<Vec<Range<u64>>>,
    /// What the next reads do; empty: they succeed.
    faults: Mutex<VecDeque<Fault>>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The read is refused.
    Refuse(ErrorKind),
    /// The body ends with an error after so many chunks.
    BreakAfter(usize, ErrorKind),
    /// The body is one chunk too long.
    TooLong,
    /// The body ends after so many chunks.
    CutAfter(usize),
}

impl FakeUfs {
    fn open_gate(chunk: usize) -> Arc<Self> {
        let ufs = Self::closed_gate(chunk);
        ufs.gate.add_permits(1 << 20);
        ufs
    }

    fn closed_gate(chunk: usize) -> Arc<Self> {
        let ufs = Self::without_turns(chunk);
        ufs.turns.add_permits(1 << 20);
        ufs
    }

    fn without_turns(chunk: usize) -> Arc<Self> {
        Arc::new(Self {
            reads: AtomicUsize::new(0),
            open_bytes: AtomicU64::new(0),
            most_open_bytes: AtomicU64::new(0),
            gate: Semaphore::new(0),
            chunk,
            turns: Semaphore::new(0),
            ranges: Mutex::default(),
            faults: Mutex::default(),
        })
    }

    fn will(&self, fault: Fault) {
        self.faults.lock().push_back(fault);
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(31) >> 3) as u8
}

fn bytes_of(range: Range<u64>) -> Vec<u8> {
    range.map(byte_at).collect()
}

fn ufs_error(kind: ErrorKind) -> UfsError {
    UfsError::new(kind, Op::Read, "fake://file", "as the test wants it")
}

/// [`FakeUfs`] behind an `Arc` that its streams can hold.
#[derive(Debug)]
struct Shared(Arc<FakeUfs>);

#[async_trait]
impl Ufs for Shared {
    fn uri(&self) -> &str {
        "fake://"
    }

    fn object_uri(&self, path: &str) -> String {
        format!("fake://{path}")
    }

    async fn stat(&self, _path: &str) -> Result<Metadata, UfsError> {
        Err(ufs_error(ErrorKind::Unsupported))
    }

    fn list(&self, _dir: &str) -> BoxStream<'static, Result<Vec<Entry>, UfsError>> {
        stream::empty().boxed()
    }

    async fn read(
        &self,
        _path: &str,
        _version: &FileVersion,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, UfsError>>, UfsError> {
        let ufs = Arc::clone(&self.0);
        ufs.reads.fetch_add(1, Ordering::SeqCst);
        ufs.ranges.lock().push(range.clone());
        // Nothing is there at once.
        tokio::task::yield_now().await;
        let fault = ufs.faults.lock().pop_front();
        if let Some(Fault::Refuse(kind)) = fault {
            return Err(ufs_error(kind));
        }
        let mut chunks: VecDeque<Result<Bytes, UfsError>> = bytes_of(range.clone())
            .chunks(ufs.chunk)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        match fault {
            Some(Fault::BreakAfter(n, kind)) => {
                chunks.truncate(n);
                chunks.push_back(Err(ufs_error(kind)));
            }
            Some(Fault::CutAfter(n)) => chunks.truncate(n),
            Some(Fault::TooLong) => chunks.push_back(Ok(Bytes::from_static(b"x"))),
            _ => {}
        }
        let len = range.end - range.start;
        let open = ufs.open_bytes.fetch_add(len, Ordering::SeqCst) + len;
        ufs.most_open_bytes.fetch_max(open, Ordering::SeqCst);
        let body = Body { ufs, len, chunks };
        Ok(stream::unfold(body, |mut body| async {
            let chunk = body.chunks.pop_front()?;
            let permit = body.ufs.gate.acquire().await.expect("the gate stays");
            permit.forget();
            Some((chunk, body))
        })
        .boxed())
    }

    async fn read_chosen(
        &self,
        path: &str,
        version: &FileVersion,
        choose: Choice<'_>,
    ) -> Result<Option<(Range<u64>, ByteStream)>, UfsError> {
        match self.0.turns.acquire().await {
            Ok(turn) => turn.forget(),
            Err(_) => return Err(ufs_error(ErrorKind::Busy)),
        }
        let Some(range) = choose() else {
            return Ok(None);
        };
        let stream = self.read(path, version, range.clone()).await?;
        Ok(Some((range, stream)))
    }

    async fn read_link(&self, _path: &str) -> Result<String, UfsError> {
        Err(ufs_error(ErrorKind::Unsupported))
    }
}

struct Body {
    ufs: Arc<FakeUfs>,
    len: u64,
    chunks: VecDeque<Result<Bytes, UfsError>>,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.ufs.open_bytes.fetch_sub(self.len, Ordering::SeqCst);
    }
}

/// Another node that holds some blocks.
#[derive(Debug, Default)]
struct FakePeers {
    held: HashMap<BlockId, Block>,
    asked: AtomicUsize,
}

#[async_trait]
impl Peek for FakePeers {
    async fn peek(
        &self,
        _node: NodeId,
        job: &FillJob,
        _deadline: Instant,
    ) -> Result<Block, ErrorKind> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let block = self.held.get(&job.block);
        block.cloned().ok_or(ErrorKind::NotFound)
    }
}

const LEN: u32 = 256 << 10;

struct Rig {
    fills: Fills,
    store: Store,
    metrics: Arc<NodeMetrics>,
}

async fn rig_with(limits: FillLimits, peers: FakePeers) -> Rig {
    let config = StoreConfig::new(16 << 20, None, None);
    let store = Store::open(config).await.unwrap();
    let metrics = NodeMetrics::new(&mut Registry::default());
    let fills = Fills::new(store.clone(), Arc::new(peers), limits, Arc::clone(&metrics));
    Rig {
        fills,
        store,
        metrics,
    }
}

async fn rig() -> Rig {
    rig_with(FillLimits::for_memory(64 << 20), FakePeers::default()).await
}

fn job(ufs: &Arc<FakeUfs>, index: u64) -> FillJob {
    let start = index * u64::from(LEN);
    FillJob {
        block: BlockId::new(FileId([7; 16]), index),
        range: start..start + u64::from(LEN),
        file_size: 1 << 40,
        ufs: Arc::new(Shared(Arc::clone(ufs))),
        path: "file".to_owned(),
        version: FileVersion::Modified(1),
        policy: Policy::default(),
        holders: Vec::new(),
    }
}

impl Rig {
    fn join(&self, job: FillJob) -> FillReader {
        match self.fills.join(job).unwrap() {
            Joined::Filling(reader) => reader,
            Joined::Present => panic!("the block is in the store already"),
        }
    }

    /// Waits until nothing is being filled any more.
    async fn settled(&self) {
        while !self.fills.inner.in_flight.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

/// Reads `range` of a block and checks bytes and checksums of every chunk.
async fn read(mut reader: FillReader, index: u64, range: Range<u32>) -> Result<Tier, FillError> {
    let mut at = range.start;
    let mut tier = Tier::None;
    while at < range.end {
        let chunk = reader.next(at, range.end).await?;
        let start = index * u64::from(LEN) + u64::from(at);
        let expected = bytes_of(start..start + chunk.data.len() as u64);
        assert!(chunk.data == expected, "wrong bytes at {at}");
        let sums: Vec<u32> = millpond_proto::checksum::pieces(at, chunk.data.len() as u32)
            .map(|p| {
                let piece = &chunk.data[p.start as usize..][..p.len as usize];
                millpond_proto::checksum::crc32c(piece)
            })
            .collect();
        assert_eq!(chunk.checksums, sums);
        at += chunk.data.len() as u32;
        tier = chunk.tier;
    }
    Ok(tier)
}

#[tokio::test]
async fn however_many_ask_the_ufs_is_read_once() {
    let rig = rig().await;
    let ufs = FakeUfs::open_gate(10_000);
    let waiters = (0..64u32).map(|i| {
        let reader = rig.join(job(&ufs, 3));
        read(reader, 3, i * 1000..LEN - i * 777)
    });
    let tiers = futures::future::join_all(waiters.collect::<Vec<_>>()).await;
    assert!(tiers.iter().all(|t| matches!(t, Ok(Tier::Ufs))));
    assert_eq!(ufs.reads(), 1);
    rig.settled().await;
    let hit = rig.store.read_memory(&job(&ufs, 3).block, 0, LEN).unwrap();
    let expected = bytes_of(job(&ufs, 3).range);
    assert!(hit.data == expected);
    assert_eq!(&hit.checksums[..], &page_checksums(&expected)[..]);
    assert_eq!(rig.metrics.ufs_bytes.get(), u64::from(LEN));
}

#[tokio::test]
async fn whoever_asks_after_the_fill_is_sent_to_the_store() {
    let rig = rig().await;
    let ufs = FakeUfs::open_gate(10_000);
    rig.join(job(&ufs, 0)).ended().await.unwrap();
    assert!(matches!(rig.fills.join(job(&ufs, 0)), Ok(Joined::Present)));
    assert_eq!(ufs.reads(), 1);
}

#[tokio::test]
async fn a_waiter_that_goes_away_leaves_the_fill_to_the_others() {
    let rig = rig().await;
    let ufs = FakeUfs::closed_gate(50_000);
    let first = rig.join(job(&ufs, 0));
    let second = rig.join(job(&ufs, 0));
    tokio::task::yield_now().await;
    drop(first);
    ufs.gate.add_permits(100);
    assert_eq!(read(second, 0, 0..LEN).await.unwrap(), Tier::Ufs);
    assert_eq!(ufs.reads(), 1);
}

#[tokio::test]
async fn a_fill_without_any_waiter_left_still_ends_in_the_store() {
    let rig = rig().await;
    let ufs = FakeUfs::closed_gate(50_000);
    drop(rig.join(job(&ufs, 0)));
    tokio::task::yield_now().await;
    ufs.gate.add_permits(100);
    rig.settled().await;
    assert_eq!(rig.store.locate(&job(&ufs, 0).block), Tier::Memory);
}

#[tokio::test]
async fn bytes_reach_waiters_before_the_block_is_whole() {
    let rig = rig().await;
    let ufs = FakeUfs::closed_gate(64 << 10);
    let mut reader = rig.join(job(&ufs, 0));
    ufs.gate.add_permits(1);
    let first = reader.next(100, LEN).await.unwrap();
    assert_eq!(first.data.len(), (64 << 10) - 100);
    assert_eq!(rig.store.locate(&job(&ufs, 0).block), Tier::None);
    // What lies behind has not come yet.
    let mut ahead = rig.join(job(&ufs, 0));
    let waiting = tokio::time::timeout(Duration::from_millis(20), ahead.next(LEN - 5, LEN));
    assert!(waiting.await.is_err());
    ufs.gate.add_permits(100);
    assert_eq!(ahead.next(LEN - 5, LEN).await.unwrap().data.len(), 5);
    read(reader, 0, 64 << 10..LEN).await.unwrap();
}

#[tokio::test]
async fn a_failure_reaches_all_waiters_once_and_the_next_try_starts_anew() {
    let rig = rig().await;
    let ufs = FakeUfs::open_gate(50_000);
    ufs.will(Fault::Refuse(ErrorKind::Unavailable));
    let waiters = (0..8).map(|_| read(rig.join(job(&ufs, 0)), 0, 0..LEN));
    for outcome in futures::future::join_all(waiters.collect::<Vec<_>>()).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error_chain(&error).contains("as the test wants it"));
    }
    assert_eq!(ufs.reads(), 1);
    read(rig.join(job(&ufs, 0)), 0, 0..LEN).await.unwrap();
    assert_eq!(ufs.reads(), 2);
}

#[tokio::test]
async fn a_changed_object_is_stale_and_nothing_of_it_is_kept() {
    let rig = rig().await;
    let ufs = FakeUfs::open_gate(64 << 10);
    for fault in [
        Fault::Refuse(ErrorKind::Stale),
        Fault::BreakAfter(3, ErrorKind::Stale),
        // All bytes came, and only then the store said that they are of another version.
        Fault::BreakAfter(4, ErrorKind::Stale),
    ] {
        ufs.will(fault);
        let error = rig.join(job(&ufs, 0)).ended().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "{fault:?}");
        assert_eq!(rig.store.locate(&job(&ufs, 0).block), Tier::None);
    }
}

#[tokio::test]
async fn a_body_of_the_wrong_length_is_never_a_block() {
    let rig = rig().await;
    let ufs = FakeUfs::open_gate(64 << 10);
    for fault in [Fault::CutAfter(2), Fault::CutAfter(0), Fault::TooLong] {
        ufs.will(fault);
        let error = rig.join(job(&ufs, 0)).ended().await.unwrap_err();
        assert!(
            matches!(error, FillError::Length { .. }),
            "{fault:?}: {error}"
        );
        assert!(error.kind().try_next_source());
        assert_eq!(rig.store.locate(&job(&ufs, 0).block), Tier::None);
    }
}

#[tokio::test]
async fn a_silent_ufs_is_given_up() {
    let limits = FillLimits {
        stall: Duration::from_millis(50),
        ..FillLimits::for_memory(64 << 20)
    };
    let rig = rig_with(limits, FakePeers::default()).await;
    let ufs = FakeUfs::closed_gate(64 << 10);
    ufs.gate.add_permits(1);
    let error = rig.join(job(&ufs, 0)).ended().await.unwrap_err();
    assert!(
        matches!(error, FillError::Stalled { have: 65536, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn bytes_in_flight_never_exceed_the_budget() {
    let budget = u64::from(LEN) * 3;
    let rig = rig_with(FillLimits::for_memory(budget), FakePeers::default()).await;
    let ufs = FakeUfs::open_gate(20_000);
    let readers: Vec<_> = (0..40)
        .map(|i| read(rig.join(job(&ufs, i)), i, 0..LEN))
        .collect();
    for outcome in futures::future::join_all(readers).await {
        outcome.unwrap();
    }
    assert_eq!(ufs.reads(), 40);
    let most = ufs.most_open_bytes.load(Ordering::SeqCst);
    assert!(most <= budget, "{most} bytes were in flight");
    rig.settled().await;
    assert_eq!(rig.fills.bytes_in_flight(), 0);
}

#[tokio::test]
async fn fills_that_wait_too_long_or_are_too_many_are_busy() {
    let limits = FillLimits {
        queued: 2,
        patience: Duration::from_millis(20),
        ..FillLimits::for_memory(u64::from(LEN))
    };
    let rig = rig_with(limits, FakePeers::default()).await;
    let ufs = FakeUfs::closed_gate(64 << 10);
    let _running = rig.join(job(&ufs, 0));
    let mut waiting = rig.join(job(&ufs, 1));
    let refused = rig.fills.join(job(&ufs, 2)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    let error = waiting.ended().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
}

#[tokio::test]
async fn a_node_that_holds_the_block_saves_the_ufs_a_read() {
    let ufs = FakeUfs::open_gate(50_000);
    let held = Block::new(Bytes::from(bytes_of(job(&ufs, 0).range)));
    let peers = FakePeers {
        held: HashMap::from([(job(&ufs, 0).block, held)]),
        ..FakePeers::default()
    };
    let rig = rig_with(FillLimits::for_memory(64 << 20), peers).await;
    let with_holder = |index| FillJob {
        holders: vec![NodeId(9)],
        ..job(&ufs, index)
    };
    let tier = read(rig.join(with_holder(0)), 0, 10..LEN).await.unwrap();
    assert_eq!((tier, ufs.reads()), (Tier::Peer, 0));
    let tier = read(rig.join(with_holder(1)), 1, 10..LEN).await.unwrap();
    assert_eq!((tier, ufs.reads()), (Tier::Ufs, 1));
    assert_eq!(rig.metrics.peer_bytes.get(), u64::from(LEN));
}

#[tokio::test]
async fn a_block_of_the_wrong_length_from_a_node_is_not_taken() {
    let ufs = FakeUfs::open_gate(50_000);
    let short = Block::new(Bytes::from_static(b"short"));
    let peers = FakePeers {
        held: HashMap::from([(job(&ufs, 0).block, short)]),
        ..FakePeers::default()
    };
    let rig = rig_with(FillLimits::for_memory(64 << 20), peers).await;
    let job = FillJob {
        holders: vec![NodeId(9)],
        ..job(&ufs, 0)
    };
    let tier = read(rig.join(job), 0, 0..LEN).await.unwrap();
    assert_eq!((tier, ufs.reads()), (Tier::Ufs, 1));
}

#[tokio::test]
async fn a_peek_joins_only_fills_that_read_the_ufs() {
    let rig = rig().await;
    let ufs = FakeUfs::closed_gate(64 << 10);
    let block = job(&ufs, 0).block;
    assert!(rig.fills.peek(&block).is_none());
    let mut first = rig.join(job(&ufs, 0));
    // Not started yet: it might still ask the very node that peeks.
    assert!(rig.fills.peek(&block).is_none());
    ufs.gate.add_permits(1);
    first.next(0, 1).await.unwrap();
    let joined = rig.fills.peek(&block).unwrap();
    ufs.gate.add_permits(100);
    read(joined, 0, 0..LEN).await.unwrap();
    assert_eq!(ufs.reads(), 1);
}

#[tokio::test]
async fn shutdown_ends_fills_and_tells_their_waiters() {
    let rig = rig().await;
    let ufs = FakeUfs::closed_gate(64 << 10);
    let mut reader = rig.join(job(&ufs, 0));
    tokio::task::yield_now().await;
    rig.fills.shutdown().await;
    let error = reader.ended().await.unwrap_err();
    assert!(matches!(error, FillError::ShuttingDown { .. }), "{error}");
    assert!(rig.fills.join(job(&ufs, 1)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the chunks, the ranges and the failures: a waiter gets exactly the right
    /// bytes or an error, and each successful round costs one read.
    #[test]
    fn waiters_get_the_right_bytes_or_an_error(
        chunk in 1_000usize..200_000,
        ranges in proptest::collection::vec((0..LEN, 1..LEN), 1..12),
        broken in proptest::option::of(0usize..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let rig = rig().await;
            let ufs = FakeUfs::open_gate(chunk);
            if let Some(after) = broken {
                ufs.will(Fault::BreakAfter(after, ErrorKind::Timeout));
            }
            let waiters = ranges.iter().map(|&(start, len)| {
                read(rig.join(job(&ufs, 5)), 5, start..LEN.min(start + len))
            });
            for outcome in futures::future::join_all(waiters.collect::<Vec<_>>()).await {
                match outcome {
                    Ok(tier) => assert_eq!(tier, Tier::Ufs),
                    Err(error) => assert_eq!((error.kind(), broken.is_some()), (ErrorKind::Timeout, true)),
                }
            }
            assert_eq!(ufs.reads(), 1);
            rig.settled().await;
            let kept = rig.store.locate(&job(&ufs, 5).block) == Tier::Memory;
            assert_eq!(kept, broken.is_none());
        });
    }
}
