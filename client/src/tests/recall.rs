//! Reading ahead ends with its reader, and the memory for it is one budget.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use millpond_proto::{FileVersion, MountId};
use millpond_ufs::ufs::{ByteStream, EntryStream};
use millpond_ufs::{Metadata, Ufs, UfsContext, UfsError, read_to_bytes};
use tokio::sync::watch;

use super::node::{client_with, mounts};
use super::*;
use crate::HintList;

/// A UFS that sends what lies below a limit, and counts.
#[derive(Debug)]
struct Gated {
    inner: Arc<dyn Ufs>,
    limit: watch::Sender<u64>,
    /// Between two chunks.
    pause: Duration,
    /// Bytes that were asked for.
    asked: AtomicU64,
    /// Bytes that were sent.
    sent: Arc<AtomicU64>,
    under_way: Arc<UnderWay>,
}

/// Bytes of requests that did not end, of all UFS of one client.
#[derive(Debug, Default)]
struct UnderWay {
    now: AtomicU64,
    most: AtomicU64,
}

/// One request under way.
struct Request {
    all: Arc<UnderWay>,
    len: u64,
}

impl Request {
    fn new(all: &Arc<UnderWay>, len: u64) -> Self {
        let now = all.now.fetch_add(len, Ordering::SeqCst) + len;
        all.most.fetch_max(now, Ordering::SeqCst);
        Self {
            all: Arc::clone(all),
            len,
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.all.now.fetch_sub(self.len, Ordering::SeqCst);
    }
}

const CHUNK: usize = 64 << 10;

#[async_trait]
impl Ufs for Gated {
    fn uri(&self) -> &str {
        self.inner.uri()
    }

    fn object_uri(&self, path: &str) -> String {
        self.inner.object_uri(path)
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        self.inner.stat(path).await
    }

    fn list(&self, dir: &str) -> EntryStream {
        self.inner.list(dir)
    }

    async fn read(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        let len = range.end - range.start;
        self.asked.fetch_add(len, Ordering::SeqCst);
        let request = Request::new(&self.under_way, len);
        let data = read_to_bytes(&*self.inner, path, version, range.clone()).await?;
        let state = (data, range.start, self.limit.subscribe(), request);
        let (sent, pause) = (Arc::clone(&self.sent), self.pause);
        let chunks = stream::unfold(state, move |(mut rest, at, mut limit, request)| {
            let sent = Arc::clone(&sent);
            async move {
                if rest.is_empty() {
                    return None;
                }
                let chunk = rest.split_to(rest.len().min(CHUNK));
                let end = at + chunk.len() as u64;
                limit.wait_for(|limit| end <= *limit).await.unwrap();
                tokio::time::sleep(pause).await;
                sent.fetch_add(chunk.len() as u64, Ordering::SeqCst);
                Some((Ok(chunk), (rest, end, limit, request)))
            }
        });
        Ok(chunks.boxed())
    }

    async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        self.inner.read_link(path).await
    }
}

impl Gated {
    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Sends everything before `limit` of a file from now on.
    fn let_through(&self, limit: u64) {
        self.limit.send_replace(limit);
    }
}

const SIZE: u64 = 32 * MIB;

/// A client of so much memory whose mounts, `/a` and `/b`, are behind gates. Each has a file
/// `f` of [`SIZE`].
async fn gated(memory: u64, pause: Duration) -> (FileSystem, [Arc<Gated>; 2], Arc<Vec<u8>>) {
    let data = Arc::new(pattern(5, SIZE));
    let stores = [fresh_store(), fresh_store()];
    let uris = stores.each_ref().map(|(store, uri)| {
        store.put("f", data.to_vec());
        uri.as_str()
    });
    let config = ClientConfig { memory, ..small() };
    let fs = client_with(mounts(&[("/a", uris[0]), ("/b", uris[1])]), config).await;
    let under_way = Arc::default();
    let mut gates = Vec::new();
    for (i, uri) in uris.into_iter().enumerate() {
        let inner = millpond_ufs::open(uri, &BTreeMap::new(), UfsContext::detached()).await;
        let gated = Arc::new(Gated {
            inner: inner.unwrap(),
            limit: watch::Sender::new(0),
            pause,
            asked: AtomicU64::new(0),
            sent: Arc::default(),
            under_way: Arc::clone(&under_way),
        });
        let ufs: Arc<dyn Ufs> = Arc::<Gated>::clone(&gated);
        let store = fs.core().snapshot().store(MountId(i as u64 + 1)).unwrap();
        store.preset(ufs);
        gates.push(gated);
    }
    (fs, gates.try_into().unwrap(), data)
}

