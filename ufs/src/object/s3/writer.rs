//! Changing the objects of a bucket.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use futures::{StreamExt, TryStreamExt};
use md5::{Digest, Md5};
use millpond_proto::{ErrorKind, FileVersion, Refusal};
use parking_lot::Mutex;
use reqwest::Method;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use super::client::{Answer, Ask, Refused, S3Client};
use crate::error::{Op, UfsError};
use crate::metadata::Metadata;
use crate::object::backend::{Extra, ObjectMeta, RawUploads};
use crate::object::listed::{inner, unescape};
use crate::object::store::Writer;
use crate::write::{Abilities, Condition, PartRules, Unfinished, Upload};

/// A bucket that can be written to.
#[derive(Debug, Clone)]
pub(super) struct S3Writer {
    client: Arc<S3Client>,
    bucket: String,
    checksums: bool,
}

impl S3Writer {
    pub(super) fn new(client: S3Client, bucket: &str, checksums: bool) -> Self {
        Self {
            client: Arc::new(client),
            bucket: bucket.to_owned(),
            checksums,
        }
    }

    /// What `refused` means for a write under `condition`.
    fn explain(&self, refused: Refused, op: Op, key: &str, condition: &Condition) -> UfsError {
        let uri = self.client.uri_of(key);
        match (condition, refused.status) {
            (Condition::Absent, 409 | 412) => {
                let cause = "there is an object already";
                UfsError::refused(Refusal::Exists, op, uri, cause)
            }
            (Condition::Version(_), 404 | 409 | 412) if refused.code != "NoSuchBucket" => {
                UfsError::new(ErrorKind::Stale, op, uri, "the object was replaced")
            }
            _ => refused.error,
        }
    }

    fn conditioned<'a>(&self, ask: Ask<'a>, condition: &Condition) -> Result<Ask<'a>, UfsError> {
        match condition {
            Condition::Any => Ok(ask),
            Condition::Absent => Ok(ask.header("if-none-match", "*")),
            Condition::Version(FileVersion::ETag(e_tag)) => Ok(ask.header("if-match", e_tag)),
            Condition::Version(_) => Err(UfsError::new(
                ErrorKind::Stale,
                ask.op,
                self.client.uri_of(ask.key),
                "the version is not one of an object here",
            )),
        }
    }

    /// Whether the object at `key` is the one that an attempt, whose answer was lost, was to
    /// make: `e_tag` is that of its bytes.
    async fn is_ours(&self, key: &str, e_tag: &str) -> Option<ObjectMeta> {
        let (object, _) = self.describe(key).await.ok()??;
        let FileVersion::ETag(found) = object.version.as_ref()? else {
            return None;
        };
        (found.trim_matches('"') == e_tag).then_some(object)
    }

    /// Copies in parts: what is too large for one request, or what has a condition.
    async fn copy_in_parts(
        &self,
        op: Op,
        from: &ObjectMeta,
        key: &str,
        extra: &Extra,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError> {
        if from.size == 0 {
            let put = self.put_object(op, key, Bytes::new(), extra, condition);
            return put.await;
        }
        let upload = self.begin(op, key, extra).await?;
        let Some(version) = &from.version else {
            let uri = self.client.uri_of(&from.key);
            let cause = "the object to copy has no version";
            return Err(UfsError::new(ErrorKind::Unsupported, op, uri, cause));
        };
        let part = (from.size.div_ceil(u64::from(RULES.count))).max(COPIED);
        let parts = (0..from.size.div_ceil(part)).map(|index| {
            let start = index * part;
            let range = start..from.size.min(start + part);
            let upload = &upload;
            async move {
                let number = u32::try_from(index).unwrap_or(u32::MAX);
                upload
                    .copy_part(number, start, &from.key, version, range)
                    .await
            }
        });
        let copied = futures::stream::iter(parts)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>();
        let ended = match copied.await {
            Ok(()) => upload.complete(from.size, condition).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(metadata) => Ok(ObjectMeta {
                key: key.to_owned(),
                size: metadata.size,
                version: metadata.version,
                mtime: metadata.mtime,
            }),
            Err(error) => {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "an unfinished upload stays behind");
                }
                Err(error)
            }
        }
    }

    async fn begin(&self, op: Op, key: &str, extra: &Extra) -> Result<S3Upload, UfsError> {
        let mut ask = with_extra(Ask::new(Method::POST, op, key), extra).query("uploads", "");
        if self.checksums {
            ask = ask.header("x-amz-checksum-algorithm", "CRC32C");
        }
        let answer = self.client.send(&ask).await;
        let answer = answer.map_err(|refused| refused.error)?;
        let id = text_of(&answer, "UploadId");
        let id = id.ok_or_else(|| self.broken(op, key, "it names no upload"))?;
        Ok(S3Upload {
            writer: self.clone(),
            op,
            key: key.to_owned(),
            id,
            extra: extra.clone(),
            parts: Mutex::default(),
        })
    }

    fn broken(&self, op: Op, key: &str, cause: &str) -> UfsError {
        let uri = self.client.uri_of(key);
        let cause = format!("the answer of the store is broken: {cause}");
        UfsError::new(ErrorKind::Unavailable, op, uri, cause)
    }

    fn made(&self, op: Op, key: &str, size: u64, answer: &Answer) -> Result<ObjectMeta, UfsError> {
        let e_tag = answer.header("etag").map(str::to_owned);
        let e_tag = e_tag.or_else(|| text_of(answer, "ETag"));
        let e_tag = e_tag.ok_or_else(|| self.broken(op, key, "it has no ETag"))?;
        let listed = text_of(answer, "LastModified")
            .and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok());
        let dated = || OffsetDateTime::parse(answer.header("date")?, &Rfc2822).ok();
        Ok(ObjectMeta {
            key: key.to_owned(),
            size,
            version: Some(version(&e_tag)),
            mtime: listed.or_else(dated).map(SystemTime::from),
        })
    }
}

