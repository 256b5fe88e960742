//! What the layer promises, over stores that hang, refuse and count.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::registry::Registry;

use super::*;
use crate::context::{InFlight, UfsContext};
use crate::memory::MemoryStore;
use crate::metadata::Metadata;
use crate::ufs::EntryStream;

/// A store that never answers.
#[derive(Debug)]
pub(crate) struct Stuck;

#[async_trait]
impl Ufs for Stuck {
    fn uri(&self) -> &str {
        "stuck:"
    }

    fn object_uri(&self, path: &str) -> String {
        format!("stuck:{path}")
    }

    async fn stat(&self, _: &str) -> Result<Metadata, UfsError> {
        std::future::pending().await
    }

    fn list(&self, _: &str) -> EntryStream {
        futures::stream::pending().boxed()
    }

    async fn read(
        &self,
        _: &str,
        _: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        if range.is_empty() {
            return Ok(futures::stream::pending().boxed());
        }
        std::future::pending().await
    }

    async fn read_link(&self, _: &str) -> Result<String, UfsError> {
        std::future::pending().await
    }
}

const VERSION: FileVersion = FileVersion::Modified(0);

fn metrics() -> Arc<UfsMetrics> {
    Arc::new(UfsMetrics::new(&mut Registry::default()))
}

/// [`Stuck`] behind so many slots, within those of a process.
fn stuck(slots: u32, process: &InFlight) -> (Limited, Arc<UfsMetrics>) {
    let metrics = metrics();
    let valve = Valve::new(slots, process, Arc::clone(&metrics));
    let patience = Duration::from_millis(20);
    let counted = Arc::clone(&metrics);
    let limited = Limited::new(Arc::new(Stuck), valve, Rates::default(), patience, counted);
    (limited, metrics)
}

#[tokio::test]
async fn an_open_stream_holds_its_slot_until_dropped() {
    let (ufs, metrics) = stuck(1, &InFlight::default());
    let stream = ufs.read("a", &VERSION, 0..0).await.expect("a slot is free");
    let busy = ufs.read("a", &VERSION, 0..0).await.err();
    assert_eq!(busy.expect("no slot").kind(), ErrorKind::Busy);
    assert_eq!((metrics.in_flight(), metrics.waiting()), (1, 0));
    drop(stream);
    assert!(ufs.read("a", &VERSION, 0..0).await.is_ok());
    assert_eq!(metrics.in_flight(), 0);
}

#[tokio::test]
async fn streams_that_nobody_reads_on_do_not_keep_questions_out() {
    let (ufs, metrics) = stuck(8, &InFlight::default());
    let mut streams = Vec::new();
    while let Ok(stream) = ufs.read("a", &VERSION, 0..0).await {
        streams.push(stream);
    }
    assert_eq!(streams.len(), 7);
    let mut stat = ufs.stat("a");
    assert!(futures::poll!(stat.as_mut()).is_pending());
    assert_eq!(metrics.in_flight(), 8, "it is at the store");
}

#[tokio::test]
async fn the_mounts_of_a_process_share_its_bound() {
    let process = InFlight::at_most(2);
    let (first, _) = stuck(8, &process);
    let (second, _) = stuck(8, &process);
    let held = first.read("a", &VERSION, 0..0).await;
    assert!(held.is_ok());
    let busy = second.read("a", &VERSION, 0..0).await.err();
    assert_eq!(busy.expect("no slot").kind(), ErrorKind::Busy);
    drop(held);
    assert!(second.read("a", &VERSION, 0..0).await.is_ok());
}

#[tokio::test]
async fn a_mount_that_is_closed_is_not_counted_any_more() {
    let (ufs, metrics) = stuck(8, &InFlight::default());
    assert_eq!(metrics.in_flight_limit(), 8);
    drop(ufs);
    assert_eq!(metrics.in_flight_limit(), 0);
}

#[tokio::test]
async fn what_a_read_is_of_is_decided_when_it_goes_out() {
    let (ufs, metrics) = stuck(1, &InFlight::default());
    let held = ufs.read("a", &VERSION, 0..0).await.expect("a slot");
    let decided = std::sync::atomic::AtomicBool::new(false);
    let choose = || {
        decided.store(true, std::sync::atomic::Ordering::SeqCst);
        None
    };
    let mut read = ufs.read_chosen("a", &VERSION, Box::new(choose));
    assert!(futures::poll!(read.as_mut()).is_pending());
    assert!(!decided.load(std::sync::atomic::Ordering::SeqCst));
    drop(held);
    assert!(read.await.expect("nothing failed").is_none());
    assert!(decided.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(metrics.in_flight(), 0, "it did not go out");
}

/// A store in memory with one object of 400 kB, opened with `options`.
async fn opened(name: &str, options: &[(&str, &str)]) -> (Arc<dyn Ufs>, FileVersion) {
    opened_in(name, options, UfsContext::detached()).await
}

async fn opened_in(
    name: &str,
    options: &[(&str, &str)],
    context: UfsContext,
) -> (Arc<dyn Ufs>, FileVersion) {
    let version = MemoryStore::named(name).put("f", vec![7; 400_000]);
    let options: BTreeMap<String, String> = options
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let uri = format!("memory:///{name}");
    let ufs = crate::open(&uri, &options, context).await;
    (ufs.expect("it opens"), version)
}

#[tokio::test]
async fn reads_have_the_bandwidth_of_the_mount_and_no_more() {
    let (ufs, version) = opened("limited_bandwidth", &[("ufs_bandwidth", "1MB/s")]).await;
    let start = Instant::now();
    let reads = (0..4).map(|n| {
        let range = n * 100_000..(n + 1) * 100_000;
        crate::read_to_bytes(&*ufs, "f", &version, range)
    });
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.expect("it only waits").len(), 100_000);
    }
    // The first has the burst, the last need not wait for what it takes itself.
    assert!(start.elapsed() >= Duration::from_millis(190));
}