#[tokio::test]
async fn closing_a_file_ends_reading_ahead_of_it() {
    let (fs, [ufs, _], data) = gated(64 * MIB, Duration::ZERO).await;
    let file = fs.open("/a/f").await.unwrap();
    let read = file.read(0, MIB as u32);
    ufs.let_through(MIB);
    assert!(read.await.unwrap() == data[..MIB as usize]);
    wait_for("reading ahead", || ufs.asked() >= 4 * MIB).await;
    assert!(fs.core().flying.count() > 0);
    drop(file);
    assert_eq!(fs.core().flying.count(), 0);
    assert!(fs.core().metrics.recalled_bytes.get() > 0);
    let sent = ufs.sent();
    // The requests are dropped, not only unheard.
    let whole = || fs.core().memory.promise(fs.core().memory.most_held());
    wait_for("giving back the memory", || whole().is_some()).await;
    ufs.let_through(SIZE);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ufs.sent(), sent);
}

#[tokio::test]
async fn another_reader_of_the_same_file_loses_nothing() {
    let (fs, [ufs, _], data) = gated(256 * MIB, Duration::ZERO).await;
    let (one, two) = (fs.open("/a/f").await, fs.open("/a/f").await);
    let (one, two) = (one.unwrap(), two.unwrap());
    ufs.let_through(MIB);
    let first = one.read(0, MIB as u32).await.unwrap();
    // The second goes by what is on its way for the first.
    assert!(two.read(0, MIB as u32).await.unwrap() == first);
    drop(one);
    assert_eq!(fs.core().metrics.recalled_bytes.get(), 0);
    ufs.let_through(SIZE);
    for at in (MIB..SIZE).step_by(MIB as usize) {
        let got = two.read(at, MIB as u32).await.unwrap();
        assert!(got == data[at as usize..][..MIB as usize], "at {at}");
    }
    // Each byte once, but for requests that were late.
    let twice = fs.core().metrics.hedges.get() * 8 * MIB;
    assert!(ufs.asked() <= SIZE + twice, "{}", ufs.asked());
}

/// What is on its way and what is here, of all mounts, of readers and of those who only
/// read ahead, is never more than the memory of the client; and it goes round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_mounts_and_kinds_of_fetches_share_one_budget() {
    const MEMORY: u64 = 16 * MIB;
    let (fs, gates, data) = gated(MEMORY, Duration::from_millis(1)).await;
    let list = HintList::parse("b/f\t0\t33554432\na/f\t0\t33554432\n", "/");
    assert_eq!((list.len(), list.bad_lines()), (2, 0));
    fs.prefetch(list);
    let tasks = tokio_util::task::TaskTracker::new();
    let readers: Vec<_> = (0..16u64)
        .map(|i| {
            let path = if i % 2 == 0 { "/a/f" } else { "/b/f" };
            let (fs, data) = (fs.clone(), Arc::clone(&data));
            tasks.spawn(async move {
                let file = fs.open(path).await.unwrap();
                for n in 0..2 {
                    let at = (2 * i + n) * MIB;
                    let got = file.read(at, MIB as u32).await.unwrap();
                    assert!(got == data[at as usize..][..MIB as usize], "at {at}");
                }
            })
        })
        .collect();
    gates.iter().for_each(|gate| gate.let_through(SIZE));
    for reader in readers {
        reader.await.unwrap();
    }
    let most = gates[0].under_way.most.load(Ordering::SeqCst);
    assert!((MIB..=MEMORY).contains(&most), "{most} bytes under way");
}
