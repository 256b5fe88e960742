//! The admin endpoint of a process: `/metrics`, `/healthz`, `/readyz` over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::ProcessError;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long requests under way may hold up the end of the server.
const DRAIN: Duration = Duration::from_secs(1);

/// Answers `/metrics` (OpenMetrics text), `/healthz` (200 while the process lives) and
/// `/readyz` (200, or 503 and the reason) until it is shut down or dropped.
#[derive(Debug)]
pub struct AdminServer {
    addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl AdminServer {
    /// Listens on `addr` (port 0 lets the system choose).
    ///
    /// # Errors
    /// [`ProcessError::Listen`] when the address cannot be had.
    pub async fn start(
        addr: SocketAddr,
        registry: Arc<Mutex<Registry>>,
        ready: Readiness,
    ) -> Result<Self, ProcessError> {
        let failed = |source| ProcessError::Listen {
            addr: addr.to_string(),
            source,
        };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = TaskTracker::new().spawn(async move {
            let serve = axum::serve(listener, router(registry, ready));
            if let Err(error) = serve.with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "admin endpoint failed");
            }
        });
        Ok(Self { addr, stop, task })
    }

    /// The address that is listened on, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening and waits for requests under way, at most a second.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(DRAIN, &mut self.task).await;
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

/// Whether the process can do its work, and why not. Clones share the answer.
#[derive(Debug, Clone)]
pub struct Readiness {
    obstacle: Arc<RwLock<Option<String>>>,
}

impl Readiness {
    /// Not ready because of `reason`.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            obstacle: Arc::new(RwLock::new(Some(reason.into()))),
        }
    }

    /// Ready from now on.
    pub fn set_ready(&self) {
        *self.obstacle.write() = None;
    }

    /// Not ready from now on because of `reason`.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        *self.obstacle.write() = Some(reason.into());
    }

    /// What keeps the process from its work; none when it is ready.
    pub fn obstacle(&self) -> Option<String> {
        self.obstacle.read().clone()
    }
}

fn router(registry: Arc<Mutex<Registry>>, ready: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics).with_state(registry))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz).with_state(ready))
}

#[allow(clippy::unused_async, reason = "axum handlers are async")]
async fn metrics(State(registry): State<Arc<Mutex<Registry>>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &registry.lock()) {
        Ok(()) => Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

#[allow(clippy::unused_async, reason = "axum handlers are async")]
async fn readyz(State(ready): State<Readiness>) -> (StatusCode, String) {
    match ready.obstacle() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;
    use crate::metrics::shared_registry;

    async fn ask(addr: SocketAddr, path: &str) -> (u16, String) {
        crate::init_crypto();
        let reply = reqwest::get(format!("http://{addr}{path}")).await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    #[tokio::test]
    async fn the_endpoint_answers_metrics_health_and_readiness() {
        let registry = shared_registry();
        let reads = Counter::<u64>::default();
        registry
            .lock()
            .register("millpond_test_reads", "Reads", reads.clone());
        reads.inc_by(7);
        let ready = Readiness::new("joining");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = AdminServer::start(any, registry, ready.clone())
            .await
            .unwrap();
        let addr = server.addr();

        let (status, text) = ask(addr, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("millpond_test_reads_total 7"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert_eq!(ask(addr, "/healthz").await.0, 200);
        assert_eq!(ask(addr, "/readyz").await, (503, "joining\n".to_owned()));
        ready.set_ready();
        assert_eq!(ask(addr, "/readyz").await.0, 200);
        ready.set_not_ready("leaving");
        assert_eq!(ask(addr, "/readyz").await, (503, "leaving\n".to_owned()));

        server.shutdown().await;
        assert!(
            reqwest::get(format!("http://{addr}/healthz"))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_a_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = taken.local_addr().unwrap();
        let error = AdminServer::start(addr, shared_registry(), Readiness::new("x")).await;
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains(&addr.to_string()) && message.contains("--admin"),
            "{message}"
        );
    }
}
