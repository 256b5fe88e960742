//! The buckets and their objects, in memory. Every operation is atomic.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use s3s::crypto::{Checksum, Md5};

use crate::content::Content;
use crate::listing::{ListRequest, ListedPage, list};

/// One version of an object. Never changed once stored.
#[derive(Debug)]
pub struct Object {
    /// The bytes.
    pub content: Content,
    /// The ETag without its quotes: the MD5 of the bytes as S3 has it; of a description of
    /// them where they are sparse or generated; with `-parts` after a multipart upload.
    pub etag: String,
    /// When it was stored.
    pub last_modified: SystemTime,
    /// User metadata, without `x-amz-meta-`.
    pub metadata: HashMap<String, String>,
    /// The Content-Type that it was given.
    pub content_type: Option<String>,
    /// Set in a bucket that keeps versions.
    pub version_id: Option<String>,
}

/// A multipart upload that is neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// The key that it is for.
    pub key: String,
    /// Its name.
    pub id: String,
    /// When it was begun.
    pub initiated: SystemTime,
}

impl Object {
    /// An object that was stored now.
    pub fn new(content: Content, metadata: HashMap<String, String>) -> Self {
        let etag = hex::encode(digest(&content));
        Self {
            content,
            etag,
            last_modified: SystemTime::now(),
            metadata,
            content_type: None,
            version_id: None,
        }
    }

    /// The same with a Content-Type.
    #[must_use]
    pub fn with_content_type(mut self, content_type: Option<String>) -> Self {
        self.content_type = content_type;
        self
    }
}

/// A condition that a write sets on the object it replaces, by ETag without quotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    /// None.
    #[default]
    Always,
    /// `If-None-Match: *`: there is no object.
    Absent,
    /// `If-Match: *`: there is one.
    Present,
    /// `If-Match: "…"`: it is this one.
    ETag(String),
}

/// Why the backend refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendError {
    /// There is no such bucket.
    NoSuchBucket,
    /// There is no such object.
    NoSuchKey,
    /// There is no such version of the object.
    NoSuchVersion,
    /// There is no such multipart upload.
    NoSuchUpload,
    /// A named part was never uploaded, or is another by now.
    InvalidPart,
    /// The parts are not in ascending order.
    InvalidPartOrder,
    /// A part that is not the last is smaller than [`MIN_PART`].
    EntityTooSmall,
    /// The [`Precondition`] does not hold.
    PreconditionFailed,
    /// The continuation token is not one of ours.
    InvalidToken,
}

/// All buckets of a fixture.
#[derive(Debug, Default)]
pub struct Backend {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct Bucket {
    versioned: bool,
    objects: BTreeMap<String, Arc<Object>>,
    versions: HashMap<(String, String), Arc<Object>>,
    uploads: HashMap<String, Upload>,
}

#[derive(Debug)]
struct Upload {
    key: String,
    metadata: HashMap<String, String>,
    content_type: Option<String>,
    initiated: SystemTime,
    parts: BTreeMap<i32, (String, Content)>,
}

/// The least bytes of a part that is not the last, as in S3.
pub const MIN_PART: u64 = 5 << 20;

impl Backend {
    /// Makes a bucket; false if it was there.
    pub fn create_bucket(&self, bucket: &str) -> bool {
        let mut buckets = self.buckets.lock();
        let new = !buckets.contains_key(bucket);
        buckets.entry(bucket.to_owned()).or_default();
        new
    }

    /// Whether there is such a bucket.
    pub fn has_bucket(&self, bucket: &str) -> bool {
        self.buckets.lock().contains_key(bucket)
    }

    /// The names of all buckets, sorted.
    pub fn bucket_names(&self) -> Vec<String> {
        self.buckets.lock().keys().cloned().collect()
    }

    /// Makes a bucket keep old versions from now on.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn keep_versions(&self, bucket: &str) -> Result<(), BackendError> {
        self.with(bucket, |bucket| {
            bucket.versioned = true;
            Ok(())
        })
    }