#[async_trait]
impl Writer for S3Writer {
    fn abilities(&self) -> Abilities {
        Abilities {
            write: true,
            if_absent: true,
            if_version: true,
            copy_parts: true,
            parts: RULES,
            ..Abilities::default()
        }
    }

    async fn describe(&self, key: &str) -> Result<Option<(ObjectMeta, Extra)>, UfsError> {
        let ask = Ask::new(Method::HEAD, Op::GetAttributes, key);
        let answer = match self.client.send(&ask).await {
            Ok(answer) => answer,
            Err(refused) if refused.status == 404 => return Ok(None),
            Err(refused) => return Err(refused.error),
        };
        let size = answer
            .header("content-length")
            .and_then(|text| text.parse().ok());
        let size = size.ok_or_else(|| self.broken(Op::GetAttributes, key, "it has no length"))?;
        let mut object = self.made(Op::GetAttributes, key, size, &answer)?;
        let modified = answer.header("last-modified");
        let modified = modified.and_then(|text| OffsetDateTime::parse(text, &Rfc2822).ok());
        object.mtime = modified.map(SystemTime::from);
        let mut extra = Extra::default();
        for (name, value) in &answer.headers {
            // Values are text of any kind: those that are not ASCII come as UTF-8.
            let Ok(value) = std::str::from_utf8(value.as_bytes()) else {
                continue;
            };
            if let Some(name) = name.as_str().strip_prefix("x-amz-meta-") {
                extra.user.insert(name.to_owned(), value.to_owned());
            } else if let Some(name) = SYSTEM.iter().find(|system| name == **system) {
                extra.system.insert(name, value.to_owned());
            }
        }
        Ok(Some((object, extra)))
    }