#[tokio::test]
async fn bytes_that_nobody_took_are_not_charged() {
    let (ufs, version) = opened("limited_unused", &[("ufs_bandwidth", "10kB/s")]).await;
    for _ in 0..200 {
        // 40 s each, were they charged.
        drop(ufs.read("f", &version, 0..400_000).await.expect("no wait"));
    }
}

#[tokio::test]
async fn requests_beyond_the_budget_wait_their_turn() {
    let (ufs, _) = opened("limited_requests", &[("ufs_requests", "20")]).await;
    let start = Instant::now();
    for _ in 0..8 {
        ufs.stat("f").await.expect("it only waits");
    }
    // Two at once, then one every 50 ms.
    assert!(start.elapsed() >= Duration::from_millis(290));
}

#[tokio::test]
async fn who_would_wait_for_too_long_is_told_which_option_to_raise() {
    for (name, option) in [
        ("limited_busy_bytes", ("ufs_bandwidth", "1kB/s")),
        ("limited_busy_requests", ("ufs_requests", "1")),
    ] {
        let (ufs, version) = opened(name, &[option, ("timeout", "20ms")]).await;
        // Seconds each, whatever the machine does meanwhile.
        let reads = (0..100).map(|_| crate::read_to_bytes(&*ufs, "f", &version, 0..100_000));
        let busy = futures::future::join_all(reads).await;
        let busy: Vec<_> = busy.into_iter().filter_map(Result::err).collect();
        assert!(!busy.is_empty());
        for error in busy {
            assert_eq!(error.kind(), ErrorKind::Busy);
            assert!(error.to_string().contains(option.0), "{error}");
        }
    }
}

/// A store that always wants less.
#[derive(Debug)]
struct Refusing;

fn refusal() -> UfsError {
    UfsError::new(ErrorKind::Busy, Op::Stat, "refusing:", "slow down")
}

#[async_trait]
impl Ufs for Refusing {
    fn uri(&self) -> &str {
        "refusing:"
    }

    fn object_uri(&self, path: &str) -> String {
        format!("refusing:{path}")
    }

    async fn stat(&self, _: &str) -> Result<Metadata, UfsError> {
        Err(refusal())
    }

    fn list(&self, _: &str) -> EntryStream {
        futures::stream::iter([Err(refusal())]).boxed()
    }

    async fn read(
        &self,
        _: &str,
        _: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        match range.is_empty() {
            true => Ok(futures::stream::iter([Err(refusal())]).boxed()),
            false => Err(refusal()),
        }
    }

    async fn read_link(&self, _: &str) -> Result<String, UfsError> {
        Err(refusal())
    }
}

#[tokio::test]
async fn a_store_that_refuses_is_asked_for_less_at_once() {
    let metrics = metrics();
    let valve = Valve::new(16, &InFlight::default(), Arc::clone(&metrics));
    let (patience, counted) = (Duration::from_secs(10), Arc::clone(&metrics));
    let refusing = Arc::new(Refusing);
    let ufs = Limited::new(refusing, valve, Rates::default(), patience, counted);
    let mut limits = vec![metrics.in_flight_limit()];
    assert!(ufs.stat("a").await.is_err());
    limits.push(metrics.in_flight_limit());
    assert!(ufs.read("a", &VERSION, 0..1).await.is_err());
    limits.push(metrics.in_flight_limit());
    let mut broken = ufs.read("a", &VERSION, 0..0).await.expect("it begins");
    assert!(broken.next().await.expect("an end").is_err());
    limits.push(metrics.in_flight_limit());
    assert!(ufs.list("").next().await.expect("an end").is_err());
    limits.push(metrics.in_flight_limit());
    assert_eq!(limits, [16, 11, 7, 4, 2]);
    assert_eq!(metrics.backoffs(), 4);
}

#[tokio::test]
async fn values_without_meaning_are_refused() {
    for (option, value) in [
        ("ufs_bandwidth", "fast"),
        ("ufs_bandwidth", "0"),
        ("ufs_requests", "0"),
        ("ufs_requests", "-3"),
    ] {
        let options = BTreeMap::from([(option.to_owned(), value.to_owned())]);
        let context = UfsContext::detached();
        let error = crate::open("memory:///limited_wrong", &options, context).await;
        let error = error.expect_err("no meaning");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(
            text.contains(option) && text.contains("unlimited"),
            "{text}"
        );
    }
}