    /// The current version of an object, or the one asked for.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`.
    pub fn object(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<Arc<Object>, BackendError> {
        self.with(bucket, |bucket| match version {
            None => bucket
                .objects
                .get(key)
                .cloned()
                .ok_or(BackendError::NoSuchKey),
            Some(version) => bucket
                .versions
                .get(&(key.to_owned(), version.to_owned()))
                .cloned()
                .ok_or(BackendError::NoSuchVersion),
        })
    }

    /// Stores an object under the condition, in one step.
    ///
    /// # Errors
    /// `NoSuchBucket`, `PreconditionFailed`; `NoSuchKey` for an `If-Match` without object.
    pub fn put(
        &self,
        bucket: &str,
        key: &str,
        mut object: Object,
        condition: &Precondition,
    ) -> Result<Arc<Object>, BackendError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.with(bucket, |bucket| {
            check(condition, bucket.objects.get(key))?;
            if bucket.versioned {
                object.version_id = Some(format!("v{id:08}"));
            }
            let object = Arc::new(object);
            if let Some(version) = &object.version_id {
                let version = (key.to_owned(), version.clone());
                bucket.versions.insert(version, Arc::clone(&object));
            }
            bucket.objects.insert(key.to_owned(), Arc::clone(&object));
            Ok(object)
        })
    }

    /// Removes the current object; whether there was one.
    ///
    /// # Errors
    /// `NoSuchBucket`, `PreconditionFailed`.
    pub fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: &Precondition,
    ) -> Result<bool, BackendError> {
        self.with(bucket, |bucket| {
            check(condition, bucket.objects.get(key))?;
            Ok(bucket.objects.remove(key).is_some())
        })
    }

    /// One page of a listing.
    ///
    /// # Errors
    /// `NoSuchBucket`, `InvalidToken`.
    pub fn list(&self, bucket: &str, request: &ListRequest) -> Result<ListedPage, BackendError> {
        self.with(bucket, |bucket| {
            list(&bucket.objects, request).map_err(|_| BackendError::InvalidToken)
        })
    }

    /// Begins a multipart upload and names it.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn begin_upload(
        &self,
        bucket: &str,
        key: &str,
        metadata: HashMap<String, String>,
        content_type: Option<String>,
    ) -> Result<String, BackendError> {
        let id = format!("upload-{}", self.next_id.fetch_add(1, Ordering::Relaxed));
        self.with(bucket, |bucket| {
            let upload = Upload {
                key: key.to_owned(),
                metadata,
                content_type,
                initiated: SystemTime::now(),
                parts: BTreeMap::new(),
            };
            bucket.uploads.insert(id.clone(), upload);
            Ok(id)
        })
    }

    /// Stores a part, in place of an earlier one of that number; its ETag without quotes.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchUpload`.
    pub fn put_part(
        &self,
        bucket: &str,
        upload: &str,
        number: i32,
        content: Content,
    ) -> Result<String, BackendError> {
        let etag = hex::encode(digest(&content));
        self.with(bucket, |bucket| {
            let upload = bucket
                .uploads
                .get_mut(upload)
                .ok_or(BackendError::NoSuchUpload)?;
            upload.parts.insert(number, (etag.clone(), content));
            Ok(etag)
        })
    }

    /// Makes the object of an upload out of the parts named, `(number, ETag without quotes)`.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchUpload`, `InvalidPart`, `InvalidPartOrder`, `EntityTooSmall`,
    /// `PreconditionFailed`. The upload stays as it was.
    pub fn complete_upload(
        &self,
        bucket: &str,
        upload_id: &str,
        parts: &[(i32, Option<String>)],
        condition: &Precondition,
    ) -> Result<Arc<Object>, BackendError> {
        let (key, object) = self.with(bucket, |bucket| {
            let upload = bucket
                .uploads
                .get(upload_id)
                .ok_or(BackendError::NoSuchUpload)?;
            let object = assemble(upload, parts)?;
            check(condition, bucket.objects.get(&upload.key))?;
            Ok((upload.key.clone(), object))
        })?;
        let object = self.put(bucket, &key, object, condition)?;
        self.abort_upload(bucket, upload_id)?;
        Ok(object)
    }

    /// Forgets an upload and its parts.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchUpload`.
    pub fn abort_upload(&self, bucket: &str, upload: &str) -> Result<(), BackendError> {
        self.with(bucket, |bucket| {
            bucket
                .uploads
                .remove(upload)
                .map(|_| ())
                .ok_or(BackendError::NoSuchUpload)
        })
    }

    /// The uploads of a bucket whose keys start with `prefix`, by key and name, after `marker`.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn uploads(
        &self,
        bucket: &str,
        prefix: &str,
        marker: Option<(&str, &str)>,
    ) -> Result<Vec<OpenUpload>, BackendError> {
        self.with(bucket, |bucket| {
            let mut uploads: Vec<_> = bucket
                .uploads
                .iter()
                .filter(|(_, upload)| upload.key.starts_with(prefix))
                .map(|(id, upload)| OpenUpload {
                    key: upload.key.clone(),
                    id: id.clone(),
                    initiated: upload.initiated,
                })
                .filter(|upload| {
                    marker.is_none_or(|marker| (upload.key.as_str(), upload.id.as_str()) > marker)
                })
                .collect();
            uploads.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
            Ok(uploads)
        })
    }

    /// The bytes of a part, if it was sent.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchUpload`, `InvalidPart`.
    pub fn part(&self, bucket: &str, upload: &str, number: i32) -> Result<Content, BackendError> {
        self.with(bucket, |bucket| {
            let upload = bucket.uploads.get(upload);
            let upload = upload.ok_or(BackendError::NoSuchUpload)?;
            let part = upload.parts.get(&number).ok_or(BackendError::InvalidPart)?;
            Ok(part.1.clone())
        })
    }

    /// How many uploads of a bucket are neither completed nor aborted.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn open_uploads(&self, bucket: &str) -> Result<usize, BackendError> {
        self.with(bucket, |bucket| Ok(bucket.uploads.len()))
    }

    fn with<T>(
        &self,
        bucket: &str,
        f: impl FnOnce(&mut Bucket) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        f(self
            .buckets
            .lock()
            .get_mut(bucket)
            .ok_or(BackendError::NoSuchBucket)?)
    }
}

