//! The clusters that scenarios measure: in this process or as processes of their own, and
//! mounts of them. Everything ends when a [`Cluster`] is dropped.
//!
//! | module | holds |
//! |---|---|
//! | `in_process` | coordinator and nodes as tasks |
//! | `ufs_use` | [`UfsUse`]: what was asked of the UFS |

mod in_process;
#[cfg(test)]
mod tests;
mod ufs_use;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use millpond_client::{ClientConfig, FileSystem};
use millpond_net::control::ControlClient;
use millpond_process::{SharedRegistry, shared_registry};
use millpond_proto::MountPath;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::process_cluster::{Binaries, Metrics, Mount, Process, ProcessCluster};
use crate::scenario::Context;

use in_process::InProcess;

pub use crate::process_cluster::ClusterSpec;
pub use ufs_use::UfsUse;

/// Where coordinator and nodes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As tasks of this process: quick to start; their CPU time and memory are this
    /// process's. `--processes` overrides it.
    InProcess,
    /// Each as a process of its own, of this very program.
    Processes,
}

/// A running cluster, for scenarios, which run on a thread that may block.
#[derive(Debug)]
pub struct Cluster {
    // Order matters: clients end before the nodes that they read from.
    clients: Mutex<Vec<Client>>,
    backend: Backend,
    coordinator: String,
    log_level: String,
    dir: PathBuf,
    names: AtomicUsize,
    runtime: Handle,
}

#[derive(Debug)]
enum Backend {
    InProcess(InProcess),
    Processes(ProcessCluster),
}

#[derive(Debug)]
struct Client {
    filesystem: FileSystem,
    registry: SharedRegistry,
}

impl Cluster {
    /// Starts a coordinator and nodes; every node has joined when this returns.
    ///
    /// # Errors
    /// When one of them does not come up, with the end of its log if it has one.
    pub fn start(context: &Context, spec: ClusterSpec, kind: Kind) -> Result<Self> {
        context.step(format!("starting a cluster of {} nodes", spec.nodes));
        millpond_process::init_crypto();
        let log_level = spec.log_level.clone();
        let (backend, coordinator, dir) = if kind == Kind::Processes || context.processes {
            let cluster = ProcessCluster::start_with(spec, Binaries::here()?, context.dir())?;
            let coordinator = cluster.coordinator_addr().to_owned();
            let dir = cluster.dir().to_owned();
            (Backend::Processes(cluster), coordinator, dir)
        } else {
            let cluster = InProcess::start(spec, context.dir(), &context.runtime)?;
            let coordinator = cluster.coordinator_addr();
            let dir = cluster.dir().to_owned();
            (Backend::InProcess(cluster), coordinator, dir)
        };
        Ok(Self {
            clients: Mutex::default(),
            backend,
            coordinator,
            log_level,
            dir,
            names: AtomicUsize::new(0),
            runtime: context.runtime.clone(),
        })
    }

    /// `HOST:PORT` of the coordinator.
    pub fn coordinator(&self) -> &str {
        &self.coordinator
    }

    /// A directory that lives as long as the cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Binds a UFS to a path.
    ///
    /// # Errors
    /// What the coordinator says against it.
    pub fn add_ufs(&self, path: &str, uri: &str, options: &BTreeMap<String, String>) -> Result<()> {
        let path = MountPath::parse(path)?;
        let adding = async {
            // It needs a runtime from its beginning.
            let control = ControlClient::new(vec![self.coordinator.clone()])?;
            control.add_mount(&path, uri, options.clone()).await
        };
        let added = self.runtime.block_on(adding);
        added.with_context(|| format!("cannot mount {uri} at {path}"))?;
        Ok(())
    }

    /// Takes a UFS away from its path.
    ///
    /// # Errors
    /// When nothing is mounted there.
    pub fn remove_ufs(&self, path: &str) -> Result<()> {
        let path = MountPath::parse(path)?;
        let removing = async {
            let control = ControlClient::new(vec![self.coordinator.clone()])?;
            control.remove_mount(&path).await
        };
        let removed = self.runtime.block_on(removing);
        removed.with_context(|| format!("cannot unmount {path}"))?;
        Ok(())
    }

    /// Starts one more node; its index.
    ///
    /// # Errors
    /// When it does not join.
    pub fn add_node(&mut self) -> Result<usize> {
        match &mut self.backend {
            Backend::InProcess(cluster) => cluster.add_node(),
            Backend::Processes(cluster) => cluster.add_node(),
        }
    }

