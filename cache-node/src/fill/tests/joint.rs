//! Fills that share a request: each keeps its own waiters, its own end and its own failure.

use std::collections::BTreeSet;

use super::*;

/// A UFS at which reads wait for their turn, one permit each.
struct Line {
    fake: Arc<FakeUfs>,
    ufs: Arc<dyn Ufs>,
}

impl Line {
    fn closed(chunk: usize) -> Self {
        let fake = FakeUfs::without_turns(chunk);
        fake.gate.add_permits(1 << 20);
        let ufs = Arc::new(Shared(Arc::clone(&fake)));
        Self { fake, ufs }
    }

    fn job(&self, index: u64) -> FillJob {
        FillJob {
            ufs: Arc::clone(&self.ufs),
            ..job(&self.fake, index)
        }
    }

    /// Starts fills of `indexes` in this order, and waits until all wait for their turn.
    async fn queue(&self, rig: &Rig, indexes: &[u64]) -> Vec<(u64, FillReader)> {
        let mut readers = Vec::new();
        for (n, &index) in indexes.iter().enumerate() {
            readers.push((index, rig.join(self.job(index))));
            while rig.fills.inner.queue.len() <= n {
                tokio::task::yield_now().await;
            }
        }
        readers
    }

    /// Lets so many reads go out.
    fn turns(&self, reads: usize) {
        self.fake.turns.add_permits(reads);
    }

    /// The ranges that were read, in halves of a block, in the order of the file.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let half = u64::from(LEN) / 2;
        let ranges = self.fake.ranges.lock();
        let mut ranges: Vec<_> = ranges
            .iter()
            .map(|range| (range.start / half, range.end / half))
            .collect();
        ranges.sort_unstable();
        ranges
    }
}

async fn read_all(readers: Vec<(u64, FillReader)>) -> Vec<Result<Tier, FillError>> {
    let readers = readers
        .into_iter()
        .map(|(index, reader)| read(reader, index, 0..LEN));
    futures::future::join_all(readers).await
}

#[tokio::test]
async fn one_request_brings_what_waits_beside_it() {
    for turns in [2, 5] {
        let rig = rig().await;
        let line = Line::closed(100_000);
        let readers = line.queue(&rig, &[4, 6, 3, 9, 5]).await;
        line.turns(turns);
        assert!(read_all(readers).await.iter().all(Result::is_ok));
        assert_eq!(line.ranges(), [(6, 14), (18, 20)]);
        rig.settled().await;
        assert_eq!(rig.metrics.ufs_reads.get(), 2);
        assert_eq!(rig.metrics.joined_fills.get(), 3);
        assert_eq!(rig.metrics.ufs_bytes.get(), 5 * u64::from(LEN));
        for index in [3, 4, 5, 6, 9] {
            let block = line.job(index).block;
            let hit = rig.store.read_memory(&block, 0, LEN).unwrap();
            assert!(hit.data == bytes_of(line.job(index).range));
        }
        assert_eq!(rig.fills.inner.queue.len(), 0);
    }
}

#[tokio::test]
async fn who_has_a_turn_at_once_waits_for_nobody() {
    let rig = rig().await;
    let line = Line::closed(100_000);
    line.turns(100);
    for index in 0..4 {
        let reader = rig.join(line.job(index));
        read(reader, index, 0..LEN).await.unwrap();
    }
    assert_eq!(line.fake.reads(), 4);
}

#[tokio::test]
async fn a_request_is_not_longer_than_pays() {
    let rig = rig().await;
    let line = Line::closed(1 << 20);
    let indexes: Vec<u64> = (0..70).collect();
    let readers = line.queue(&rig, &indexes).await;
    line.turns(2);
    assert!(read_all(readers).await.iter().all(Result::is_ok));
    assert_eq!(line.ranges(), [(0, 128), (128, 140)]);
}

#[tokio::test]
async fn mounts_do_not_read_for_each_other() {
    let rig = rig().await;
    let (line, other) = (Line::closed(100_000), Line::closed(100_000));
    let first = line.queue(&rig, &[0]).await;
    let second = (1, rig.join(other.job(1)));
    while rig.fills.inner.queue.len() < 2 {
        tokio::task::yield_now().await;
    }
    line.turns(1);
    other.turns(1);
    assert!(read_all(first).await.iter().all(Result::is_ok));
    assert!(read_all(vec![second]).await.iter().all(Result::is_ok));
    assert_eq!((line.fake.reads(), other.fake.reads()), (1, 1));
}

#[tokio::test]
async fn waiters_that_go_away_change_nothing_for_the_others() {
    let rig = rig().await;
    let line = Line::closed(100_000);
    let mut readers = line.queue(&rig, &[0, 1, 2]).await;
    let second_of_2 = rig.join(line.job(2));
    // The one whose request it will be, and one that is taken along.
    readers.truncate(2);
    drop(readers.remove(0));
    line.turns(1);
    read(second_of_2, 2, 0..LEN).await.unwrap();
    drop(readers);
    rig.settled().await;
    assert_eq!(line.fake.reads(), 1);
    for index in 0..3 {
        assert_eq!(rig.store.locate(&line.job(index).block), Tier::Memory);
    }
}

#[tokio::test]
async fn what_a_broken_request_left_over_goes_on_alone() {
    let rig = rig().await;
    let line = Line::closed(LEN as usize / 2);
    let readers = line.queue(&rig, &[0, 1, 2, 3]).await;
    line.fake.will(Fault::BreakAfter(3, ErrorKind::Unavailable));
    line.turns(1);
    // The first came whole, half of the second.
    assert!(read_all(readers).await.iter().all(Result::is_ok));
    let expected = [(0, 8), (3, 4), (4, 6), (6, 8)];
    assert_eq!(line.ranges(), expected);
}