fn check(condition: &Precondition, current: Option<&Arc<Object>>) -> Result<(), BackendError> {
    match (condition, current) {
        (Precondition::Always, _) | (Precondition::Absent, None) => Ok(()),
        (Precondition::Present, Some(_)) => Ok(()),
        (Precondition::ETag(etag), Some(object)) if object.etag == *etag => Ok(()),
        (Precondition::Present | Precondition::ETag(_), None) => Err(BackendError::NoSuchKey),
        (Precondition::Absent | Precondition::ETag(_), Some(_)) => {
            Err(BackendError::PreconditionFailed)
        }
    }
}

fn assemble(upload: &Upload, parts: &[(i32, Option<String>)]) -> Result<Object, BackendError> {
    if parts.is_empty() {
        return Err(BackendError::InvalidPart);
    }
    if !parts.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(BackendError::InvalidPartOrder);
    }
    let mut digests = Md5::new();
    let mut contents = Vec::with_capacity(parts.len());
    for (number, etag) in parts {
        let (stored, content) = upload.parts.get(number).ok_or(BackendError::InvalidPart)?;
        if etag.as_ref().is_some_and(|etag| etag != stored) {
            return Err(BackendError::InvalidPart);
        }
        if content.len() < MIN_PART && contents.len() + 1 < parts.len() {
            return Err(BackendError::EntityTooSmall);
        }
        digests.update(&digest(content));
        contents.push(content.clone());
    }
    Ok(Object {
        content: Content::Parts(contents),
        etag: format!("{}-{}", hex::encode(digests.finalize()), parts.len()),
        last_modified: SystemTime::now(),
        metadata: upload.metadata.clone(),
        content_type: upload.content_type.clone(),
        version_id: None,
    })
}