    /// Starts one more node as a process, which finds the coordinator at `coordinator`, with
    /// more flags of `cache-node`; its index.
    ///
    /// # Errors
    /// When it does not join, or the cluster is one of [`Kind::InProcess`].
    pub fn add_node_with(&mut self, coordinator: &str, flags: &[&str]) -> Result<usize> {
        match &mut self.backend {
            Backend::Processes(cluster) => cluster.add_node_with(coordinator, flags),
            Backend::InProcess(_) => bail!("nodes of this cluster take no flags"),
        }
    }

    /// A client in this process, with metrics of its own. `config` needs neither coordinators
    /// nor, unless it is to be found again, a state directory. The caller may shut it down;
    /// the end of the cluster does too.
    ///
    /// # Errors
    /// When it cannot join.
    pub fn client(&self, config: ClientConfig) -> Result<FileSystem> {
        let mut config = ClientConfig {
            coordinators: vec![self.coordinator.clone()],
            ..config
        };
        if config.state_dir.as_os_str().is_empty() {
            config.state_dir = self.dir.join(self.name("client"));
        }
        let registry = shared_registry();
        let connecting = FileSystem::connect(config, &registry);
        let filesystem = self.runtime.block_on(connecting)?;
        self.clients.lock().push(Client {
            filesystem: filesystem.clone(),
            registry,
        });
        Ok(filesystem)
    }

    /// Mounts the namespace by a process of its own, with more flags of `millpond mount`.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub fn mount(&self, flags: &[&str]) -> Result<Mount> {
        let log = ["--log-level", self.log_level.as_str()];
        Mount::of_cluster(
            &Binaries::here()?,
            &self.coordinator,
            &self.dir,
            &self.name("mount"),
            &[&log, flags].concat(),
        )
    }

    /// Node `index`, in order of start, as the process that it is.
    ///
    /// # Panics
    /// In a cluster of [`Kind::InProcess`], or without such a node.
    #[allow(
        clippy::panic,
        reason = "the scenario asked for the wrong kind of cluster"
    )]
    pub fn node(&mut self, index: usize) -> &mut Process {
        match &mut self.backend {
            Backend::Processes(cluster) => cluster.node(index),
            Backend::InProcess(_) => panic!("nodes of this cluster are no processes"),
        }
    }

    /// How many nodes were started.
    pub fn nodes(&self) -> usize {
        self.node_admins().len()
    }

    /// The metrics of node `index` at this moment.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn node_metrics(&self, index: usize) -> Result<Metrics> {
        let admins = self.node_admins();
        Metrics::scrape(admins.get(index).context("there is no such node")?)
    }

    /// The processes of coordinator and nodes; none in a cluster of [`Kind::InProcess`],
    /// whose CPU time is this process's.
    pub fn pids(&self) -> Vec<u32> {
        match &self.backend {
            Backend::InProcess(_) => Vec::new(),
            Backend::Processes(cluster) => cluster.pids(),
        }
    }

    /// What was asked of the UFS so far by all nodes that run, by all library clients and by
    /// these mounts.
    ///
    /// # Errors
    /// When one that runs does not answer.
    pub fn ufs_use(&self, mounts: &[&Mount]) -> Result<UfsUse> {
        let mut sum = UfsUse::of_mounts(mounts)?;
        for admin in self.node_admins() {
            sum += UfsUse::scraped(&admin)?;
        }
        for client in &*self.clients.lock() {
            sum += UfsUse::of(&Metrics::of_registry(&client.registry)?);
        }
        Ok(sum)
    }

    fn node_admins(&self) -> Vec<String> {
        match &self.backend {
            Backend::InProcess(cluster) => cluster.node_admins(),
            Backend::Processes(cluster) => cluster.node_admins(),
        }
    }

    fn name(&self, kind: &str) -> String {
        format!("{kind}-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let clients = std::mem::take(self.clients.get_mut());
        in_process::block_on(&self.runtime, async {
            let ends = clients.iter().map(|client| client.filesystem.shutdown());
            futures::future::join_all(ends).await;
        });
    }
}

/// Mounts one UFS without a cluster, by a process of its own, in a new directory of the
/// context, with more flags of `millpond mount`.
///
/// # Errors
/// When it does not come up, with the end of its log.
pub fn standalone_mount(context: &Context, uri: &str, flags: &[&str]) -> Result<Mount> {
    let parent = tempfile::Builder::new()
        .prefix("mount-")
        .tempdir_in(context.dir())?
        .keep();
    let log = parent.join("log");
    Mount::standalone(&Binaries::here()?, uri, &parent.join("mnt"), &log, flags)
}
