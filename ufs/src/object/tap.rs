//! The HTTP client that object stores are given: it notes what each call met, and takes
//! names out of listings that would make the store's client fail the whole page.
//!
//! A call's [`CallLog`] travels in the request's extensions. Requests without one (those
//! that fetch credentials) pass untouched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use parking_lot::Mutex;

use crate::digest::Sum;
use crate::layer::Valve;
use crate::object::listed::{Listed, error_code, list};

/// Makes clients that tap.
#[derive(Debug)]
pub(crate) struct TapConnector {
    valve: Arc<Valve>,
}

impl TapConnector {
    /// Clients that tell `valve` of attempts that the store refused.
    pub(crate) const fn new(valve: Arc<Valve>) -> Self {
        Self { valve }
    }
}

impl HttpConnector for TapConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        let valve = Arc::clone(&self.valve);
        Ok(HttpClient::new(Tap { inner, valve }))
    }
}

/// What one call to a store met, over all its attempts.
#[derive(Debug)]
pub(crate) struct CallLog {
    started: Instant,
    /// The prefix of the listing that this call is, if it is one.
    listing: Option<String>,
    state: Mutex<CallState>,
}

/// The state of a [`CallLog`].
#[derive(Debug, Default, Clone)]
pub(crate) struct CallState {
    pub(crate) attempts: u32,
    /// How the last attempt ended.
    pub(crate) last: Option<Ending>,
    pub(crate) listed: Option<Listed>,
    /// What the store says that the bytes of the object sum up to.
    pub(crate) sum: Option<Sum>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With an answer, whose body may be an error document with a code.
    Status(u16, Option<String>),
    /// Without.
    Transport(HttpErrorKind),
}

impl CallLog {
    pub(crate) fn new() -> Arc<Self> {
        Self::start(None)
    }

    /// For a listing of all keys that begin with `prefix`.
    pub(crate) fn of_listing(prefix: &str) -> Arc<Self> {
        Self::start(Some(prefix.to_owned()))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn state(&self) -> CallState {
        self.state.lock().clone()
    }

    fn start(listing: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            listing,
            state: Mutex::default(),
        })
    }

    /// The attempt that seemed to be answered ended like this after all.
    pub(crate) fn ended(&self, ending: Ending) {
        self.state.lock().last = Some(ending);
    }

    fn note(&self, ending: Ending) {
        let mut state = self.state.lock();
        state.attempts += 1;
        state.last = Some(ending);
    }
}

#[derive(Debug)]
struct Tap {
    inner: HttpClient,
    valve: Arc<Valve>,
}

#[async_trait]
impl HttpService for Tap {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Some(log) = request.extensions().get::<Arc<CallLog>>().cloned() else {
            return self.inner.execute(request).await;
        };
        let sent = tokio::time::Instant::now();
        let result = self.answer(&log, request).await;
        let refused = match &result {
            Ok(response) => is_refusal(response.status().as_u16()),
            Err(error) => matches!(error.kind(), HttpErrorKind::Timeout),
        };
        if refused {
            self.valve.attempt_refused(sent);
        }
        if let Err(error) = &result {
            log.note(Ending::Transport(error.kind()));
        }
        result
    }
}

/// Whether a store that answers like this wants fewer requests.
pub(crate) const fn is_refusal(status: u16) -> bool {
    matches!(status, 429 | 503)
}

impl Tap {
    async fn answer(&self, log: &CallLog, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.inner.execute(request).await?;
        let status = response.status();
        let is_error = status.is_client_error() || status.is_server_error();
        let is_listing = status.is_success() && log.listing.is_some();
        if !is_error && !is_listing {
            log.note(Ending::Status(status.as_u16(), None));
            log.state.lock().sum = Sum::of(response.headers());
            return Ok(response);
        }
        // Both are small and would be gathered by the store's client anyway. A failure
        // while doing so here is retried, there it would not be.
        let (parts, body) = response.into_parts();
        let mut body: Bytes = body.bytes().await?;
        let code = is_error.then(|| error_code(&body)).flatten();
        log.note(Ending::Status(status.as_u16(), code));
        if is_listing && let Some(prefix) = &log.listing {
            let (filtered, listed) = list(body, prefix);
            body = filtered;
            log.state.lock().listed = Some(listed);
        }
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}
