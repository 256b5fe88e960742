//! A web server as a read-only tree without listings.
//!
//! - A path is the URL below the base, each name percent-encoded.
//! - `stat` is a HEAD. The version is the ETag, else the Last-Modified time, whose resolution
//!   is a second: a server that gives neither is `Unsupported`, since nothing could tell two
//!   versions apart.
//! - A directory is the root, and whatever the server answers for under its name with a
//!   slash behind it, or redirects to there. None can be listed: `list` is `Unsupported`.
//! - A read is a ranged GET with `If-Match` (strong ETags) or `If-Unmodified-Since`, and the
//!   answer's validator is compared again. A server without ranges can only be read whole.

mod answer;
mod request;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use millpond_proto::{ErrorKind, FileVersion};
use reqwest::Method;
use reqwest::header::{IF_MATCH, IF_UNMODIFIED_SINCE, RANGE};

use crate::error::{Op, UfsError};
use crate::http::answer::Answer;
use crate::http::request::{Auth, Requests};
use crate::layer::Valve;
use crate::metadata::Metadata;
use crate::name;
use crate::object::{exactly, install_crypto};
use crate::options::{OptionSet, Patience};
use crate::ufs::{ByteStream, EntryStream, Ufs};
use crate::uri::{UfsUri, encode_path};

/// A web server.
#[derive(Debug)]
pub(crate) struct HttpUfs {
    uri: String,
    requests: Requests,
}

impl HttpUfs {
    /// The server and base path that `uri` names.
    pub(crate) fn open(
        uri: &UfsUri,
        options: &OptionSet<'_>,
        patience: Patience,
        valve: &Arc<Valve>,
    ) -> Result<Self, UfsError> {
        let is_plain = uri.authority().starts_with("http://");
        if is_plain && !options.flag("allow_http", true)? {
            return Err(options.wrong("allow_http", "false, but the URI is plain HTTP"));
        }
        install_crypto();
        Ok(Self {
            uri: uri.to_string(),
            requests: Requests::new(options, patience, Auth::of(options)?, Arc::clone(valve))?,
        })
    }

    fn check(&self, op: Op, path: &str) -> Result<(), UfsError> {
        if name::is_well_formed(path) {
            return Ok(());
        }
        Err(self.error(
            ErrorKind::Invalid,
            op,
            path,
            "the path has empty, . or .. components",
        ))
    }

    fn error(&self, kind: ErrorKind, op: Op, path: &str, cause: impl Into<String>) -> UfsError {
        UfsError::new(kind, op, self.object_uri(path), cause)
    }

    /// Whether the server answers for `path` with a slash behind it.
    async fn is_directory(&self, path: &str) -> Result<bool, UfsError> {
        let url = format!("{}/", self.object_uri(path));
        match self.requests.send(Op::Stat, Method::HEAD, &url, &[]).await {
            // A refusal to show an index still means that there is something.
            Ok(response) => Ok(response.status().is_success() || response.status() == 403),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Ufs for HttpUfs {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn object_uri(&self, path: &str) -> String {
        match path {
            "" => self.uri.clone(),
            path => format!("{}/{}", self.uri, encode_path(path)),
        }
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        self.check(Op::Stat, path)?;
        if path.is_empty() {
            return Ok(Metadata::directory());
        }
        let url = self.object_uri(path);
        let response = self
            .requests
            .send(Op::Stat, Method::HEAD, &url, &[])
            .await?;
        if response.url().path().ends_with('/') {
            return Ok(Metadata::directory());
        }
        let answer = Answer::of(&response);
        match answer.status {
            200..300 => {}
            404 | 410 => {
                return match self.is_directory(path).await? {
                    true => Ok(Metadata::directory()),
                    false => Err(self.error(
                        ErrorKind::NotFound,
                        Op::Stat,
                        path,
                        "there is no such file",
                    )),
                };
            }
            _ => return Err(self.requests.refusal(Op::Stat, &url, &answer)),
        }
        let unsupported = |what: &str| {
            self.error(
                ErrorKind::Unsupported,
                Op::Stat,
                path,
                format!("the server sends no {what} for it"),
            )
        };
        let size = answer.length.ok_or_else(|| unsupported("Content-Length"))?;
        let version = answer
            .version()
            .ok_or_else(|| unsupported("ETag or Last-Modified"))?;
        Ok(Metadata::file(size, Some(version), answer.mtime()))
    }

    fn list(&self, dir: &str) -> EntryStream {
        let error = self.error(
            ErrorKind::Unsupported,
            Op::List,
            dir,
            "web servers have no listings; open files by their path",
        );
        futures::stream::iter([Err(error)]).boxed()
    }

    async fn read(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        self.check(Op::Read, path)?;
        let url = self.object_uri(path);
        let len = range.end - range.start;
        let mut headers = vec![(RANGE, format!("bytes={}-{}", range.start, range.end - 1))];
        match version {
            // A weak ETag never matches If-Match; it is compared with the answer's below.
            FileVersion::ETag(e_tag) if e_tag.starts_with("W/") => {}
            FileVersion::ETag(e_tag) => headers.push((IF_MATCH, e_tag.to_string())),
            FileVersion::Modified(mtime_ns) => {
                if let Some(date) = answer::http_date(*mtime_ns) {
                    headers.push((IF_UNMODIFIED_SINCE, date));
                }
            }
            FileVersion::Id(_) | FileVersion::Local { .. } => {
                return Err(self.error(
                    ErrorKind::Stale,
                    Op::Read,
                    path,
                    "the version is not one of a web server",
                ));
            }
        }
        let response = self
            .requests
            .send(Op::Read, Method::GET, &url, &headers)
            .await?;
        let answer = Answer::of(&response);
        match answer.status {
            200 | 206 => {}
            416 => {
                return Err(self.error(
                    ErrorKind::Invalid,
                    Op::Read,
                    path,
                    format!("bytes {range:?} are beyond its end"),
                ));
            }
            _ => return Err(self.requests.refusal(Op::Read, &url, &answer)),
        }
        if answer.version().as_ref() != Some(version) {
            return Err(self.error(ErrorKind::Stale, Op::Read, path, "the file was replaced"));
        }
        match (answer.status, answer.range.clone()) {
            (206, Some(sent)) if sent == range => {}
            (206, sent) => {
                let cause = match sent {
                    Some(sent) if sent.start == range.start && sent.end < range.end => {
                        return Err(self.error(
                            ErrorKind::Invalid,
                            Op::Read,
                            path,
                            format!("bytes {range:?} are beyond its end"),
                        ));
                    }
                    sent => format!("asked for bytes {range:?}, the server sent {sent:?}"),
                };
                return Err(self.error(ErrorKind::Unavailable, Op::Read, path, cause));
            }
            // The whole file: fine if that was asked for.
            _ if range.start == 0 && answer.length == Some(len) => {}
            _ => {
                return Err(self.error(
                    ErrorKind::Unsupported,
                    Op::Read,
                    path,
                    "the server does not serve parts of files",
                ));
            }
        }
        let is_whole = answer.status == 200 || answer.of == Some(len);
        let body = self.requests.body(response, &url);
        let body = match answer.sum.filter(|_| is_whole) {
            Some(sum) => sum.verify(body, len, url.clone()),
            None => body,
        };
        Ok(exactly(body, len, url))
    }

    async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        Err(self.error(
            ErrorKind::Unsupported,
            Op::ReadLink,
            path,
            "web servers have no symbolic links",
        ))
    }
}
