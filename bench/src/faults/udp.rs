//! A UDP address that leads to another one, with bad weather on the way.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::weather::Way;

/// The largest datagram.
const LARGEST: usize = 65_536;
/// Kernel socket buffer, each way: what is lost here would be a fault that nobody ordered.
const SOCKET_BUFFER: usize = 4 << 20;
/// The most datagrams that wait for their time, each way of each sender; more are lost.
const WAITING: usize = 8192;
/// The most senders; datagrams of more are lost.
const SENDERS: usize = 1024;

/// How a sender reaches the target: its socket, and what stands between.
#[derive(Debug)]
struct Flow {
    back: Arc<UdpSocket>,
    way: Way,
    late: mpsc::Sender<(Instant, Bytes)>,
}

/// Passes datagrams from `front` to a target and its answers back, until `stop`.
pub(super) struct UdpProxy<R> {
    pub(super) front: Arc<UdpSocket>,
    /// Where a datagram from this sender goes, on which way; none if there is no target yet.
    pub(super) route: R,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// A socket at a free port of the loopback interface.
pub(super) fn bind() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel caps these; less is slower, not wrong.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    UdpSocket::from_std(socket.into())
}

impl<R: Fn(SocketAddr) -> Option<(SocketAddr, Way)> + Send + 'static> UdpProxy<R> {
    pub(super) async fn run(self) {
        let mut flows = HashMap::new();
        let mut buffer = vec![0; LARGEST];
        loop {
            let received = tokio::select! {
                received = self.front.recv_from(&mut buffer) => received,
                () = self.stop.cancelled() => return,
            };
            // An error is about an earlier answer, to a sender that has gone.
            let Ok((len, sender)) = received else {
                continue;
            };
            if !flows.contains_key(&sender) && flows.len() < SENDERS {
                let Some(flow) = self.flow(sender).await else {
                    continue;
                };
                flows.insert(sender, flow);
            }
            if let Some(flow) = flows.get(&sender) {
                flow.pass(&buffer[..len]).await;
            }
        }
    }

    async fn flow(&self, sender: SocketAddr) -> Option<Flow> {
        let (target, way) = (self.route)(sender)?;
        let back = Arc::new(bind().ok()?);
        back.connect(target).await.ok()?;
        let onward = late(&self.tasks, &self.stop, Out::Target(Arc::clone(&back)));
        let front = Out::Sender(Arc::clone(&self.front), sender);
        let homeward = late(&self.tasks, &self.stop, front.clone());
        self.tasks.spawn(answer(
            Arc::clone(&back),
            front,
            way.clone(),
            homeward,
            self.stop.clone(),
        ));
        Some(Flow {
            back,
            way,
            late: onward,
        })
    }
}

impl Flow {
    async fn pass(&self, datagram: &[u8]) {
        let out = Out::Target(Arc::clone(&self.back));
        pass(datagram, &self.way, &self.late, &out).await;
    }
}

/// The way back of one flow.
async fn answer(
    back: Arc<UdpSocket>,
    front: Out,
    way: Way,
    late: mpsc::Sender<(Instant, Bytes)>,
    stop: CancellationToken,
) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let received = tokio::select! {
            received = back.recv(&mut buffer) => received,
            () = stop.cancelled() => return,
        };
        // An error says that nobody listens at the target, which its senders are not told.
        if let Ok(len) = received {
            pass(&buffer[..len], &way, &late, &front).await;
        }
    }
}

async fn pass(datagram: &[u8], way: &Way, late: &mpsc::Sender<(Instant, Bytes)>, out: &Out) {
    let weather = way.now();
    if weather.cut {
        return;
    }
    if weather.delay == Duration::ZERO {
        out.send(datagram).await;
        return;
    }
    // One that finds the queue full is lost, as in a real network.
    let due = Instant::now() + weather.delay;
    let _ = late.try_send((due, Bytes::copy_from_slice(datagram)));
}

/// Where datagrams go out.
#[derive(Debug, Clone)]
enum Out {
    Target(Arc<UdpSocket>),
    Sender(Arc<UdpSocket>, SocketAddr),
}

impl Out {
    async fn send(&self, datagram: &[u8]) {
        // What cannot be sent is lost, as in a real network.
        let _ = match self {
            Self::Target(socket) => socket.send(datagram).await,
            Self::Sender(socket, sender) => socket.send_to(datagram, sender).await,
        };
    }
}

/// Sends each datagram at its time.
fn late(tasks: &TaskTracker, stop: &CancellationToken, out: Out) -> mpsc::Sender<(Instant, Bytes)> {
    let (sender, mut queue) = mpsc::channel::<(Instant, Bytes)>(WAITING);
    let stop = stop.clone();
    tasks.spawn(async move {
        loop {
            let next = tokio::select! {
                next = queue.recv() => next,
                () = stop.cancelled() => None,
            };
            let Some((due, datagram)) = next else { return };
            sleep_until(due).await;
            out.send(&datagram).await;
        }
    });
    sender
}