    async fn put_object(
        &self,
        op: Op,
        key: &str,
        data: Bytes,
        extra: &Extra,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError> {
        let mut ask = with_extra(Ask::new(Method::PUT, op, key), extra);
        if self.checksums {
            ask = ask.header(CRC32C, &crc32c(&data));
        }
        let ask = self.conditioned(ask, condition)?.body(data);
        let size = ask.body.len() as u64;
        let refused = match self.client.send(&ask).await {
            Ok(answer) => return self.made(op, key, size, &answer),
            Err(refused) => refused,
        };
        if refused.repeated && *condition != Condition::Any {
            // Refused because it is there: perhaps by the attempt whose answer was lost.
            let e_tag = hex::encode(Md5::digest(&ask.body));
            if let Some(object) = self.is_ours(key, &e_tag).await {
                return Ok(object);
            }
        }
        Err(self.explain(refused, op, key, condition))
    }

    async fn delete(&self, op: Op, key: &str) -> Result<(), UfsError> {
        match self.client.send(&Ask::new(Method::DELETE, op, key)).await {
            Ok(_) => Ok(()),
            Err(refused) if refused.status == 404 && refused.code != "NoSuchBucket" => Ok(()),
            Err(refused) => Err(refused.error),
        }
    }

    async fn copy(
        &self,
        op: Op,
        from: &ObjectMeta,
        key: &str,
        extra: Option<&Extra>,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError> {
        if from.size > RULES.max || *condition != Condition::Any {
            let extra = match extra {
                Some(extra) => extra.clone(),
                None => match self.describe(&from.key).await? {
                    Some((_, extra)) => extra,
                    None => {
                        let uri = self.client.uri_of(&from.key);
                        let cause = "there is no such object";
                        return Err(UfsError::new(ErrorKind::NotFound, op, uri, cause));
                    }
                },
            };
            return self.copy_in_parts(op, from, key, &extra, condition).await;
        }
        let source = self.client.source_of(&self.bucket, &from.key);
        let mut ask = Ask::new(Method::PUT, op, key).header(SOURCE, &source);
        if let Some(FileVersion::ETag(e_tag)) = &from.version {
            ask = ask.header(SOURCE_IF_MATCH, e_tag);
        }
        if let Some(extra) = extra {
            ask = with_extra(ask, extra).header("x-amz-metadata-directive", "REPLACE");
        }
        match self.client.send(&ask).await {
            Ok(answer) => self.made(op, key, from.size, &answer),
            Err(refused) if refused.status == 412 => {
                let uri = self.client.uri_of(&from.key);
                let cause = "the object to copy was replaced";
                Err(UfsError::new(ErrorKind::Stale, op, uri, cause))
            }
            Err(refused) => Err(refused.error),
        }
    }

    async fn upload(&self, key: &str, extra: &Extra) -> Result<Box<dyn Upload>, UfsError> {
        Ok(Box::new(self.begin(Op::Upload, key, extra).await?))
    }

    async fn uploads(&self, prefix: &str, token: Option<String>) -> Result<RawUploads, UfsError> {
        let mut ask = Ask::new(Method::GET, Op::List, "")
            .query("uploads", "")
            .query("prefix", prefix);
        // The key and the upload that the page before ended with.
        if let Some((key, id)) = token.as_deref().and_then(|token| token.split_once('\n')) {
            ask = ask.query("key-marker", key).query("upload-id-marker", id);
        }
        let answer = self.client.send(&ask).await;
        let answer = answer.map_err(|refused| refused.error)?;
        let text = String::from_utf8_lossy(&answer.body);
        let mut page = RawUploads::default();
        for element in text.split("<Upload>").skip(1) {
            let field = |tag| inner(element, tag).and_then(unescape);
            if let (Some(path), Some(id)) = (field("Key"), field("UploadId")) {
                let started =
                    field("Initiated").and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok());
                page.uploads.push(Unfinished {
                    path,
                    id,
                    started: started.map(SystemTime::from),
                });
            }
        }
        if inner(&text, "IsTruncated") == Some("true") {
            let field = |tag| inner(&text, tag).and_then(unescape);
            let next = field("NextKeyMarker").zip(field("NextUploadIdMarker"));
            page.next = next.map(|(key, id)| format!("{key}\n{id}"));
        }
        Ok(page)
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), UfsError> {
        let ask = Ask::new(Method::DELETE, Op::Upload, key).query("uploadId", id);
        match self.client.send(&ask).await {
            Ok(_) => Ok(()),
            Err(refused) if refused.code == "NoSuchUpload" => Ok(()),
            Err(refused) => Err(refused.error),
        }
    }
}

/// An upload in parts; its paths are keys.
#[derive(Debug)]
struct S3Upload {
    writer: S3Writer,
    op: Op,
    key: String,
    id: String,
    extra: Extra,
    parts: Mutex<BTreeMap<u32, Part>>,
}

#[derive(Debug, Clone)]
struct Part {
    offset: u64,
    size: u64,
    e_tag: String,
    /// What its bytes sum up to, where the store was told or tells.
    sum: Option<String>,
}

impl S3Upload {
    fn ask(&self, method: Method) -> Ask<'_> {
        Ask::new(method, self.op, &self.key)
    }

