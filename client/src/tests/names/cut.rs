//! A directory rename that is cut off at every request, and finished by the next client.

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream;
use millpond_proto::{FileVersion, MountId};
use millpond_ufs::ufs::{ByteStream, EntryStream};
use millpond_ufs::{Abilities, Condition, Metadata, Op, Ufs, UfsContext, UfsError};

use super::super::node::{client_with, mounts};
use super::*;

/// Passes on the first calls; of the next one nobody hears whether it took place, and none after
/// it does.
#[derive(Debug)]
struct Cut {
    inner: Arc<dyn Ufs>,
    left: AtomicU32,
    /// Whether the call at the cut takes place.
    takes_place: bool,
}

impl Cut {
    fn failed() -> UfsError {
        UfsError::new(ErrorKind::Unavailable, Op::Stat, "cut:", "cut off")
    }

    async fn pass<T>(
        &self,
        call: impl Future<Output = Result<T, UfsError>>,
    ) -> Result<T, UfsError> {
        let left = |n: u32| n.checked_sub(1);
        let before = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        match before {
            Ok(1) if self.takes_place => {
                let _ = call.await;
                Err(Self::failed())
            }
            Ok(0 | 1) | Err(_) => Err(Self::failed()),
            Ok(_) => call.await,
        }
    }
}

#[async_trait]
impl Ufs for Cut {
    fn uri(&self) -> &str {
        self.inner.uri()
    }

    fn object_uri(&self, path: &str) -> String {
        self.inner.object_uri(path)
    }

    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        self.pass(self.inner.stat(path)).await
    }

    fn list(&self, dir: &str) -> EntryStream {
        let left = |n: u32| n.checked_sub(1);
        let before = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        match before {
            Ok(0 | 1) | Err(_) => stream::iter([Err(Self::failed())]).boxed(),
            Ok(_) => self.inner.list(dir),
        }
    }

    async fn read(
        &self,
        path: &str,
        version: &FileVersion,
        range: std::ops::Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        self.pass(self.inner.read(path, version, range)).await
    }

    async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        self.pass(self.inner.read_link(path)).await
    }

    async fn copy(
        &self,
        from: &str,
        to: &str,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        self.pass(self.inner.copy(from, to, condition)).await
    }

    async fn remove(&self, path: &str) -> Result<(), UfsError> {
        self.pass(self.inner.remove(path)).await
    }

    async fn create_dir(&self, path: &str, attributes: &Attributes) -> Result<(), UfsError> {
        self.pass(self.inner.create_dir(path, attributes)).await
    }

    async fn remove_dir(&self, path: &str) -> Result<(), UfsError> {
        self.pass(self.inner.remove_dir(path)).await
    }
}

/// A client of `uri`, all of whose requests fail from the `cut`-th on.
async fn cut_off(uri: &str, journal: &std::path::Path, cut: u32, takes_place: bool) -> FileSystem {
    let options = BTreeMap::new();
    let inner = millpond_ufs::open(uri, &options, UfsContext::detached()).await;
    let ufs: Arc<dyn Ufs> = Arc::new(Cut {
        inner: inner.unwrap(),
        left: AtomicU32::new(cut),
        takes_place,
    });
    let config = ClientConfig {
        // A look-up that fails is tried again for so long.
        deadline: Duration::from_millis(500),
        rename_journal: Some(journal.to_owned()),
        ..small()
    };
    let fs = client_with(mounts(&[("/", uri)]), config).await;
    fs.core().snapshot().store(MountId(1)).unwrap().preset(ufs);
    fs
}

fn tree(top: &str) -> Tree {
    let file = |path: &str| (format!("{top}/{path}"), Some(path.as_bytes().to_vec()));
    let dir = |path: &str| (format!("{top}{path}"), None);
    BTreeMap::from([
        dir(""),
        dir("/empty"),
        dir("/s"),
        file("a"),
        file("b"),
        file("s/c"),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_rename_that_was_cut_off_anywhere_is_finished_by_the_next_client() {
    let mut succeeded = [false, false];
    for takes_place in [false, true] {
        for cut in 1..200 {
            let (_store, uri) = fresh_store();
            let journal = tempfile::tempdir().unwrap();
            let config = ClientConfig {
                rename_journal: Some(journal.path().to_owned()),
                ..strict()
            };
            let fs = standalone(&uri, config).await;
            for (path, content) in tree("/old") {
                match content {
                    Some(content) => write(&fs, &path, &content).await.unwrap(),
                    None => drop(fs.mkdir(&path, &Attributes::default()).await.unwrap()),
                }
            }
            let broken = cut_off(&uri, journal.path(), cut, takes_place).await;
            let renamed = broken.rename("/old", "/new", RenameMode::Replace).await;
            broken.shutdown().await;
            let notes = std::fs::read_dir(journal.path()).unwrap().count();
            let finished = fs.finish_renames().await;
            assert_eq!(finished, notes, "cut at {cut}");
            assert_eq!(std::fs::read_dir(journal.path()).unwrap().count(), 0);
            let shown = shown(&fs).await.unwrap();
            if renamed.is_ok() || finished > 0 {
                assert_eq!(shown, tree("/new"), "cut at {cut}");
            } else {
                assert_eq!(shown, tree("/old"), "cut at {cut}: {renamed:?}");
            }
            fs.shutdown().await;
            if renamed.is_ok() {
                succeeded[usize::from(takes_place)] = true;
                break;
            }
        }
    }
    assert_eq!(succeeded, [true, true], "the cuts never came to the end");
}

#[tokio::test]
async fn a_directory_with_too_many_members_is_refused_untouched() {
    let (store, uri) = fresh_store();
    for n in 0..5 {
        store.put(&format!("d/{n}"), "x");
    }
    let config = ClientConfig {
        rename_limit: 4,
        ..small()
    };
    let fs = standalone(&uri, config).await;
    let error = fs
        .rename("/d", "/e", RenameMode::Replace)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--rename-limit"), "{error}");
    assert_eq!(error.refusal(), Some(Refusal::OtherMount));
    assert_eq!(store.keys().len(), 5);
    fs.unlink("/d/0").await.unwrap();
    fs.rename("/d", "/e", RenameMode::Replace).await.unwrap();
    assert!(store.keys().iter().all(|key| key.starts_with("e/")));
    fs.shutdown().await;
}
