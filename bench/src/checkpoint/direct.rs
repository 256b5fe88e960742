//! The same writes without Millpond: straight to the S3 of the run.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use millpond_s3_fixture::{S3Fixture, pattern};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, WriteMultipart};

/// Bytes of one part of a multipart upload.
const PART: usize = 8 << 20;
/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 8;

/// A client of `bucket`.
pub(super) fn client(s3: &S3Fixture, bucket: &str) -> Result<AmazonS3> {
    AmazonS3Builder::new()
        .with_endpoint(s3.endpoint())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_access_key_id(s3.access_key())
        .with_secret_access_key(s3.secret_key())
        .with_bucket_name(bucket)
        .build()
        .context("cannot make a client of the store")
}

/// One object of `size` bytes of [`pattern`], in parts, several at once.
pub(super) async fn multipart(store: &AmazonS3, key: &str, size: u64, seed: u64) -> Result<()> {
    let upload = store.put_multipart(&Path::from(key)).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
    let mut offset = 0;
    while offset < size {
        let len = (size - offset).min(1 << 20) as usize;
        upload.wait_for_capacity(PARTS_AT_ONCE).await?;
        upload.put(pattern(seed, offset, len));
        offset += len as u64;
    }
    upload.finish().await?;
    Ok(())
}

/// Objects of these bytes, so many at once.
pub(super) async fn puts(
    store: &AmazonS3,
    objects: impl Iterator<Item = (String, Bytes)>,
    at_once: usize,
) -> Result<()> {
    let put = |(key, bytes): (String, Bytes)| async move {
        store.put(&Path::from(key), bytes.into()).await?;
        Ok::<_, anyhow::Error>(())
    };
    stream::iter(objects)
        .map(put)
        .buffer_unordered(at_once)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn direct_writes_arrive_whole() {
        millpond_process::init_crypto();
        let s3 = S3Fixture::start().await;
        s3.create_bucket("bucket");
        let store = client(&s3, "bucket").unwrap();
        let size = (PART + PART / 2) as u64;
        multipart(&store, "large", size, 3).await.unwrap();
        let object = s3.object("bucket", "large").unwrap();
        assert_eq!(
            object.content.read(0, size as usize),
            pattern(3, 0, size as usize)
        );
        let objects = (0..40).map(|n| (format!("small/{n}"), pattern(n, 0, 100)));
        puts(&store, objects, 16).await.unwrap();
        let last = s3.object("bucket", "small/39").unwrap();
        assert_eq!(last.content.read(0, 200), pattern(39, 0, 100));
        s3.shutdown().await;
    }
}