    fn part_ask(&self, number: u32) -> Ask<'_> {
        self.ask(Method::PUT)
            .query("partNumber", (number + 1).to_string())
            .query("uploadId", self.id.as_str())
    }

    fn error(&self, kind: ErrorKind, cause: impl Into<String>) -> UfsError {
        UfsError::new(kind, self.op, self.writer.client.uri_of(&self.key), cause)
    }

    /// The parts in order, if they make up `size` bytes.
    fn whole(&self, size: u64) -> Result<Vec<(u32, Part)>, UfsError> {
        let parts = self.parts.lock();
        let mut end = 0;
        for (index, (number, part)) in (0_u32..).zip(parts.iter()) {
            if *number != index || part.offset != end {
                let cause = format!("part {number} does not follow the one before");
                return Err(self.error(ErrorKind::Invalid, cause));
            }
            end += part.size;
        }
        if end != size {
            let cause = format!("the parts have {end} bytes, not {size}");
            return Err(self.error(ErrorKind::Invalid, cause));
        }
        Ok(parts
            .iter()
            .map(|(number, part)| (*number, part.clone()))
            .collect())
    }
}

#[async_trait]
impl Upload for S3Upload {
    fn id(&self) -> &str {
        &self.id
    }

    async fn part(&self, number: u32, offset: u64, data: Bytes) -> Result<(), UfsError> {
        let size = data.len() as u64;
        let sum = self.writer.checksums.then(|| crc32c(&data));
        let mut ask = self.part_ask(number).body(data);
        if let Some(sum) = &sum {
            ask = ask.header(CRC32C, sum);
        }
        let answer = self.writer.client.send(&ask).await;
        let answer = answer.map_err(|refused| refused.error)?;
        let e_tag = answer.header("etag").map(str::to_owned);
        let e_tag =
            e_tag.ok_or_else(|| self.error(ErrorKind::Unavailable, "a part has no ETag"))?;
        let part = Part {
            offset,
            size,
            e_tag,
            sum,
        };
        self.parts.lock().insert(number, part);
        Ok(())
    }

