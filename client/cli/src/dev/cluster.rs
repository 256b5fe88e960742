//! A coordinator and cache nodes as processes of this machine.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::{join_all, try_join_all};
use millpond_process::config::ENV_PREFIX;
use millpond_process::{Size, ready};
use millpond_proto::{BlockSize, NodeId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process may take until it is ready.
const START: Duration = Duration::from_secs(60);

/// How long a process may take to end in good order.
const STOP: Duration = Duration::from_secs(10);

/// How a cluster is to be.
#[derive(Debug, Clone)]
pub(crate) struct ClusterPlan {
    pub(crate) nodes: usize,
    pub(crate) block_size: BlockSize,
    /// Memory tier of each node.
    pub(crate) memory: Size,
    /// Disk tier of each node.
    pub(crate) disk: Size,
}

/// A running cluster. Its processes end with this value, and with this process.
#[derive(Debug)]
pub(crate) struct Cluster {
    coordinator: Process,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    id: NodeId,
    process: Process,
}

impl Cluster {
    /// Starts the processes with their data and logs below `root`, and waits until all of
    /// them are ready.
    ///
    /// # Errors
    /// When one of them ends or does not become ready; with the last lines of its log.
    pub(crate) async fn start(root: &Path, plan: &ClusterPlan) -> anyhow::Result<Self> {
        let loopback = "127.0.0.1:0";
        let dir = |name: &str| root.join(name).display().to_string();
        let block_size = Size(plan.block_size.bytes()).to_string();
        let data_dir = dir("coordinator");
        let args = [
            "dev-coordinator",
            "--data-dir",
            &data_dir,
            "--listen",
            loopback,
            "--admin",
            loopback,
            "--block-size",
            &block_size,
            "--heartbeat-interval",
            "500ms",
            "--death-timeout",
            "3s",
        ];
        let coordinator = Process::start("coordinator", root, &args).await?;
        let join = coordinator.field("listen")?.to_owned();
        let (memory, disk) = (plan.memory.to_string(), plan.disk.to_string());
        let nodes = (1..=plan.nodes).map(async |number| {
            let name = format!("node-{number}");
            let data_dir = dir(&name);
            let args = [
                "dev-node",
                "--join",
                &join,
                "--data-dir",
                &data_dir,
                "--listen",
                loopback,
                "--admin",
                loopback,
                "--memory",
                &memory,
                "--disk-capacity",
                &disk,
            ];
            let process = Process::start(&name, root, &args).await?;
            let id = process.field("node")?.parse()?;
            anyhow::Ok(Node { id, process })
        });
        let nodes = try_join_all(nodes).await?;
        Ok(Self { coordinator, nodes })
    }

    /// `host:port` of the coordinator.
    pub(crate) fn coordinator(&self) -> anyhow::Result<&str> {
        self.coordinator.field("listen")
    }

    /// The nodes that were started, dead ones included.
    pub(crate) fn node_ids(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().map(|node| node.id)
    }

    /// The processes' names and the addresses of their metrics.
    pub(crate) fn admins(&self) -> Vec<(String, String)> {
        let nodes = self.nodes.iter().map(|node| &node.process);
        std::iter::once(&self.coordinator)
            .chain(nodes)
            .filter(|process| process.is_alive())
            .filter_map(|process| {
                Some((
                    process.name.clone(),
                    process.field("admin").ok()?.to_owned(),
                ))
            })
            .collect()
    }

    /// Kills the node with SIGKILL: it has no chance to tell anyone.
    pub(crate) async fn kill(&mut self, id: NodeId) -> anyhow::Result<()> {
        match self.nodes.iter_mut().find(|node| node.id == id) {
            Some(node) => Ok(node.process.child.kill().await?),
            None => bail!("{id} was not started here"),
        }
    }

    /// Ends all processes in good order: first the nodes, then the coordinator they leave.
    pub(crate) async fn stop(self) {
        join_all(self.nodes.into_iter().map(|node| node.process.stop())).await;
        self.coordinator.stop().await;
    }
}

/// A process that was started from this executable.
#[derive(Debug)]
struct Process {
    name: String,
    child: Child,
    ready: String,
    /// Kept so that the process never writes into a closed pipe.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Must be called on the main thread's task: the kernel ends the process with the thread
    /// that started it.
    async fn start(name: &str, root: &Path, args: &[&str]) -> anyhow::Result<Self> {
        let log = root.join(format!("{name}.log"));
        let cannot = || format!("cannot start {name}");
        let mut child = Self::command(args, &log)
            .and_then(|mut command| Ok(command.spawn()?))
            .with_context(cannot)?;
        let stdout = child.stdout.take().with_context(cannot)?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = match timeout(START, lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(_) => {
                let ended = timeout(STOP, child.wait()).await;
                let how = match ended {
                    Ok(Ok(status)) => format!("it ended with {status}"),
                    _ => "it closed its output".to_owned(),
                };
                bail!("{name} did not start: {how}\n{}", tail(&log));
            }
            Err(_) => bail!("{name} was not ready within {START:?}\n{}", tail(&log)),
        };
        Ok(Self {
            name: name.to_owned(),
            child,
            ready,
            _stdout: lines,
        })
    }

    fn command(args: &[&str], log: &Path) -> anyhow::Result<Command> {
        let exe = std::env::current_exe().context("cannot find this executable")?;
        let mut command = Command::new(exe);
        command
            .args(args)
            .args(["--parent", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            // Ctrl-C at the terminal is for us; we end the processes in order.
            .process_group(0)
            .kill_on_drop(true);
        for name in settings_of_ours() {
            command.env_remove(name);
        }
        Ok(command)
    }

    fn field(&self, key: &str) -> anyhow::Result<&str> {
        let missing = || format!("{} did not say its {key}: {:?}", self.name, self.ready);
        ready::field(&self.ready, key).with_context(missing)
    }

    fn is_alive(&self) -> bool {
        self.child.id().is_some()
    }

    async fn stop(mut self) {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else {
            return;
        };
        // An error means that it is gone already.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        if timeout(STOP, self.child.wait()).await.is_err() {
            tracing::warn!(process = self.name, "did not end in time, killing it");
            let _ = self.child.kill().await;
        }
    }
}

/// Settings meant for other processes, which a child of ours must not inherit; the log level
/// is for all of them.
fn settings_of_ours() -> impl Iterator<Item = OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with(ENV_PREFIX) && name != "MILLPOND_LOG"
    })
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Where the processes' logs are.
pub(crate) fn logs(root: &Path) -> PathBuf {
    root.join("*.log")
}
