//! The listening socket and its connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::service::S3Service;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::Shared;

/// How often open connections look whether they are to be broken.
const REFUSAL_POLL: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    pub(crate) async fn start(service: S3Service, shared: Arc<Shared>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let accepting = accept(listener, service, shared, tasks.clone(), stop.clone());
        tasks.spawn(accepting);
        Ok(Self { addr, tasks, stop })
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    service: S3Service,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "s3 fixture cannot accept a connection");
                    tokio::time::sleep(REFUSAL_POLL).await;
                    continue;
                }
            },
        };
        if shared.faults.refuses_connections() {
            continue;
        }
        tasks.spawn(serve(
            stream,
            service.clone(),
            Arc::clone(&shared),
            stop.clone(),
        ));
    }
}

async fn serve(
    stream: TcpStream,
    service: S3Service,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    // Without it, small replies wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let refused = async {
        while !shared.faults.refuses_connections() {
            tokio::time::sleep(REFUSAL_POLL).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = refused => {}
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "s3 fixture connection ended");
            }
        }
    }
}
