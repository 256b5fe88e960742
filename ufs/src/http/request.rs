//! Sending requests: credentials, retries, errors.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use millpond_proto::ErrorKind;
use reqwest::header::HeaderName;
use reqwest::{Client, Method, Response};

use crate::error::{Op, UfsError, chain};
use crate::http::answer::Answer;
use crate::layer::Valve;
use crate::object::is_refusal;
use crate::options::{OptionSet, Patience};
use crate::redact::Redactor;
use crate::ufs::ByteStream;

/// The client of one mount.
#[derive(Debug)]
pub(super) struct Requests {
    client: Client,
    auth: Auth,
    patience: Patience,
    redactor: Redactor,
    valve: Arc<Valve>,
}

/// How requests prove who sends them. Debug output holds no secret.
pub(super) enum Auth {
    Nobody,
    Basic(String, String),
    Bearer(String),
}

impl Auth {
    pub(super) fn of(options: &OptionSet<'_>) -> Result<Self, UfsError> {
        match (
            options.text("username"),
            options.text("password"),
            options.text("bearer_token"),
        ) {
            (None, None, None) => Ok(Self::Nobody),
            (None, None, Some(token)) => Ok(Self::Bearer(token.to_owned())),
            (Some(user), password, None) => Ok(Self::Basic(
                user.to_owned(),
                password.unwrap_or_default().to_owned(),
            )),
            (None, Some(_), _) => Err(options.wrong("username", "missing")),
            (Some(_), _, Some(_)) => Err(options.wrong(
                "bearer_token",
                "given together with username; give one of the two",
            )),
        }
    }
}

impl Requests {
    pub(super) fn new(
        options: &OptionSet<'_>,
        patience: Patience,
        auth: Auth,
        valve: Arc<Valve>,
    ) -> Result<Self, UfsError> {
        let client = Client::builder()
            .user_agent(concat!("millpond/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(patience.connect)
            .read_timeout(patience.silence())
            .build()
            .map_err(|error| {
                let uri = options.uri();
                UfsError::new(ErrorKind::Internal, Op::Open, uri, error.to_string())
            })?;
        Ok(Self {
            client,
            auth,
            patience,
            redactor: Redactor::new(options.secrets()),
            valve,
        })
    }

    /// The server's answer, whatever its status; one that asks to come back later, or none
    /// at all, is tried again.
    pub(super) async fn send(
        &self,
        op: Op,
        method: Method,
        url: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<Response, UfsError> {
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            // Jittered, so that many who met the same failure do not come back together.
            let pause = FIRST_PAUSE * (1 << attempt.min(MAX_DOUBLINGS));
            let pause = pause.mul_f64(rand::random_range(0.5..1.0));
            let mut request = self.client.request(method.clone(), url);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            request = match &self.auth {
                Auth::Nobody => request,
                Auth::Basic(user, password) => request.basic_auth(user, Some(password)),
                Auth::Bearer(token) => request.bearer_auth(token),
            };
            let is_last = attempt >= self.patience.max_retries
                || started.elapsed() + pause >= self.patience.retry_until();
            let sent = tokio::time::Instant::now();
            let answer = request.send().await;
            let refused = match &answer {
                Ok(response) => is_refusal(response.status().as_u16()),
                Err(error) => error.is_timeout(),
            };
            if refused {
                self.valve.attempt_refused(sent);
            }
            match answer {
                Ok(response) if is_last || !is_passing(response.status().as_u16()) => {
                    return Ok(response);
                }
                Err(error) if is_last || error.is_builder() || error.is_redirect() => {
                    return Err(self.failure(op, url, &error, started.elapsed()));
                }
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// The body of `response`.
    pub(super) fn body(&self, response: Response, url: &str) -> ByteStream {
        let (redactor, url, started) = (self.redactor.clone(), url.to_owned(), Instant::now());
        response
            .bytes_stream()
            .map(move |piece| {
                piece.map_err(|error| explain(&redactor, Op::Read, &url, &error, started.elapsed()))
            })
            .boxed()
    }

    /// The error that an answer other than a success means.
    pub(super) fn refusal(&self, op: Op, url: &str, answer: &Answer) -> UfsError {
        let status = answer.status;
        let (kind, cause) = match status {
            404 | 410 => (ErrorKind::NotFound, "there is no such file".into()),
            412 => (ErrorKind::Stale, "the file was replaced".into()),
            401 | 403 | 407 => {
                let cause = format!("the server answered with status {status}");
                let hint = "check username and password, or bearer_token";
                return UfsError::new(ErrorKind::Denied, op, url, cause).with_hint(hint);
            }
            429 => (ErrorKind::Busy, "the server asks for fewer requests".into()),
            408 | 504 => (ErrorKind::Timeout, format!("status {status}")),
            500.. => (
                ErrorKind::Unavailable,
                format!("the server answered with status {status}"),
            ),
            _ => (
                ErrorKind::Invalid,
                format!("the server answered with status {status}"),
            ),
        };
        UfsError::new(kind, op, url, cause)
    }

    fn failure(&self, op: Op, url: &str, error: &reqwest::Error, tried: Duration) -> UfsError {
        explain(&self.redactor, op, url, error, tried)
    }
}

fn explain(
    redactor: &Redactor,
    op: Op,
    url: &str,
    error: &reqwest::Error,
    tried: Duration,
) -> UfsError {
    let (kind, cause) = if error.is_connect() {
        (ErrorKind::Unavailable, "cannot connect to the server")
    } else if error.is_timeout() {
        (ErrorKind::Timeout, "the server did not answer in time")
    } else {
        (ErrorKind::Unavailable, "the connection to the server broke")
    };
    UfsError::new(kind, op, url, cause)
        .with_tried(tried)
        .with_hint("check the URI and that the server is up")
        .with_source(chain(error, |text| redactor.scrub(text)))
}

/// Whether a later attempt may be answered otherwise.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..)
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Basic(..) => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_DOUBLINGS: usize = 4;
