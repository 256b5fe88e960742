//! Coordinator and nodes as tasks of this process, on ports and directories of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use millpond_cache_node::NodeConfig;
use millpond_cache_node::node::{self, Ready};
use millpond_coordinator::{Config, Coordinator, FirstStart};
use millpond_process::Size;
use millpond_proto::BlockSize;
use millpond_proto::ring::NORMAL_WEIGHT;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ClusterSpec;
use crate::process_cluster::STOPS_WITHIN;

/// How long a node may take to join.
const JOINS_WITHIN: Duration = Duration::from_secs(60);

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A running cluster of tasks.
#[derive(Debug)]
pub(super) struct InProcess {
    nodes: Vec<Node>,
    /// None while it is torn down.
    coordinator: Option<Coordinator>,
    tasks: TaskTracker,
    spec: ClusterSpec,
    runtime: Handle,
    dir: TempDir,
}

#[derive(Debug)]
struct Node {
    ready: Ready,
    stop: CancellationToken,
}

impl InProcess {
    pub(super) fn start(spec: ClusterSpec, parent: &Path, runtime: &Handle) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("millpond-cluster-")
            .tempdir_in(parent)?;
        let config = Config {
            data_dir: dir.path().join("coordinator"),
            listen: ANY_PORT,
            admin: Some(ANY_PORT),
            block_size: Some(BlockSize::new(size(&spec.block_size)?.bytes())?),
            open_join: false,
            advertise: None,
            first_start: FirstStart::Alone,
            secret_file: None,
            heartbeat_interval: humantime::parse_duration(&spec.heartbeat)?,
            death_timeout: humantime::parse_duration(&spec.death_timeout)?,
        };
        let coordinator = runtime.block_on(Coordinator::start(config))?;
        let mut cluster = Self {
            nodes: Vec::new(),
            coordinator: Some(coordinator),
            tasks: TaskTracker::new(),
            spec,
            runtime: runtime.clone(),
            dir,
        };
        for _ in 0..cluster.spec.nodes {
            cluster.add_node()?;
        }
        Ok(cluster)
    }

    pub(super) fn coordinator_addr(&self) -> String {
        let addr = self.coordinator.as_ref().map(Coordinator::addr);
        addr.unwrap_or(ANY_PORT).to_string()
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn node_admins(&self) -> Vec<String> {
        let admin = |node: &Node| node.ready.admin.unwrap_or(ANY_PORT).to_string();
        self.nodes.iter().map(admin).collect()
    }

    pub(super) fn add_node(&mut self) -> Result<usize> {
        let index = self.nodes.len();
        let config = self.node_config(index)?;
        let stop = CancellationToken::new();
        let (tell, told) = oneshot::channel();
        let on_ready = move |ready| {
            // Nobody waits any more for one that was too late.
            let _ = tell.send(ready);
        };
        let running = node::run(config, stop.clone(), on_ready);
        let task = self.tasks.spawn_on(Box::pin(running), &self.runtime);
        let joined = self.runtime.block_on(joined(told, task));
        match joined {
            Ok(ready) => {
                self.nodes.push(Node { ready, stop });
                Ok(index)
            }
            Err(error) => {
                stop.cancel();
                Err(error.context(format!("node {index} did not start")))
            }
        }
    }

    fn node_config(&self, index: usize) -> Result<NodeConfig> {
        let data_dir = self.dir.path().join(format!("node-{index}"));
        let disk = size(&self.spec.node_disk)?;
        Ok(NodeConfig {
            coordinators: vec![self.coordinator_addr()],
            token_file: None,
            disks: (disk.bytes() > 0)
                .then(|| data_dir.join("blocks"))
                .into_iter()
                .collect(),
            disk_capacity: Some(disk),
            data_dir,
            listen: ANY_PORT,
            advertise: None,
            admin: Some(ANY_PORT),
            memory: size(&self.spec.node_memory)?,
            // Figures are those of what is asked for.
            scrub_rate: Size(0),
            zone: String::new(),
            weight: NORMAL_WEIGHT,
            local_users: self.spec.one_host.then(Vec::new),
        })
    }
}

/// Waits for a node to be ready, or to end before that.
async fn joined(told: oneshot::Receiver<Ready>, task: JoinHandle<Result<()>>) -> Result<Ready> {
    let ready = tokio::time::timeout(JOINS_WITHIN, told);
    match ready.await.context("it did not join in time")? {
        Ok(ready) => Ok(ready),
        // What would have told was dropped with the node.
        Err(_) => {
            task.await.context("it panicked")??;
            anyhow::bail!("it ended before it was ready")
        }
    }
}

fn size(text: &str) -> Result<Size> {
    text.parse().with_context(|| format!("{text:?} is no size"))
}

impl Drop for InProcess {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.stop.cancel();
        }
        self.tasks.close();
        let coordinator = self.coordinator.take();
        let tasks = self.tasks.clone();
        block_on(&self.runtime, async move {
            if tokio::time::timeout(STOPS_WITHIN, tasks.wait())
                .await
                .is_err()
            {
                tracing::warn!("a node does not end; it is left behind");
            }
            if let Some(coordinator) = coordinator {
                coordinator.shutdown().await;
            }
        });
    }
}

/// Runs a future to its end from a destructor, which may run on any thread, also on one that
/// must not block on the runtime itself.
pub(super) fn block_on(runtime: &Handle, future: impl Future<Output = ()> + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| runtime.block_on(future));
    });
}