    async fn copy_part(
        &self,
        number: u32,
        offset: u64,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<(), UfsError> {
        let stale = || self.error(ErrorKind::Stale, "the object to copy from was replaced");
        let FileVersion::ETag(source_tag) = version else {
            return Err(stale());
        };
        let source = self.writer.client.source_of(&self.writer.bucket, path);
        let bytes = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let ask = self
            .part_ask(number)
            .header(SOURCE, &source)
            .header(SOURCE_IF_MATCH, source_tag)
            .header("x-amz-copy-source-range", &bytes);
        let answer = match self.writer.client.send(&ask).await {
            Ok(answer) => answer,
            Err(refused) if refused.status == 412 => return Err(stale()),
            Err(refused) => return Err(refused.error),
        };
        let e_tag = text_of(&answer, "ETag");
        let e_tag =
            e_tag.ok_or_else(|| self.error(ErrorKind::Unavailable, "a part has no ETag"))?;
        let part = Part {
            offset,
            size: range.end - range.start,
            e_tag,
            sum: text_of(&answer, "ChecksumCRC32C"),
        };
        self.parts.lock().insert(number, part);
        Ok(())
    }

    async fn complete(&self, size: u64, condition: &Condition) -> Result<Metadata, UfsError> {
        let writer = &self.writer;
        let parts = self.whole(size)?;
        if parts.is_empty() {
            // An upload has at least one part.
            let data = Bytes::new();
            let put = writer.put_object(self.op, &self.key, data, &self.extra, condition);
            let object = put.await?;
            self.abort().await?;
            return Ok(Metadata::file(object.size, object.version, object.mtime));
        }
        let ask = self.ask(Method::POST).query("uploadId", self.id.as_str());
        let ask = writer.conditioned(ask, condition)?;
        let body = completion(&parts);
        let ask = ask
            .header("content-type", "application/xml")
            .body(body.into());
        let object = match writer.client.send(&ask).await {
            Ok(answer) => writer.made(self.op, &self.key, size, &answer)?,
            Err(refused) => {
                let ours = match refused.repeated.then(|| e_tag_of(&parts)).flatten() {
                    Some(e_tag) => writer.is_ours(&self.key, &e_tag).await,
                    None => None,
                };
                match ours {
                    Some(object) => object,
                    // That the upload is gone says that it ended; not how.
                    None if refused.code == "NoSuchUpload" => return Err(refused.error),
                    None => {
                        return Err(writer.explain(refused, self.op, &self.key, condition));
                    }
                }
            }
        };
        Ok(Metadata::file(size, object.version, object.mtime))
    }

    async fn abort(&self) -> Result<(), UfsError> {
        self.writer.abort(&self.key, &self.id).await
    }
}

fn completion(parts: &[(u32, Part)]) -> String {
    let mut body =
        String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (number, part) in parts {
        let e_tag = part.e_tag.replace('"', "&quot;");
        body.push_str(&format!(
            "<Part><PartNumber>{}</PartNumber><ETag>{e_tag}</ETag>",
            number + 1
        ));
        if let Some(sum) = &part.sum {
            body.push_str(&format!("<ChecksumCRC32C>{sum}</ChecksumCRC32C>"));
        }
        body.push_str("</Part>");
    }
    body.push_str("</CompleteMultipartUpload>");
    body
}

/// The ETag that S3 gives an object of these parts, where it is made of the MD5 of each.
fn e_tag_of(parts: &[(u32, Part)]) -> Option<String> {
    let mut whole = Md5::new();
    for (_, part) in parts {
        whole.update(hex::decode(part.e_tag.trim_matches('"')).ok()?);
    }
    Some(format!("{}-{}", hex::encode(whole.finalize()), parts.len()))
}

fn with_extra<'a>(mut ask: Ask<'a>, extra: &Extra) -> Ask<'a> {
    for (name, value) in &extra.system {
        ask = ask.header(name, value);
    }
    for (name, value) in &extra.user {
        ask = ask.header(&format!("x-amz-meta-{name}"), value);
    }
    ask
}

fn text_of(answer: &Answer, tag: &str) -> Option<String> {
    inner(std::str::from_utf8(&answer.body).ok()?, tag).and_then(unescape)
}

fn version(e_tag: &str) -> FileVersion {
    match e_tag.starts_with('"') || e_tag.starts_with("W/") {
        true => FileVersion::ETag(e_tag.into()),
        false => FileVersion::ETag(format!("\"{e_tag}\"").into()),
    }
}

fn crc32c(data: &[u8]) -> String {
    let sum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, data);
    BASE64_STANDARD.encode((sum as u32).to_be_bytes())
}

const CRC32C: &str = "x-amz-checksum-crc32c";
const SOURCE: &str = "x-amz-copy-source";
const SOURCE_IF_MATCH: &str = "x-amz-copy-source-if-match";

/// What a new object has to be given again if it is to have it.
const SYSTEM: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-storage-class",
];

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const RULES: PartRules = PartRules {
    min: 5 << 20,
    max: 5 << 30,
    count: 10_000,
    object: 5 << 40,
};

/// How much is copied by one request, and how many there are at once.
const COPIED: u64 = 512 << 20;
const AT_ONCE: usize = 16;
