//! The stores that the suite runs over, each filled from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_s3_fixture::{FixtureConfig, S3Fixture};
use millpond_ufs::memory::MemoryStore;
use millpond_ufs::{Ufs, UfsContext, open};

use super::web::Web;

/// The part of the store that the suite's mounts show.
pub(crate) const ROOT: &str = "root of it";

/// A store under test. Keys are relative to what [`Store::ufs`] shows.
#[async_trait]
pub(crate) trait Store: Send + Sync {
    fn put(&self, key: &str, data: &[u8]);
    fn delete(&self, key: &str);
    fn uri(&self) -> String;
    fn options(&self) -> BTreeMap<String, String>;

    fn lists(&self) -> bool {
        true
    }

    /// Waits until what was put last has a version in listings too.
    async fn settle(&self) {}

    fn finish(&self) {}

    async fn ufs(&self) -> Arc<dyn Ufs> {
        self.ufs_with(&[]).await
    }

    async fn ufs_with(&self, extra: &[(&str, &str)]) -> Arc<dyn Ufs> {
        let mut options = self.options();
        for (key, value) in extra {
            options.insert((*key).to_owned(), (*value).to_owned());
        }
        open(&self.uri(), &options, UfsContext::detached())
            .await
            .unwrap()
    }

    async fn ufs_below(&self, path: &str) -> Arc<dyn Ufs> {
        let uri = format!("{}/{path}", self.uri());
        open(&uri, &self.options(), UfsContext::detached())
            .await
            .unwrap()
    }
}

pub(crate) async fn memory(rule: &str) -> Box<dyn Store> {
    memory_named(rule, &[])
}

/// The memory store with everything of a shape but failures.
pub(crate) async fn shaped(rule: &str) -> Box<dyn Store> {
    let shape = [
        ("shape", "s3-same-region"),
        ("shape.latency", "1ms"),
        ("shape.stream_bandwidth", "20MB/s"),
        ("shape.total_bandwidth", "40MB/s"),
        ("shape.request_rate", "1000000"),
    ];
    memory_named(&format!("shaped_{rule}"), &shape)
}

fn memory_named(name: &str, options: &[(&str, &str)]) -> Box<dyn Store> {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Box::new(Memory {
        uri: format!("memory:///{name}/{ROOT}"),
        store: MemoryStore::named(name),
        options: options.iter().map(pair).collect(),
    })
}

struct Memory {
    options: BTreeMap<String, String>,
    uri: String,
    store: Arc<MemoryStore>,
}

impl Store for Memory {
    fn put(&self, key: &str, data: &[u8]) {
        self.store
            .put(&format!("{ROOT}/{key}"), Bytes::copy_from_slice(data));
    }

    fn delete(&self, key: &str) {
        assert!(self.store.delete(&format!("{ROOT}/{key}")));
    }

    fn uri(&self) -> String {
        self.uri.clone()
    }

    fn options(&self) -> BTreeMap<String, String> {
        self.options.clone()
    }
}

pub(crate) async fn s3(_: &str) -> Box<dyn Store> {
    let server = S3Fixture::start().await;
    server.create_bucket("bucket");
    let options = server.options();
    Box::new(Bucket {
        server,
        scheme: "s3",
        options,
    })
}

/// Google's XML interface is S3's as far as it is used here: paths, listings and headers.
pub(crate) async fn gcs(_: &str) -> Box<dyn Store> {
    let server = S3Fixture::start_with(FixtureConfig { anonymous: true }).await;
    server.create_bucket("bucket");
    let options = BTreeMap::from([
        ("endpoint".to_owned(), server.endpoint()),
        ("credentials".to_owned(), "anonymous".to_owned()),
    ]);
    Box::new(Bucket {
        server,
        scheme: "gs",
        options,
    })
}

struct Bucket {
    server: S3Fixture,
    scheme: &'static str,
    options: BTreeMap<String, String>,
}

impl Store for Bucket {
    fn put(&self, key: &str, data: &[u8]) {
        let key = format!("{ROOT}/{key}");
        self.server
            .put("bucket", &key, Bytes::copy_from_slice(data));
    }

    fn delete(&self, key: &str) {
        assert!(self.server.delete("bucket", &format!("{ROOT}/{key}")));
    }

    fn uri(&self) -> String {
        format!("{}://bucket/{ROOT}", self.scheme)
    }

    fn options(&self) -> BTreeMap<String, String> {
        self.options.clone()
    }
}

pub(crate) async fn azure(_: &str) -> Box<dyn Store> {
    let web = Web::start().await;
    Box::new(Container { web })
}

struct Container {
    web: Web,
}

#[async_trait]
impl Store for Container {
    fn put(&self, key: &str, data: &[u8]) {
        self.web.put(&format!("account/bucket/{ROOT}/{key}"), data);
    }

    fn delete(&self, key: &str) {
        self.web.delete(&format!("account/bucket/{ROOT}/{key}"));
    }

    fn uri(&self) -> String {
        format!("az://bucket/{ROOT}")
    }

    fn options(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (
                "endpoint".to_owned(),
                format!("{}/account", self.web.endpoint()),
            ),
            ("account".to_owned(), "account".to_owned()),
            ("credentials".to_owned(), "anonymous".to_owned()),
        ])
    }

    fn finish(&self) {
        self.web.shutdown();
    }
}

pub(crate) async fn http(_: &str) -> Box<dyn Store> {
    Box::new(Site {
        web: Web::start().await,
    })
}

struct Site {
    web: Web,
}

#[async_trait]
impl Store for Site {
    fn put(&self, key: &str, data: &[u8]) {
        self.web.put(&format!("base dir/{key}"), data);
    }

    fn delete(&self, key: &str) {
        self.web.delete(&format!("base dir/{key}"));
    }

    fn uri(&self) -> String {
        format!("{}/base%20dir", self.web.endpoint())
    }

    fn options(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn lists(&self) -> bool {
        false
    }

    fn finish(&self) {
        self.web.shutdown();
    }
}

pub(crate) async fn local(_: &str) -> Box<dyn Store> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join(ROOT);
    for made in ["", "a/b", "in"] {
        let _ = std::fs::create_dir_all(root.join(made));
    }
    std::fs::remove_dir_all(root.join("a")).unwrap();
    std::fs::remove_dir_all(root.join("in")).unwrap();
    Box::new(Directory { _dir: dir, root })
}

struct Directory {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

#[async_trait]
impl Store for Directory {
    fn put(&self, key: &str, data: &[u8]) {
        let path = self.root.join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }

    fn delete(&self, key: &str) {
        std::fs::remove_file(self.root.join(key)).unwrap();
    }

    fn uri(&self) -> String {
        self.root.to_str().unwrap().to_owned()
    }

    fn options(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Versions are trusted once their inode has been left alone for some clock ticks.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(60)).await;
    }

    async fn ufs_below(&self, path: &str) -> Arc<dyn Ufs> {
        std::fs::create_dir_all(self.root.join(path)).unwrap();
        let uri = format!("{}/{path}", self.uri());
        open(&uri, &self.options(), UfsContext::detached())
            .await
            .unwrap()
    }
}
