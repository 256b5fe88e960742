//! Signed requests that change a bucket, with those headers that the store's client has not.
//!
//! Every request is tried again as often as the mount's options say, whatever it does; what an
//! answer to a repeated one means is for the caller to find out, which is told whether an
//! earlier attempt may have done it already.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpErrorKind, HttpRequest, HttpRequestBody};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Op, UfsError, chain};
use crate::object::failure::Failures;
use crate::object::tap::{CallLog, Ending};
use crate::options::Patience;

/// Sends requests to one bucket.
pub(super) struct S3Client {
    place: Place,
    /// Whether the bytes are part of the signature: TLS keeps them as well, for less.
    sign_payload: bool,
}

/// A bucket, and how to reach it.
pub(super) struct Place {
    pub(super) http: HttpClient,
    /// The URL of the bucket, without a slash at the end.
    pub(super) url: String,
    pub(super) region: String,
    /// None for a bucket that asks nobody who he is.
    pub(super) credentials: Option<AwsCredentialProvider>,
    pub(super) patience: Patience,
    pub(super) failures: Arc<Failures>,
    /// The canonical URI of the bucket.
    pub(super) identity: String,
}

/// One request.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) op: Op,
    pub(super) key: &'a str,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A bad answer, or none.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: UfsError,
    /// The status and the error code, if there was an answer.
    pub(super) status: u16,
    pub(super) code: String,
    /// An attempt before was not answered, or badly: it may have done what it was to do.
    pub(super) repeated: bool,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, op: Op, key: &'a str) -> Self {
        Self {
            method,
            op,
            key,
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// A value that no header can have is left out: user metadata is encoded before.
    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl S3Client {
    pub(super) fn new(place: Place) -> Self {
        Self {
            sign_payload: !place.url.starts_with("https:"),
            place,
        }
    }

    pub(super) fn uri_of(&self, key: &str) -> String {
        format!("{}/{key}", self.place.identity)
    }

    /// How the object is named as the source of a copy.
    pub(super) fn source_of(&self, bucket: &str, key: &str) -> String {
        format!("{bucket}/{}", utf8_percent_encode(key, &PATH))
    }

    /// Sends `ask` until it is answered.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Answer, Refused> {
        let log = CallLog::new();
        let moving = Duration::from_secs(ask.body.len() as u64 / SLOWEST);
        let until = self.place.patience.retry_until() + moving;
        let mut repeated = false;
        let mut tries = 0;
        loop {
            let broken = match self.attempt(ask, &log).await {
                Ok(answer) => return Ok(answer),
                Err(broken) => broken,
            };
            let state = log.state();
            let again = may_be_tried_again(state.last.as_ref());
            if again && tries < self.place.patience.max_retries && log.elapsed() < until {
                repeated = true;
                tokio::time::sleep(pause(tries)).await;
                tries += 1;
                continue;
            }
            let (status, code) = match state.last {
                Some(Ending::Status(status, code)) => (status, code.unwrap_or_default()),
                _ => (0, String::new()),
            };
            let uri = self.uri_of(ask.key);
            return Err(Refused {
                error: self
                    .place
                    .failures
                    .explain_answer(ask.op, uri, &log, broken),
                status,
                code,
                repeated,
            });
        }
    }

    /// One attempt; why it failed, outermost first, if it did. How it ended is in the log.
    async fn attempt(&self, ask: &Ask<'_>, log: &Arc<CallLog>) -> Result<Answer, Vec<String>> {
        let scrub = |text: &str| self.place.failures.redactor.scrub(text);
        let mut request = HttpRequest::new(HttpRequestBody::from(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        let uri = self.url_of(ask).parse();
        *request.uri_mut() = uri.map_err(|error| chain(&error, scrub))?;
        request.headers_mut().extend(ask.headers.clone());
        if !ask.body.is_empty() || matches!(ask.method, Method::PUT | Method::POST) {
            let length = HeaderValue::from(ask.body.len());
            request.headers_mut().insert("content-length", length);
        }
        if let Some(credentials) = &self.place.credentials {
            let credential = credentials.get_credential().await;
            let credential = credential.map_err(|error| chain(&error, scrub))?;
            AwsAuthorizer::new(&credential, "s3", &self.place.region)
                .with_sign_payload(self.sign_payload)
                .try_authorize(&mut request, None)
                .map_err(|error| chain(&error, scrub))?;
        }
        request.extensions_mut().insert(Arc::clone(log));
        let response = self.place.http.execute(request).await;
        let response = response.map_err(|error| chain(&error, scrub))?;
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            return Err(Vec::new());
        }
        let body = match body.bytes().await {
            Ok(body) => body,
            Err(error) => {
                log.ended(Ending::Transport(error.kind()));
                return Err(chain(&error, scrub));
            }
        };
        // Copies and completions are answered before they are done.
        if let Some(code) = error_in(&body) {
            log.ended(Ending::Status(500, Some(code)));
            return Err(Vec::new());
        }
        Ok(Answer {
            headers: parts.headers,
            body,
        })
    }

    fn url_of(&self, ask: &Ask<'_>) -> String {
        let mut url = self.place.url.clone();
        if !ask.key.is_empty() {
            url.push('/');
            url.extend(utf8_percent_encode(ask.key, &PATH));
        }
        for (index, (name, value)) in ask.query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.extend(utf8_percent_encode(value, &STRICT));
        }
        url
    }
}

fn may_be_tried_again(ending: Option<&Ending>) -> bool {
    match ending {
        None => false,
        Some(Ending::Transport(kind)) => !matches!(kind, HttpErrorKind::Decode),
        Some(Ending::Status(409, code)) => matches!(
            code.as_deref(),
            Some("ConditionalRequestConflict" | "OperationAborted")
        ),
        Some(Ending::Status(status, _)) => matches!(status, 408 | 429 | 500 | 502..=504),
    }
}

/// The code of an error that comes with a good status.
fn error_in(body: &Bytes) -> Option<String> {
    let head = &body[..body.len().min(256)];
    let is_error = head.windows(7).any(|window| window == b"<Error>");
    is_error.then(|| crate::object::listed::error_code(body).unwrap_or_default())
}

/// Twice as long each time, and not at the same time for all.
fn pause(tries: usize) -> Duration {
    let longest = FIRST_PAUSE * 2_u32.pow(tries.min(5) as u32);
    longest
        .min(LONGEST_PAUSE)
        .mul_f64(rand::random_range(0.5..1.0))
}

impl fmt::Debug for S3Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Client")
            .field("url", &self.place.url)
            .finish_non_exhaustive()
    }
}

/// What a signature of version 4 wants to have encoded.
const STRICT: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const PATH: AsciiSet = STRICT.remove(b'/');

/// Bytes per second that a store takes at the least.
const SLOWEST: u64 = 1 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
