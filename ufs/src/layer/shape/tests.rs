//! The decorator as a whole. What takes time is held to a least duration only: a busy machine
//! may always take longer. That it need not is shown in `pace`, without a clock.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use prometheus_client::registry::Registry;

use super::*;
use crate::context::UfsContext;
use crate::memory::MemoryStore;
use crate::metrics::UfsMetrics;
use crate::ufs::read_to_bytes;

const SIZE: usize = 300_000;

/// The store `name` with one file `f`, opened once for each of `opens` with these options.
struct Opened {
    ufs: Vec<Arc<dyn Ufs>>,
    metrics: Arc<UfsMetrics>,
    version: FileVersion,
    data: Vec<u8>,
}

async fn opened(name: &str, opens: usize, options: &[(&str, &str)]) -> Opened {
    let data: Vec<u8> = (0..SIZE).map(|n| (n * n / 7) as u8).collect();
    let version = MemoryStore::named(name).put("f", data.clone());
    let metrics = Arc::new(UfsMetrics::new(&mut Registry::default()));
    let context = UfsContext {
        metrics: Arc::clone(&metrics),
        ..UfsContext::detached()
    };
    let options: BTreeMap<String, String> = options
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut ufs = Vec::new();
    for _ in 0..opens {
        let uri = format!("memory:///{name}");
        ufs.push(crate::open(&uri, &options, context.clone()).await.unwrap());
    }
    Opened {
        ufs,
        metrics,
        version,
        data,
    }
}

impl Opened {
    async fn read(&self, which: usize, range: Range<u64>) -> Result<Bytes, UfsError> {
        read_to_bytes(&*self.ufs[which], "f", &self.version, range).await
    }
}

#[tokio::test]
async fn bytes_are_unchanged_in_every_range() {
    let shape = [("shape", "s3-express"), ("shape.latency", "0s")];
    let store = opened("shape_bytes", 1, &shape).await;
    for range in [0..SIZE, 0..1, 7..7, 131_071..262_146, SIZE - 1..SIZE] {
        let read = store.read(0, range.start as u64..range.end as u64).await;
        assert_eq!(read.unwrap(), store.data[range]);
    }
    let beyond = store.read(0, 0..SIZE as u64 + 1).await.unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn every_kind_of_request_waits_for_its_latency() {
    let latency = Duration::from_millis(30);
    let store = opened("shape_latency", 1, &[("shape.latency", "30ms")]).await;
    let ufs = &store.ufs[0];
    let start = Instant::now();
    ufs.stat("f").await.unwrap();
    assert!(start.elapsed() >= latency);
    let start = Instant::now();
    let pages: Vec<_> = ufs.list("").try_collect().await.unwrap();
    assert!(start.elapsed() >= latency * pages.len() as u32 && !pages.is_empty());
    let start = Instant::now();
    let mut stream = ufs.read("f", &store.version, 0..10).await.unwrap();
    assert!(start.elapsed() >= latency);
    assert_eq!(stream.next().await.unwrap().unwrap(), store.data[..10]);
    let start = Instant::now();
    assert!(ufs.read_link("f").await.is_err());
    assert!(start.elapsed() >= latency);
}

#[tokio::test]
async fn a_stream_has_no_more_than_its_bandwidth() {
    let store = opened("shape_stream", 1, &[("shape.stream_bandwidth", "1MB/s")]).await;
    let start = Instant::now();
    let bytes = 100_000;
    let both = tokio::join!(store.read(0, 0..bytes), store.read(0, 0..bytes));
    both.0.and(both.1).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn all_who_open_a_store_share_its_total_bandwidth() {
    let store = opened("shape_total", 2, &[("shape.total_bandwidth", "1MB/s")]).await;
    let start = Instant::now();
    let bytes = 100_000;
    let both = tokio::join!(store.read(0, 0..bytes), store.read(1, 0..bytes));
    both.0.and(both.1).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn requests_beyond_the_rate_are_busy_and_counted_as_such() {
    let store = opened("shape_rate", 2, &[("shape.request_rate", "1")]).await;
    let both = || store.ufs.iter().map(|ufs| ufs.stat("f"));
    let answers = futures::future::join_all(both().chain(both())).await;
    let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(!served.is_empty() && !refused.is_empty());
    for error in refused.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("shape.request_rate"), "{error}");
    }
    assert_eq!(store.metrics.succeeded(Op::Stat), served.len() as u64);
    let counted = store.metrics.failed(Op::Stat, ErrorKind::Busy);
    assert_eq!(counted, refused.len() as u64);
}

#[tokio::test]
async fn failures_are_injected_at_their_rate_and_the_same_with_the_same_seed() {
    let fates = async |seed: &str| {
        let options = [("shape.error_rate", "0.3"), ("shape.seed", seed)];
        let store = opened("shape_errors", 1, &options).await;
        let mut fates = Vec::new();
        for _ in 0..300 {
            match store.read(0, 0..10).await {
                Ok(bytes) => assert_eq!(bytes, store.data[..10]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
            }
            fates.push(store.metrics.failed(Op::Read, ErrorKind::Unavailable));
        }
        let served = store.metrics.succeeded(Op::Read);
        assert_eq!(served + fates[299], 300);
        fates
    };
    let first = fates("5").await;
    assert!((60..120).contains(&first[299]), "{}", first[299]);
    assert_eq!(first, fates("5").await);
    assert_ne!(first, fates("6").await);
}

#[tokio::test]
async fn a_listing_that_fails_ends() {
    let store = opened("shape_list", 1, &[("shape.error_rate", "1")]).await;
    let mut pages = store.ufs[0].list("");
    let error = pages.next().await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.op()),
        (ErrorKind::Unavailable, Op::List)
    );
    assert!(pages.next().await.is_none());
}

#[tokio::test]
async fn a_wrong_shape_is_refused_at_the_door() {
    let options = BTreeMap::from([("shape".to_owned(), "floppy".to_owned())]);
    let error = crate::open("memory:///shape_wrong", &options, UfsContext::detached()).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("s3-same-region"), "{error}");
}
