//! A UFS that fails for a while.

use std::ops::Range;
use std::time::Instant;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use millpond_proto::{ErrorKind, FileVersion, MountId};
use millpond_ufs::ufs::{ByteStream, EntryStream};
use millpond_ufs::{Metadata, Op, Ufs, UfsContext, UfsError};

use super::node::{client_of, mounts};
use super::*;

/// Fails the first calls with `kind`, then passes on to `inner`.
#[derive(Debug)]
struct Flaky {
    inner: Arc<dyn Ufs>,
    kind: ErrorKind,
    failing: AtomicU32,
    calls: AtomicU32,
}

impl Flaky {
    fn check(&self) -> Result<(), UfsError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let left = |n: u32| n.checked_sub(1);
        match self
            .failing
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left)
        {
            Ok(_) => Err(UfsError::new(self.kind, Op::Read, "flaky:", "as told")),
            Err(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Ufs for Flaky {
    fn uri(&self) -> &str {
        self.inner.uri()
    }

    fn object_uri(&self, path: &str) -> String {
        self.inner.object_uri(path)
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        self.check()?;
        self.inner.stat(path).await
    }

    fn list(&self, dir: &str) -> EntryStream {
        match self.check() {
            Ok(()) => self.inner.list(dir),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn read(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        self.check()?;
        self.inner.read(path, version, range).await
    }

    async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        self.inner.read_link(path).await
    }
}

/// A client whose only mount, at `/`, is `uri` behind a flaky layer.
async fn flaky(uri: &str, kind: ErrorKind) -> (FileSystem, Arc<Flaky>) {
    let options = BTreeMap::new();
    let inner = millpond_ufs::open(uri, &options, UfsContext::detached()).await;
    let flaky = Arc::new(Flaky {
        inner: inner.unwrap(),
        kind,
        failing: AtomicU32::new(0),
        calls: AtomicU32::new(0),
    });
    let fs = client_of(mounts(&[("/", uri)])).await;
    let store = fs.core().snapshot().store(MountId(1)).unwrap();
    let ufs: Arc<dyn Ufs> = Arc::<Flaky>::clone(&flaky);
    store.preset(ufs);
    (fs, flaky)
}

#[tokio::test]
async fn a_ufs_that_recovers_before_the_deadline_costs_time_and_no_error() {
    let (store, uri) = fresh_store();
    store.put("f", "content");
    for kind in ErrorKind::ALL
        .into_iter()
        .filter(|kind| kind.try_next_source())
    {
        let (fs, flaky) = flaky(&uri, kind).await;
        let file = fs.open("/f").await.unwrap();
        flaky.failing.store(3, Ordering::SeqCst);
        assert_eq!(file.read(0, 100).await.unwrap(), "content", "{kind}");
        assert_eq!(fs.core().metrics.retries.get(), 3);
    }
}

#[tokio::test]
async fn errors_that_no_repetition_changes_come_at_once() {
    let (store, uri) = fresh_store();
    store.put("f", "content");
    let (fs, flaky) = flaky(&uri, ErrorKind::Denied).await;
    let file = fs.open("/f").await.unwrap();
    flaky.failing.store(1, Ordering::SeqCst);
    let started = Instant::now();
    assert_eq!(
        file.read(0, 100).await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(
        file.read(0, 100).await.unwrap(),
        "content",
        "and are not kept"
    );
}

#[tokio::test]
async fn errors_of_metadata_are_not_cached() {
    let (store, uri) = fresh_store();
    store.put("f", "content");
    let (fs, flaky) = flaky(&uri, ErrorKind::Denied).await;
    flaky.failing.store(2, Ordering::SeqCst);
    let error = fs.stat("/f").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(list(&fs).await.is_err());
    assert_eq!(fs.stat("/f").await.unwrap().size, 7);
    assert_eq!(list(&fs).await.unwrap(), 1);
}

#[tokio::test]
async fn metadata_of_a_ufs_that_recovers_costs_time_and_no_error() {
    let (store, uri) = fresh_store();
    store.put("f", "content");
    for kind in [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Busy] {
        let (fs, flaky) = flaky(&uri, kind).await;
        flaky.failing.store(2, Ordering::SeqCst);
        assert_eq!(fs.stat("/f").await.unwrap().size, 7, "{kind}");
        flaky.failing.store(2, Ordering::SeqCst);
        assert_eq!(list(&fs).await.unwrap(), 1, "{kind}");
        assert_eq!(fs.core().metrics.metadata_retries.get(), 4);
    }
}

/// How many entries the root has.
async fn list(fs: &FileSystem) -> Result<usize, crate::ClientError> {
    let pages: Vec<_> = fs.list("/").try_collect().await?;
    Ok(pages.iter().map(Vec::len).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_stat_one_path_cost_one_call() {
    let (store, uri) = fresh_store();
    store.put("f", "content");
    let (fs, flaky) = flaky(&uri, ErrorKind::Unavailable).await;
    let stats = (0..50).map(|_| {
        let fs = fs.clone();
        async move { fs.stat("/f").await.unwrap().size }
    });
    assert_eq!(futures::future::join_all(stats).await, [7; 50]);
    assert_eq!(flaky.calls.load(Ordering::SeqCst), 1);
}