/// The MD5 of the bytes, or of a description of bytes that nobody holds.
fn digest(content: &Content) -> [u8; 16] {
    let mut md5 = Md5::new();
    match content {
        Content::Bytes(bytes) => md5.update(bytes),
        Content::Sparse { size, segments } => {
            md5.update(format!("sparse {size}").as_bytes());
            for (offset, bytes) in segments {
                md5.update(format!(" {offset} {}:", bytes.len()).as_bytes());
                md5.update(bytes);
            }
        }
        Content::Generated { size, seed } => {
            md5.update(format!("generated {size} {seed}").as_bytes());
        }
        Content::Parts(parts) => {
            for part in parts {
                md5.update(&digest(part));
            }
        }
        Content::Slice { of, start, size } => {
            md5.update(format!("slice {start} {size} ").as_bytes());
            md5.update(&digest(of));
        }
    }
    md5.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> Backend {
        let backend = Backend::default();
        assert!(backend.create_bucket("bkt"));
        backend
    }

    fn object(text: &'static str) -> Object {
        Object::new(Content::from(text), HashMap::new())
    }

    #[test]
    fn etag_is_the_md5_of_the_bytes() {
        assert_eq!(object("").etag, "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(object("hello").etag, "5d41402abc4b2a76b9719d911017c592");
    }

    #[test]
    fn conditions_are_checked_against_the_current_object() {
        let backend = backend();
        let put = |text, condition| backend.put("bkt", "k", object(text), &condition);
        assert_eq!(
            put("0", Precondition::Present).unwrap_err(),
            BackendError::NoSuchKey
        );
        let first = put("1", Precondition::Absent).unwrap();
        assert_eq!(
            put("2", Precondition::Absent).unwrap_err(),
            BackendError::PreconditionFailed
        );
        let second = put("2", Precondition::ETag(first.etag.clone())).unwrap();
        let stale = put("3", Precondition::ETag(first.etag.clone())).unwrap_err();
        assert_eq!(stale, BackendError::PreconditionFailed);
        assert_eq!(backend.object("bkt", "k", None).unwrap().etag, second.etag);
        assert!(backend.delete("bkt", "k", &Precondition::Always).unwrap());
        assert!(!backend.delete("bkt", "k", &Precondition::Always).unwrap());
        assert_eq!(
            backend.object("nil", "k", None).unwrap_err(),
            BackendError::NoSuchBucket
        );
    }

    #[test]
    fn a_versioned_bucket_serves_what_was_replaced_and_deleted() {
        let backend = backend();
        backend.keep_versions("bkt").unwrap();
        let always = Precondition::Always;
        let first = backend.put("bkt", "k", object("1"), &always).unwrap();
        let second = backend.put("bkt", "k", object("2"), &always).unwrap();
        assert_ne!(first.version_id, second.version_id);
        backend.delete("bkt", "k", &always).unwrap();
        assert_eq!(
            backend.object("bkt", "k", None).unwrap_err(),
            BackendError::NoSuchKey
        );
        let old = backend
            .object("bkt", "k", first.version_id.as_deref())
            .unwrap();
        assert_eq!(old.content.read(0, 9), "1");
        let gone = backend.object("bkt", "k", Some("nil")).unwrap_err();
        assert_eq!(gone, BackendError::NoSuchVersion);
    }

    #[test]
    fn an_upload_becomes_visible_only_when_completed() {
        let backend = backend();
        let always = Precondition::Always;
        let id = backend
            .begin_upload("bkt", "k", HashMap::new(), None)
            .unwrap();
        let second = backend
            .put_part("bkt", &id, 2, Content::from("world"))
            .unwrap();
        let small = backend
            .put_part("bkt", &id, 1, Content::from("hello "))
            .unwrap();
        let both = [(1, Some(small)), (2, Some(second.clone()))];
        let refused = backend.complete_upload("bkt", &id, &both, &always);
        assert_eq!(refused.unwrap_err(), BackendError::EntityTooSmall);
        let hello = Content::sparse(MIN_PART, vec![(0, "hello".into())]);
        let first = backend.put_part("bkt", &id, 1, hello).unwrap();
        assert_eq!(
            backend.object("bkt", "k", None).unwrap_err(),
            BackendError::NoSuchKey
        );
        let complete = |parts: &[(i32, Option<String>)]| {
            backend
                .complete_upload("bkt", &id, parts, &always)
                .map(|object| object.etag.clone())
        };
        let wrong = [(2, Some(second.clone())), (1, Some(first.clone()))];
        assert_eq!(complete(&wrong), Err(BackendError::InvalidPartOrder));
        assert_eq!(complete(&[(3, None)]), Err(BackendError::InvalidPart));
        assert_eq!(
            complete(&[(1, Some(second.clone()))]),
            Err(BackendError::InvalidPart)
        );
        let etag = complete(&[(1, Some(first)), (2, Some(second))]).unwrap();
        assert!(etag.ends_with("-2"));
        assert_eq!(
            backend
                .object("bkt", "k", None)
                .unwrap()
                .content
                .read(MIN_PART - 1, 99),
            "\0world"
        );
        assert_eq!(backend.open_uploads("bkt"), Ok(0));
        assert_eq!(
            backend.abort_upload("bkt", &id),
            Err(BackendError::NoSuchUpload)
        );
    }
}
