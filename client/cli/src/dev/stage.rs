//! What `millpond dev` puts up, and takes down again on every way out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use millpond_client::{ClientConfig, FileSystem};
use millpond_fuse::{MountError, MountOptions, MountedFs};
use millpond_net::control::ControlClient;
use millpond_process::shared_registry;
use millpond_proto::{ErrorKind, MountPath};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use super::args::{MountPlan, Plan};
use super::cluster::{Cluster, ClusterPlan};

/// Where the dataset appears in the namespace.
pub(crate) const NAMESPACE_DIR: &str = "/data";

/// How long the client may take to see the whole cluster.
const SEE: Duration = Duration::from_secs(20);

/// The parts that are up. Whatever is dropped without [`Stage::tear_down`] still ends: the
/// mount, the processes and the temporary directory by their own drops.
#[derive(Debug)]
pub(crate) struct Stage {
    // In the order in which they have to go.
    mount: Option<MountedFs>,
    fs: Option<FileSystem>,
    cluster: Option<Cluster>,
    root: TempDir,
}

impl Stage {
    /// An empty stage in a new temporary directory.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("millpond-dev-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        Ok(Self {
            mount: None,
            fs: None,
            cluster: None,
            root,
        })
    }

    /// The directory that holds everything.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The cluster.
    pub(crate) fn cluster(&mut self) -> anyhow::Result<&mut Cluster> {
        self.cluster.as_mut().context("the cluster is not up")
    }

    /// Starts the cluster.
    pub(crate) async fn start_cluster(&mut self, plan: &ClusterPlan) -> anyhow::Result<()> {
        self.cluster = Some(Cluster::start(self.root.path(), plan).await?);
        Ok(())
    }

    /// Binds the store at `uri` to the namespace and connects a client that sees all of it.
    pub(crate) async fn connect(
        &mut self,
        plan: &Plan,
        uri: &str,
        options: BTreeMap<String, String>,
    ) -> anyhow::Result<FileSystem> {
        let coordinators = vec![self.cluster()?.coordinator()?.to_owned()];
        let path = MountPath::parse(NAMESPACE_DIR)?;
        ControlClient::new(coordinators.clone())?
            .add_mount(&path, uri, options)
            .await?;
        let config = ClientConfig {
            coordinators,
            state_dir: self.root().join("client"),
            memory: plan.client_memory.bytes(),
            ..ClientConfig::default()
        };
        let fs = FileSystem::connect(config, &shared_registry()).await?;
        self.fs = Some(fs.clone());
        wait_for_view(&fs, plan.nodes, &path).await?;
        Ok(fs)
    }

    /// Mounts the client's file system. `Ok(Err(why))` if nothing can be mounted here.
    ///
    /// # Errors
    /// When the mount point that the user named cannot be used.
    pub(crate) async fn mount(
        &mut self,
        plan: &MountPlan,
    ) -> anyhow::Result<Result<PathBuf, String>> {
        let dir = match plan {
            MountPlan::Not => return Ok(Err("--no-mount was given".to_owned())),
            MountPlan::At(dir) => dir.clone(),
            MountPlan::Temporary => self.root().join("mnt"),
        };
        if matches!(plan, MountPlan::Temporary) {
            std::fs::create_dir(&dir).context("cannot make the mount point")?;
        }
        let fs = self.fs.clone().context("the client is not connected")?;
        let options = MountOptions {
            fs_name: "dev".to_owned(),
            ..MountOptions::default()
        };
        let runtime = Handle::current();
        let mounting =
            tokio::task::spawn_blocking(move || MountedFs::mount(fs, runtime, &dir, &options));
        let mounted = match mounting.await? {
            Ok(mounted) => mounted,
            Err(error) => return impossible(error),
        };
        let dir = mounted.dir().to_owned();
        self.mount = Some(mounted);
        match answers(&dir).await {
            Ok(()) => Ok(Ok(dir)),
            Err(why) => {
                if let Some(mount) = self.mount.take() {
                    mount.unmount().await?;
                }
                Ok(Err(why))
            }
        }
    }

    /// Takes everything down. With `keep` the directory stays; returns where it is.
    pub(crate) async fn tear_down(mut self, keep: bool) -> Option<PathBuf> {
        if let Some(mount) = self.mount.take()
            && let Err(error) = mount.unmount().await
        {
            tracing::warn!(%error, "cannot unmount");
        }
        if let Some(fs) = self.fs.take() {
            fs.shutdown().await;
        }
        if let Some(cluster) = self.cluster.take() {
            cluster.stop().await;
        }
        let path = self.root.keep();
        if keep {
            return Some(path);
        }
        if let Err(error) = remove(&path).await {
            tracing::warn!(%error, path = %path.display(), "cannot remove the temporary directory");
        }
        None
    }
}

/// Removes a directory in which a thread may still be writing the dataset: it ends with the
/// file that it is at.
async fn remove(path: &Path) -> std::io::Result<()> {
    let mut removed = std::fs::remove_dir_all(path);
    for _ in 0..50 {
        if removed.is_ok() {
            break;
        }
        sleep(Duration::from_millis(100)).await;
        removed = std::fs::remove_dir_all(path);
    }
    removed
}

/// A mount that this machine does not allow is no failure; a wrong mount point is.
fn impossible(error: MountError) -> anyhow::Result<Result<PathBuf, String>> {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Busy => Err(error.into()),
        _ => Ok(Err(millpond_process::run::chain(&error.into()))),
    }
}

/// Whether the kernel really lets files of the mount be seen, which some sandboxes do not.
async fn answers(dir: &Path) -> Result<(), String> {
    let inside = dir.join(NAMESPACE_DIR.trim_start_matches('/'));
    match timeout(SEE, tokio::fs::metadata(&inside)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("the mount was made but does not answer: {error}")),
        Err(_) => Err(format!(
            "the mount was made but did not answer within {SEE:?}"
        )),
    }
}

async fn wait_for_view(fs: &FileSystem, nodes: usize, path: &MountPath) -> anyhow::Result<()> {
    let deadline = Instant::now() + SEE;
    loop {
        let view = fs.view();
        let serving = view.serving().count();
        if serving == nodes && view.mounts.at(path).is_some() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the client sees {serving} of {nodes} nodes after {SEE:?}");
        }
        sleep(Duration::from_millis(20)).await;
    }
}
