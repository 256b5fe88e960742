//! One port for everybody. A connection that begins with a TLS handshake names whom it dials: the
//! coordinator as one of its group, which only another one of it may, or the coordinator of the
//! cluster, which nodes and clients do. Any other connection is in the clear.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use millpond_net::tls::{PeerRole, shown_role};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use super::peers::Peers;

/// The first byte of a TLS handshake record (RFC 8446, 5.1); HTTP/2 begins with another.
const TLS_HANDSHAKE: u8 = 0x16;

/// How long a connection may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most connections that have not said what they are.
const MAX_UNKNOWN: usize = 1024;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Where.
    pub addr: SocketAddr,
    /// Whether the connection is TLS.
    pub is_private: bool,
    /// What it has proved to be, with a certificate.
    pub role: Option<PeerRole>,
}

impl Caller {
    /// Whether it has proved to be a coordinator of this group.
    pub fn is_coordinator(&self) -> bool {
        self.role == Some(PeerRole::GroupMember)
    }
}

/// Connections that have said what they are.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<Connection>,
}

impl Incoming {
    /// Accepts connections of `listener` until `stop`.
    pub fn new(
        listener: TcpListener,
        peers: &Arc<Peers>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (sender, ready) = mpsc::channel(1);
        let accept = Accept {
            listener,
            peers: Arc::clone(peers),
            sender,
            unknown: Arc::new(Semaphore::new(MAX_UNKNOWN)),
            tasks: tasks.clone(),
        };
        tasks.spawn(async move {
            tokio::select! {
                () = accept.run() => {}
                () = stop.cancelled() => {}
            }
        });
        Self { ready }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|next| next.map(Ok))
    }
}

struct Accept {
    listener: TcpListener,
    peers: Arc<Peers>,
    sender: mpsc::Sender<Connection>,
    unknown: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Accept {
    async fn run(self) {
        loop {
            let (stream, addr) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                // Out of descriptors, say: those who have one go on.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(seat) = Arc::clone(&self.unknown).acquire_owned().await else {
                return;
            };
            let (peers, sender) = (Arc::clone(&self.peers), self.sender.clone());
            self.tasks.spawn(async move {
                let told = tokio::time::timeout(PATIENCE, tell(stream, addr, &peers)).await;
                drop(seat);
                match told {
                    // A server that is stopping takes none any more.
                    Ok(Ok(connection)) => drop(sender.send(connection).await),
                    Ok(Err(error)) => tracing::debug!(%addr, %error, "connection refused"),
                    Err(_) => tracing::debug!(%addr, "connection refused: it says nothing"),
                }
            });
        }
    }
}

async fn tell(stream: TcpStream, addr: SocketAddr, peers: &Peers) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first != [TLS_HANDSHAKE] {
        let caller = Caller {
            addr,
            is_private: false,
            role: None,
        };
        return Ok(Connection {
            caller,
            stream: Carrier::Plain(stream),
        });
    }
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let name = hello.client_hello().server_name().map(str::to_owned);
    let config = peers
        .tls_for(name.as_deref())
        .ok_or_else(|| io::Error::other("the cluster has no certificate authority yet"))?;
    let is_group = Arc::ptr_eq(&config, peers.group_tls());
    let stream = hello.into_stream(config).await?;
    let role = match stream.get_ref().1.peer_certificates() {
        None => None,
        chain => Some(shown_role(chain).map_err(io::Error::other)?),
    };
    // Each authority speaks for its own: the cluster's makes nobody a member of the group.
    if is_group != (role == Some(PeerRole::GroupMember)) {
        return Err(io::Error::other("the certificate is for another door"));
    }
    let caller = Caller {
        addr,
        is_private: true,
        role,
    };
    Ok(Connection {
        caller,
        stream: Carrier::Tls(Box::new(stream)),
    })
}

/// A connection and who is at its other end.
#[derive(Debug)]
pub struct Connection {
    caller: Caller,
    stream: Carrier,
}

#[derive(Debug)]
enum Carrier {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Carrier::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Carrier::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Carrier::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Carrier::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Carrier::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Carrier::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
