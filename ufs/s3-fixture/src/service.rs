//! The S3 operations over the backend.

use std::sync::Arc;

use async_trait::async_trait;
use s3s::dto::*;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use crate::backend::{Backend, BackendError, Object, Precondition};
use crate::content::Content;
use crate::counters::{Fetch, Recorder};
use crate::faults::{Faults, Op};
use crate::listing::ListRequest;
use crate::respond::{
    Pace, backend_error, body, check_read, check_sum, collect, injected_error, length,
    resolve_range, strong, write_condition,
};

/// S3's own limit of keys per page.
const MAX_KEYS: i32 = 1000;
/// The largest object that one request copies.
const MAX_COPY: u64 = 5 << 30;

/// What the server and the test share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) backend: Backend,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) faults: Faults,
}

/// The handlers.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) shared: Arc<Shared>,
}

impl Service {
    /// Every handler begins here: counts the request and suffers the faults.
    async fn enter(&self, op: Op) -> S3Result<Leave> {
        self.shared.recorder.request(op);
        let entered = self.shared.faults.enter(op).await;
        if !matches!(entered, Ok(None)) {
            self.shared.recorder.injected();
        }
        entered.map(Leave).map_err(injected_error)
    }

    /// The object of a read, its conditions checked.
    fn find(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<Arc<Object>> {
        let object = self
            .shared
            .backend
            .object(bucket, key, version)
            .map_err(backend_error)?;
        if !self.shared.faults.ignores_preconditions() {
            check_read(&object, if_match, if_none_match)?;
        }
        Ok(object)
    }

    /// The source of a copy: its object.
    fn copied(
        &self,
        source: &CopySource,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<Arc<Object>> {
        let CopySource::Bucket {
            bucket,
            key,
            version_id,
        } = source
        else {
            return Err(S3Error::new(S3ErrorCode::NotImplemented));
        };
        let object = self
            .shared
            .backend
            .object(bucket, key, version_id.as_deref())
            .map_err(backend_error)?;
        // A copy answers 412 where a read would answer 304.
        check_read(&object, if_match, if_none_match)
            .map_err(|_| S3Error::new(S3ErrorCode::PreconditionFailed))?;
        Ok(object)
    }
}

/// How a request is to end that has done what it was to do: handlers that write end with it.
struct Leave(Option<u16>);

impl Leave {
    fn with<T>(self, output: T) -> S3Result<S3Response<T>> {
        match self.0 {
            Some(status) => Err(injected_error(status)),
            None => Ok(S3Response::new(output)),
        }
    }
}

#[async_trait]
impl S3 for Service {
    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.enter(Op::Get).await?;
        let Shared {
            recorder, faults, ..
        } = &*self.shared;
        let input = req.input;
        let object = self.find(
            &input.bucket,
            &input.key,
            input.version_id.as_deref(),
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        let size = object.content.len();
        let range = resolve_range(input.range.as_ref(), size)?;
        let len = range.end - range.start;
        let pace = Pace {
            cut_after: faults.take_cut(len),
            bandwidth: faults.bandwidth(),
        };
        let wrong_etag = faults.take_wrong_etag();
        if wrong_etag || pace.cut_after.is_some() {
            recorder.injected();
        }
        recorder.fetch(Fetch {
            bucket: input.bucket,
            key: input.key,
            range: range.clone(),
        });
        let output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length(len)),
            content_range: input
                .range
                .map(|_| format!("bytes {}-{}/{size}", range.start, range.end - 1)),
            e_tag: Some(if wrong_etag {
                strong("wrong")
            } else {
                strong(&object.etag)
            }),
            last_modified: Some(object.last_modified.into()),
            metadata: metadata(&object),
            content_type: content_type(&object),
            version_id: object.version_id.clone(),
            body: Some(body(object, range, pace, Arc::clone(recorder))),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.enter(Op::Head).await?;
        let input = req.input;
        let object = self.find(
            &input.bucket,
            &input.key,
            input.version_id.as_deref(),
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length(object.content.len())),
            e_tag: Some(strong(&object.etag)),
            last_modified: Some(object.last_modified.into()),
            metadata: metadata(&object),
            content_type: content_type(&object),
            version_id: object.version_id.clone(),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.enter(Op::List).await?;
        let input = req.input;
        let max_keys = input.max_keys.unwrap_or(MAX_KEYS).clamp(0, MAX_KEYS);
        let request = ListRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input
                .delimiter
                .clone()
                .filter(|delimiter| !delimiter.is_empty()),
            start_after: input.start_after.clone(),
            token: input.continuation_token.clone(),
            max_keys: max_keys as usize,
        };
        let page = self
            .shared
            .backend
            .list(&input.bucket, &request)
            .map_err(backend_error)?;
        let url = input
            .encoding_type
            .as_ref()
            .is_some_and(|kind| kind.as_str() == "url");
        let text = |key: String| if url { percent_encode(&key) } else { key };
        let count = page.objects.len() + page.prefixes.len();
        let contents = page
            .objects
            .into_iter()
            .map(|(key, object)| s3s::dto::Object {
                key: Some(text(key)),
                e_tag: Some(strong(&object.etag)),
                last_modified: Some(object.last_modified.into()),
                size: Some(length(object.content.len())),
                storage_class: Some(ObjectStorageClass::from_static(
                    ObjectStorageClass::STANDARD,
                )),
                ..Default::default()
            });
        let prefixes = page.prefixes.into_iter().map(text);
        Ok(S3Response::new(ListObjectsV2Output {
            contents: Some(contents.collect()),
            common_prefixes: Some(
                prefixes
                    .map(|prefix| CommonPrefix {
                        prefix: Some(prefix),
                    })
                    .collect(),
            ),
            name: Some(input.bucket),
            prefix: input.prefix.map(text),
            delimiter: input.delimiter.map(text),
            start_after: input.start_after.map(text),
            encoding_type: input.encoding_type,
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            key_count: Some(count as i32),
            max_keys: Some(max_keys),
            ..Default::default()
        }))
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let leave = self.enter(Op::Write).await?;
        let input = req.input;
        let condition = write_condition(input.if_match, input.if_none_match)?;
        let bytes = collect(input.body).await?;
        check_sum(&bytes, input.checksum_crc32c.as_deref())?;
        let object = Object::new(Content::Bytes(bytes), input.metadata.unwrap_or_default())
            .with_content_type(input.content_type.map(|kind| kind.to_string()));
        let object = self
            .shared
            .backend
            .put(&input.bucket, &input.key, object, &condition)
            .map_err(backend_error)?;
        leave.with(PutObjectOutput {
            e_tag: Some(strong(&object.etag)),
            version_id: object.version_id.clone(),
            ..Default::default()
        })
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let leave = self.enter(Op::Write).await?;
        let condition = write_condition(req.input.if_match, None)?;
        self.shared
            .backend
            .delete(&req.input.bucket, &req.input.key, &condition)
            .map_err(backend_error)?;
        leave.with(DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let leave = self.enter(Op::Write).await?;
        let quiet = req.input.delete.quiet.unwrap_or_default();
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            self.shared
                .backend
                .delete(&req.input.bucket, &object.key, &Precondition::Always)
                .map_err(backend_error)?;
            deleted.push(DeletedObject {
                key: Some(object.key),
                ..Default::default()
            });
        }
        leave.with(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            ..Default::default()
        })
    }

    async fn copy_object(
        &self,
        req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let leave = self.enter(Op::Write).await?;
        let input = req.input;
        let source = self.copied(
            &input.copy_source,
            input.copy_source_if_match.as_ref(),
            input.copy_source_if_none_match.as_ref(),
        )?;
        let replace = input
            .metadata_directive
            .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        let metadata = if replace {
            input.metadata.unwrap_or_default()
        } else {
            source.metadata.clone()
        };
        let content_type = match replace {
            true => input.content_type.map(|kind| kind.to_string()),
            false => source.content_type.clone(),
        };
        if let CopySource::Bucket { bucket, key, .. } = &input.copy_source
            && (&**bucket, &**key) == (input.bucket.as_str(), input.key.as_str())
            && !replace
        {
            // As S3 has it: a copy onto itself has to change something.
            return Err(S3Error::new(S3ErrorCode::InvalidRequest));
        }
        if source.content.len() > MAX_COPY {
            return Err(S3Error::new(S3ErrorCode::InvalidRequest));
        }
        let mut copy =
            Object::new(source.content.clone(), metadata).with_content_type(content_type);
        copy.etag.clone_from(&source.etag);
        let object = self
            .shared
            .backend
            .put(&input.bucket, &input.key, copy, &Precondition::Always)
            .map_err(backend_error)?;
        leave.with(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(strong(&object.etag)),
                last_modified: Some(object.last_modified.into()),
                ..Default::default()
            }),
            version_id: object.version_id.clone(),
            ..Default::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let leave = self.enter(Op::Write).await?;
        let input = req.input;
        let upload = self
            .shared
            .backend
            .begin_upload(
                &input.bucket,
                &input.key,
                input.metadata.unwrap_or_default(),
                input.content_type.map(|kind| kind.to_string()),
            )
            .map_err(backend_error)?;
        leave.with(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload),
            ..Default::default()
        })
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let leave = self.enter(Op::Write).await?;
        let input = req.input;
        let bytes = collect(input.body).await?;
        check_sum(&bytes, input.checksum_crc32c.as_deref())?;
        let content = Content::Bytes(bytes);
        let etag = self
            .shared
            .backend
            .put_part(&input.bucket, &input.upload_id, input.part_number, content)
            .map_err(backend_error)?;
        leave.with(UploadPartOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        })
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let leave = self.enter(Op::Write).await?;
        let input = req.input;
        let source = self.copied(
            &input.copy_source,
            input.copy_source_if_match.as_ref(),
            input.copy_source_if_none_match.as_ref(),
        )?;
        let range = match &input.copy_source_range {
            Some(text) => {
                Some(Range::parse(text).map_err(|_| S3Error::new(S3ErrorCode::InvalidArgument))?)
            }
            None => None,
        };
        let range = resolve_range(range.as_ref(), source.content.len())?;
        let content = Content::Slice {
            of: Box::new(source.content.clone()),
            start: range.start,
            size: range.end - range.start,
        };
        let etag = self
            .shared
            .backend
            .put_part(&input.bucket, &input.upload_id, input.part_number, content)
            .map_err(backend_error)?;
        leave.with(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                e_tag: Some(ETag::Strong(etag)),
                last_modified: Some(source.last_modified.into()),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let leave = self.enter(Op::Write).await?;
        let input = req.input;
        let condition = write_condition(input.if_match, input.if_none_match)?;
        let parts = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        for part in &parts {
            if let Some(sum) = &part.checksum_crc32c {
                let number = part.part_number.unwrap_or(0);
                let content = self
                    .shared
                    .backend
                    .part(&input.bucket, &input.upload_id, number)
                    .map_err(backend_error)?;
                let bytes = content.read(0, usize::try_from(content.len()).unwrap_or(0));
                check_sum(&bytes, Some(sum)).map_err(|_| S3Error::new(S3ErrorCode::InvalidPart))?;
            }
        }
        let parts: Vec<_> = parts
            .into_iter()
            .map(|part| {
                (
                    part.part_number.unwrap_or(0),
                    part.e_tag.map(ETag::into_value),
                )
            })
            .collect();
        let object = self
            .shared
            .backend
            .complete_upload(&input.bucket, &input.upload_id, &parts, &condition)
            .map_err(backend_error)?;
        leave.with(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(strong(&object.etag)),
            version_id: object.version_id.clone(),
            ..Default::default()
        })
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.enter(Op::List).await?;
        let input = req.input;
        let max = input.max_uploads.unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS);
        let marker = input
            .key_marker
            .as_deref()
            .zip(input.upload_id_marker.as_deref());
        let prefix = input.prefix.clone().unwrap_or_default();
        let mut uploads = self
            .shared
            .backend
            .uploads(&input.bucket, &prefix, marker)
            .map_err(backend_error)?;
        let more = uploads.len() > max as usize;
        uploads.truncate(max as usize);
        let last = uploads.last().filter(|_| more).cloned();
        let listed = uploads.into_iter().map(|upload| MultipartUpload {
            key: Some(upload.key),
            upload_id: Some(upload.id),
            initiated: Some(upload.initiated.into()),
            ..Default::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            uploads: Some(listed.collect()),
            is_truncated: Some(more),
            next_key_marker: last.as_ref().map(|upload| upload.key.clone()),
            next_upload_id_marker: last.map(|upload| upload.id),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let leave = self.enter(Op::Write).await?;
        self.shared
            .backend
            .abort_upload(&req.input.bucket, &req.input.upload_id)
            .map_err(backend_error)?;
        leave.with(AbortMultipartUploadOutput::default())
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.enter(Op::Head).await?;
        if !self.shared.backend.has_bucket(&req.input.bucket) {
            return Err(backend_error(BackendError::NoSuchBucket));
        }
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let leave = self.enter(Op::Write).await?;
        if !self.shared.backend.create_bucket(&req.input.bucket) {
            return Err(S3Error::new(S3ErrorCode::BucketAlreadyOwnedByYou));
        }
        leave.with(CreateBucketOutput::default())
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.enter(Op::Head).await?;
        if !self.shared.backend.has_bucket(&req.input.bucket) {
            return Err(backend_error(BackendError::NoSuchBucket));
        }
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn list_buckets(
        &self,
        _req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        self.enter(Op::List).await?;
        let names = self.shared.backend.bucket_names().into_iter();
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(
                names
                    .map(|name| Bucket {
                        name: Some(name),
                        ..Default::default()
                    })
                    .collect(),
            ),
            ..Default::default()
        }))
    }
}

fn content_type(object: &Object) -> Option<ContentType> {
    object.content_type.as_ref()?.parse().ok()
}

fn metadata(object: &Object) -> Option<Metadata> {
    (!object.metadata.is_empty()).then(|| object.metadata.clone())
}

/// As `encoding-type=url` asks: everything but unreserved characters and `/`.
fn percent_encode(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