#[tokio::test]
async fn the_fill_whose_request_broke_fails_and_no_other() {
    let rig = rig().await;
    let line = Line::closed(LEN as usize / 2);
    for fault in [
        Fault::BreakAfter(3, ErrorKind::Timeout),
        Fault::CutAfter(3),
        Fault::Refuse(ErrorKind::Busy),
    ] {
        let readers = line.queue(&rig, &[1, 0, 2]).await;
        line.fake.will(fault);
        line.turns(1);
        let outcomes = read_all(readers).await;
        let failed: Vec<_> = outcomes.iter().map(Result::is_err).collect();
        assert_eq!(failed, [true, false, false], "{fault:?}");
        rig.settled().await;
        // The next try starts anew.
        line.turns(1);
        read(rig.join(line.job(1)), 1, 0..LEN).await.unwrap();
        rig.settled().await;
        for index in 0..3 {
            rig.store.remove(&line.job(index).block).await;
        }
    }
}

#[tokio::test]
async fn a_request_that_fails_for_good_fails_all_and_nothing_of_it_is_kept() {
    let rig = rig().await;
    let line = Line::closed(LEN as usize / 2);
    for (fault, kind) in [
        (Fault::BreakAfter(3, ErrorKind::Stale), ErrorKind::Stale),
        // All came, and then the store disowned it.
        (
            Fault::BreakAfter(6, ErrorKind::Unavailable),
            ErrorKind::Unavailable,
        ),
        (Fault::TooLong, ErrorKind::Unavailable),
        (Fault::Refuse(ErrorKind::Denied), ErrorKind::Denied),
    ] {
        let before = line.fake.reads();
        let mut readers = line.queue(&rig, &[0, 1, 2]).await;
        line.fake.will(fault);
        line.turns(1);
        for (_, reader) in &mut readers {
            let error = reader.ended().await.unwrap_err();
            assert_eq!(error.kind(), kind, "{fault:?}");
        }
        rig.settled().await;
        assert_eq!(line.fake.reads(), before + 1, "{fault:?}");
        for index in 0..3 {
            assert_eq!(rig.store.locate(&line.job(index).block), Tier::None);
        }
    }
}

#[tokio::test]
async fn whoever_waits_for_its_turn_in_vain_leaves_the_queue() {
    let rig = rig().await;
    let line = Line::closed(100_000);
    let readers = line.queue(&rig, &[0, 1]).await;
    line.fake.turns.close();
    for outcome in read_all(readers).await {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Busy);
    }
    assert_eq!((rig.fills.inner.queue.len(), line.fake.reads()), (0, 0));
    assert_eq!(rig.metrics.ufs_reads.get(), 0);
}

#[tokio::test]
async fn a_shutdown_ends_those_that_are_taken_along() {
    let rig = rig().await;
    let fake = FakeUfs::without_turns(LEN as usize);
    let ufs = Arc::new(Shared(Arc::clone(&fake)));
    let line = Line { fake, ufs };
    let mut readers = line.queue(&rig, &[0, 1, 2]).await;
    line.turns(1);
    // The first came, the others are on their way.
    line.fake.gate.add_permits(1);
    readers[0].1.next(0, LEN).await.unwrap();
    rig.fills.shutdown().await;
    for (_, mut reader) in readers {
        let error = reader.ended().await.unwrap_err();
        assert!(matches!(error, FillError::ShuttingDown { .. }), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever waits, however the bytes are cut, and wherever the first request breaks: each
    /// waiter gets the right bytes of its block or an error, what failed is not kept and what
    /// did not fail is, and no block is asked for more than twice.
    #[test]
    fn each_block_is_right_or_an_error(
        indexes in proptest::collection::btree_set(0u64..12, 1..12),
        first in any::<proptest::sample::Index>(),
        chunk in 20_000usize..600_000,
        broken in proptest::option::of((0usize..40, any::<bool>())),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let rig = rig().await;
            let line = Line::closed(chunk);
            let mut order: Vec<u64> = indexes.iter().copied().collect();
            let len = order.len();
            order.rotate_left(first.index(len));
            if let Some((after, for_good)) = broken {
                let kind = if for_good { ErrorKind::Stale } else { ErrorKind::Timeout };
                line.fake.will(Fault::BreakAfter(after, kind));
            }
            let readers = line.queue(&rig, &order).await;
            let ends: Vec<_> = order.iter().map(|&index| rig.join(line.job(index))).collect();
            line.turns(order.len());
            let ends = readers.into_iter().zip(ends).map(|((index, reader), mut end)| async move {
                let bytes = read(reader, index, 0..LEN).await;
                (index, bytes, end.ended().await)
            });
            let mut failed = BTreeSet::new();
            for (index, bytes, end) in futures::future::join_all(ends.collect::<Vec<_>>()).await {
                // Bytes that came are right even if the fill fails behind them.
                assert!(bytes.is_ok() || end.is_err());
                if end.is_err() {
                    failed.insert(index);
                }
            }
            assert!(broken.is_some() || failed.is_empty());
            rig.settled().await;
            for index in indexes {
                let tier = rig.store.locate(&line.job(index).block);
                assert_eq!(tier == Tier::None, failed.contains(&index));
                let range = line.job(index).range;
                let asked = line.fake.ranges.lock();
                let asked = asked.iter().filter(|r| r.start < range.end && range.start < r.end);
                assert!(asked.count() <= 2);
            }
        });
    }
}
