//! A network that can be cut and slowed down, without root: every node is reached through a
//! UDP address of this process, which it advertises, and reaches its coordinator through a
//! TCP address of this process.
//!
//! Between two nodes a datagram passes the proxy of the one that is called; the caller is
//! known by its source address, which is the one that it listens at, so the weather of both
//! counts. Whoever runs on this machine and asks for a node's own port passes by, which no
//! process of a cluster does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::weather::{Way, Weather};
use super::{tcp, udp};

/// The networks of some processes. Its drop ends all proxies.
#[derive(Debug)]
pub struct Network {
    coordinator: SocketAddr,
    links: Links,
    tasks: TaskTracker,
    stop: CancellationToken,
    runtime: Handle,
}

type Links = Arc<Mutex<Vec<Arc<Link>>>>;

/// The network of one node.
#[derive(Debug)]
struct Link {
    /// What the node advertises.
    blocks: SocketAddr,
    /// What the node takes for its coordinator.
    control: SocketAddr,
    /// Where the node listens, once that is known.
    target: OnceLock<SocketAddr>,
    weather: watch::Sender<Weather>,
}

impl Network {
    /// Around the coordinator at `coordinator`, with proxies that run on `runtime`.
    ///
    /// # Errors
    /// When `coordinator` is not `IP:PORT`.
    pub fn new(runtime: &Handle, coordinator: &str) -> Result<Self> {
        let coordinator = coordinator
            .parse()
            .with_context(|| format!("{coordinator:?} is not IP:PORT"))?;
        Ok(Self {
            coordinator,
            links: Links::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            runtime: runtime.clone(),
        })
    }

    /// The network of one more node; its number.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn add(&mut self) -> Result<usize> {
        let (front, listener) = {
            let _runtime = self.runtime.enter();
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = std::net::TcpListener::bind(any)?;
            listener.set_nonblocking(true)?;
            (udp::bind()?, TcpListener::from_std(listener)?)
        };
        let link = Arc::new(Link {
            blocks: front.local_addr()?,
            control: listener.local_addr()?,
            target: OnceLock::new(),
            weather: watch::Sender::new(Weather::default()),
        });
        let index = {
            let mut links = self.links.lock();
            links.push(Arc::clone(&link));
            links.len() - 1
        };
        let way = Way::through(vec![link.weather.subscribe()]);
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        let control = tcp::run(listener, self.coordinator, way, tasks, stop);
        self.tasks.spawn_on(control, &self.runtime);
        let links = Arc::clone(&self.links);
        let proxy = udp::UdpProxy {
            front: Arc::new(front),
            route: move |sender| link.route(sender, &links.lock()),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        self.tasks.spawn_on(proxy.run(), &self.runtime);
        Ok(index)
    }

    /// What node `index` is to advertise.
    pub fn blocks(&self, index: usize) -> SocketAddr {
        self.link(index).blocks
    }

    /// Where node `index` is to look for its coordinator.
    pub fn control(&self, index: usize) -> SocketAddr {
        self.link(index).control
    }

    /// Node `index` listens at `target`, for good.
    pub fn connect(&self, index: usize, target: SocketAddr) {
        // A second call is a restart at the same address.
        let _ = self.link(index).target.set(target);
    }

    fn set(&self, index: usize, weather: Weather) {
        self.link(index).weather.send_replace(weather);
    }

    /// Nothing reaches node `index` or comes from it.
    pub fn cut(&self, index: usize) {
        self.set(
            index,
            Weather {
                cut: true,
                ..Weather::default()
            },
        );
    }

    /// All that node `index` is sent or sends takes so much longer.
    pub fn slow(&self, index: usize, delay: Duration) {
        self.set(index, Weather { cut: false, delay });
    }

    /// Node `index` has its network back.
    pub fn heal(&self, index: usize) {
        self.set(index, Weather::default());
    }

    fn link(&self, index: usize) -> Arc<Link> {
        Arc::clone(&self.links.lock()[index])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Link {
    /// The way of datagrams from `sender` to this node.
    fn route(&self, sender: SocketAddr, all: &[Arc<Self>]) -> Option<(SocketAddr, Way)> {
        let target = *self.target.get()?;
        let callers = all
            .iter()
            .filter(|link| link.target.get() == Some(&sender))
            .map(|link| link.weather.subscribe());
        let networks = std::iter::once(self.weather.subscribe()).chain(callers);
        Some((target, Way::through(networks.collect())))
    }
}

#[cfg(test)]
mod tests;
