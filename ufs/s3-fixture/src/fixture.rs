//! The fixture as a test sees it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use crate::backend::{Backend, Object, Precondition};
use crate::content::Content;
use crate::counters::{Counters, Fetch};
use crate::faults::Faults;
use crate::server::Server;
use crate::service::{Service, Shared};

const ACCESS_KEY: &str = "AKIAMILLPONDFIXTURE0";
const SECRET_KEY: &str = "millpond-fixture-secret-key-of-no-value";
const REGION: &str = "us-east-1";

/// How a fixture differs from the usual one.
#[derive(Debug, Clone, Copy, Default)]
pub struct FixtureConfig {
    /// Serve requests that carry no signature. Those that carry one are not checked either.
    pub anonymous: bool,
}

/// A running S3 server on a free loopback port. It stops when dropped; [`shutdown`]
/// also waits until every connection is closed.
///
/// [`shutdown`]: Self::shutdown
#[derive(Debug)]
pub struct S3Fixture {
    shared: Arc<Shared>,
    server: Server,
}

impl S3Fixture {
    /// Starts a server that checks signatures against one fixed key pair.
    ///
    /// # Panics
    /// When no loopback port can be had, or outside a tokio runtime with I/O and time.
    pub async fn start() -> Self {
        Self::start_with(FixtureConfig::default()).await
    }

    /// Starts a server.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(config: FixtureConfig) -> Self {
        let shared = Arc::new(Shared::default());
        let mut builder = S3ServiceBuilder::new(Service {
            shared: Arc::clone(&shared),
        });
        if !config.anonymous {
            builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        }
        let server = Server::start(builder.build(), Arc::clone(&shared))
            .await
            .expect("the loopback interface has a free port");
        Self { shared, server }
    }

    /// `http://127.0.0.1:PORT`, without a trailing slash. Buckets are in the path.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The access key id that it accepts.
    pub const fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The secret access key that it accepts.
    pub const fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// What a UFS needs to reach it, as mount options.
    pub fn options(&self) -> BTreeMap<String, String> {
        [
            ("endpoint", self.endpoint()),
            ("region", REGION.to_owned()),
            ("access_key_id", ACCESS_KEY.to_owned()),
            ("secret_access_key", SECRET_KEY.to_owned()),
            ("allow_http", "true".to_owned()),
            ("virtual_hosted_style_request", "false".to_owned()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// Makes a bucket, if it is not there.
    pub fn create_bucket(&self, bucket: &str) {
        self.shared.backend.create_bucket(bucket);
    }

    /// Stores or replaces an object; the ETag with its quotes. Makes the bucket if needed.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) -> String {
        self.put_content(bucket, key, Content::Bytes(bytes.into()), HashMap::new())
    }

    /// Stores a large object that is zero but for the segments `(offset, bytes)`.
    pub fn put_sparse(
        &self,
        bucket: &str,
        key: &str,
        size: u64,
        segments: Vec<(u64, Bytes)>,
    ) -> String {
        self.put_content(bucket, key, Content::sparse(size, segments), HashMap::new())
    }

    /// Stores a large object whose bytes are [`pattern`](crate::pattern)`(seed, …)`.
    pub fn put_generated(&self, bucket: &str, key: &str, size: u64, seed: u64) -> String {
        self.put_content(
            bucket,
            key,
            Content::Generated { size, seed },
            HashMap::new(),
        )
    }

    /// Stores an object with user metadata (names without `x-amz-meta-`).
    pub fn put_content(
        &self,
        bucket: &str,
        key: &str,
        content: Content,
        metadata: HashMap<String, String>,
    ) -> String {
        self.shared.backend.create_bucket(bucket);
        let object = self
            .shared
            .backend
            .put(
                bucket,
                key,
                Object::new(content, metadata),
                &Precondition::Always,
            )
            .expect("an unconditional put into a bucket that exists");
        format!("\"{}\"", object.etag)
    }

    /// Removes an object; whether there was one.
    pub fn delete(&self, bucket: &str, key: &str) -> bool {
        self.shared
            .backend
            .delete(bucket, key, &Precondition::Always)
            .unwrap_or(false)
    }

    /// The current object, for comparisons; `None` if there is none.
    pub fn object(&self, bucket: &str, key: &str) -> Option<Arc<Object>> {
        self.shared.backend.object(bucket, key, None).ok()
    }

    /// The buckets, for what the shortcuts do not offer: versions, conditions, uploads.
    pub fn backend(&self) -> &Backend {
        &self.shared.backend
    }

    /// What was asked and sent since the start or the last reset.
    pub fn counters(&self) -> Counters {
        self.shared.recorder.totals()
    }

    /// The objects' ranges that were asked for since then, in order (the first 65,536).
    pub fn fetches(&self) -> Vec<Fetch> {
        self.shared.recorder.fetches()
    }

    /// Sets all counters to zero and forgets the fetches.
    pub fn reset_counters(&self) {
        self.shared.recorder.reset();
    }

    /// The faults to switch.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Breaks all connections and waits until they are closed.
    pub async fn shutdown(self) {
        self.shared.faults.clear();
        self.server.shutdown().await;
    }
}
