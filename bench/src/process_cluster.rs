//! Clusters of real processes: a coordinator, cache nodes and mounts, each its own process on
//! free loopback ports with its own temporary directories.
//!
//! Everything is killed and unmounted when the [`ProcessCluster`] is dropped, also while
//! panicking; then the ends of all logs are printed too.

mod binaries;
mod env;
mod fuse;
mod memory;
mod orphan;
mod process;
mod scrape;
mod wait;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

pub use binaries::{Binaries, can_be_millpond, this_program};
pub use fuse::{fuse_or_skip, is_mounted, unmount_lazily};
pub use memory::{limit_for, peak_rss, rss};
pub use orphan::end_with_parent;
pub use process::Process;
pub use scrape::{Metrics, http_get};
pub use wait::{wait_for, wait_until};

/// The first argument of `millpond-bench` that makes it the `millpond` program.
pub const AS_MILLPOND: &str = "as-millpond";

/// How long a process has to print its ready line, on a loaded machine in a debug build.
const READY: Duration = Duration::from_secs(60);
/// How long a process has to end after SIGTERM.
pub const STOPS_WITHIN: Duration = Duration::from_secs(20);
/// How long a command of the `millpond` program may run.
const COMMAND: Duration = Duration::from_secs(60);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Cache nodes.
    pub nodes: usize,
    /// Block size, as the flag takes it.
    pub block_size: String,
    /// Memory of each node, as the flag takes it.
    pub node_memory: String,
    /// Disk of each node, as the flag takes it; `0` for none.
    pub node_disk: String,
    /// How often nodes report.
    pub heartbeat: String,
    /// After how long without a report a node counts as dead.
    pub death_timeout: String,
    /// The log level of all processes.
    pub log_level: String,
    /// Whether nodes and clients take each other for what they are, processes of one host.
    /// Otherwise they stand for hosts of their own, between which all goes over the network.
    pub one_host: bool,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            nodes: 3,
            block_size: "256KiB".to_owned(),
            node_memory: "128MiB".to_owned(),
            node_disk: "1GiB".to_owned(),
            heartbeat: "200ms".to_owned(),
            death_timeout: "2s".to_owned(),
            log_level: "info".to_owned(),
            one_host: false,
        }
    }
}

impl ClusterSpec {
    const fn local_socket(&self) -> &'static str {
        if self.one_host { "auto" } else { "off" }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct ProcessCluster {
    // Order matters: mounts end before the nodes that they read from, the directory last.
    mounts: Vec<Mount>,
    nodes: Vec<Process>,
    coordinator: Process,
    spec: ClusterSpec,
    binaries: Binaries,
    dir: TempDir,
}

impl ProcessCluster {
    /// Builds the programs if that is needed and starts coordinator and nodes; every node
    /// has joined when this returns.
    ///
    /// # Errors
    /// With the end of the log of the process that did not come up.
    pub fn start(spec: ClusterSpec) -> Result<Self> {
        Self::start_with(spec, Binaries::build()?, &std::env::temp_dir())
    }

    /// The same with programs that are there, and all files in a new directory in `parent`.
    ///
    /// # Errors
    /// With the end of the log of the process that did not come up.
    pub fn start_with(spec: ClusterSpec, binaries: Binaries, parent: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("millpond-cluster-")
            .tempdir_in(parent)?;
        let coordinator = start_coordinator(&binaries, dir.path(), &spec)?;
        let mut cluster = Self {
            mounts: Vec::new(),
            nodes: Vec::new(),
            coordinator,
            spec,
            binaries,
            dir,
        };
        for _ in 0..cluster.spec.nodes {
            cluster.add_node()?;
        }
        Ok(cluster)
    }

    /// The coordinator.
    pub fn coordinator(&mut self) -> &mut Process {
        &mut self.coordinator
    }

    /// `HOST:PORT` of the coordinator, the same after a restart.
    pub fn coordinator_addr(&self) -> &str {
        self.coordinator.ready("listen")
    }

    /// Cache node number `index`, in order of start.
    pub fn node(&mut self, index: usize) -> &mut Process {
        &mut self.nodes[index]
    }

    /// `HOST:PORT` of the metrics of all cache nodes, in order of start.
    pub fn node_admins(&self) -> Vec<String> {
        let admin = |node: &Process| node.ready("admin").to_owned();
        self.nodes.iter().map(admin).collect()
    }

    /// The ids of the processes of the coordinator and, in order of start, of all nodes.
    pub fn pids(&self) -> Vec<u32> {
        let all = [&self.coordinator].into_iter().chain(&self.nodes);
        all.map(Process::pid).collect()
    }

    /// All cache nodes, in order of start.
    pub fn nodes(&mut self) -> &mut [Process] {
        &mut self.nodes
    }

    /// Mount number `index`, in order of start.
    pub fn mount(&mut self, index: usize) -> &mut Mount {
        &mut self.mounts[index]
    }

    /// A directory that lives as long as the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts one more cache node; its index.
    ///
    /// # Errors
    /// When it does not join.
    pub fn add_node(&mut self) -> Result<usize> {
        let coordinator = self.coordinator_addr().to_owned();
        self.add_node_with(&coordinator, &[])
    }

    /// Starts one more cache node that finds the coordinator at `coordinator`, with more
    /// flags; its index.
    ///
    /// # Errors
    /// When it does not join.
    pub fn add_node_with(&mut self, coordinator: &str, flags: &[&str]) -> Result<usize> {
        let index = self.nodes.len();
        let data = self.node_dir(index);
        let mut command = self.binaries.command("cache-node");
        command
            .args(["--join", coordinator])
            .arg("--data-dir")
            .arg(&data)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--memory", &self.spec.node_memory])
            .args(["--disk-capacity", &self.spec.node_disk])
            .args(["--log-level", &self.spec.log_level])
            .args(["--local-socket", self.spec.local_socket()])
            .args(flags);
        let log = self.dir.path().join(format!("node-{index}.log"));
        self.nodes.push(Process::start(
            &format!("node-{index}"),
            command,
            &log,
            READY,
        )?);
        Ok(index)
    }

    /// The data directory of node `index`.
    pub fn node_dir(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("node-{index}"))
    }

    /// Adds a mount to the table.
    ///
    /// # Errors
    /// With what the program said.
    pub fn add_ufs(&self, path: &str, uri: &str, options: &BTreeMap<String, String>) -> Result<()> {
        let mut args = vec![
            "mounts".to_owned(),
            "add".to_owned(),
            path.to_owned(),
            uri.to_owned(),
        ];
        for (key, value) in options {
            args.push("--option".to_owned());
            args.push(format!("{key}={value}"));
        }
        self.coordinated(&args).map(|_| ())
    }

    /// Mounts the cluster's namespace with a client of its own, with more flags; the mount's
    /// index.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn add_mount(&mut self, flags: &[&str]) -> Result<usize> {
        let index = self.mounts.len();
        let mount = Mount::of_cluster(
            &self.binaries,
            self.coordinator_addr(),
            self.dir.path(),
            &format!("mount-{index}"),
            &[&["--log-level", &self.spec.log_level], flags].concat(),
        )?;
        self.mounts.push(mount);
        Ok(index)
    }

    /// Runs the `millpond` program to its end.
    ///
    /// # Errors
    /// When it cannot be run or does not end in time; its exit code is the caller's to check.
    pub fn millpond<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<Output> {
        let mut command = self.binaries.command("millpond");
        command.args(args);
        process::run(command, COMMAND)
    }

    /// Runs a `millpond` command that asks the coordinator, and wants it to succeed; stdout.
    ///
    /// # Errors
    /// With what the program said.
    pub fn coordinated<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<String> {
        let mut command = self.binaries.command("millpond");
        command
            .args(args)
            .args(["--coordinator", self.coordinator_addr()]);
        let output = process::run(command, COMMAND)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {stderr}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// `millpond status -o json`.
    ///
    /// # Errors
    /// When the program fails or its output is not JSON.
    pub fn status(&self) -> Result<serde_json::Value> {
        let text = self.coordinated(&["status", "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("status printed {text:?}"))
    }

    /// Waits until the coordinator counts exactly `count` active nodes.
    ///
    /// # Errors
    /// After `within`, with the last status.
    pub fn wait_active_nodes(&self, count: usize, within: Duration) -> Result<()> {
        let mut last = String::new();
        wait_until(within, || match self.status() {
            Ok(status) => {
                last = status.to_string();
                active_nodes(&status) == count
            }
            Err(error) => {
                last = format!("{error:#}");
                false
            }
        })
        .with_context(|| format!("there should be {count} active nodes; status: {last}"))
    }

    /// Ends everything in order and checks that every process ends by itself.
    ///
    /// # Errors
    /// When one does not end in time, or not with exit code 0.
    pub fn shutdown(mut self) -> Result<()> {
        for mount in &mut self.mounts {
            mount.stop()?;
        }
        for process in self.nodes.iter_mut().chain([&mut self.coordinator]) {
            process.stop_if_running(STOPS_WITHIN)?;
        }
        Ok(())
    }
}

impl Drop for ProcessCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mounts = self.mounts.iter().map(|mount| &mount.process);
            for process in [&self.coordinator]
                .into_iter()
                .chain(&self.nodes)
                .chain(mounts)
            {
                process.print_log();
            }
        }
    }
}

/// A mounted client. Killed and lazily unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    process: Process,
    dir: PathBuf,
}

impl Mount {
    /// Mounts one UFS without a cluster at `dir`, which is created.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn standalone(
        binaries: &Binaries,
        uri: &str,
        dir: &Path,
        log: &Path,
        flags: &[&str],
    ) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut command = binaries.command("millpond");
        command
            .args(["mount", uri])
            .arg(dir)
            .args(["--read-only", "--admin", "127.0.0.1:0"])
            .args(flags);
        let process = Process::start("standalone mount", command, log, READY)?;
        Ok(Self {
            process,
            dir: dir.to_owned(),
        })
    }

    /// Mounts the namespace of the cluster of `coordinator` in a new directory below `parent`
    /// that is called `name`, with more flags.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn of_cluster(
        binaries: &Binaries,
        coordinator: &str,
        parent: &Path,
        name: &str,
        flags: &[&str],
    ) -> Result<Self> {
        let dir = parent.join(name);
        std::fs::create_dir(&dir)?;
        let mut command = binaries.command("millpond");
        command
            .arg("mount")
            .arg(&dir)
            .args(["--coordinator", coordinator])
            .arg("--state-dir")
            .arg(parent.join(format!("{name}.state")))
            .args(["--read-only", "--admin", "127.0.0.1:0"])
            .args(flags);
        let log = parent.join(format!("{name}.log"));
        let process = Process::start(name, command, &log, READY)?;
        Ok(Self { process, dir })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// `HOST:PORT` of its metrics.
    pub fn admin(&self) -> &str {
        self.process.ready("admin")
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its metrics at this moment.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.admin())
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it by SIGTERM, if it runs, and checks that no mount is left.
    ///
    /// # Errors
    /// When it does not end in time with exit code 0, or leaves the mount.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop_if_running(STOPS_WITHIN)?;
        if is_mounted(&self.dir) {
            bail!("{} is still mounted", self.dir.display());
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.process.kill9();
        unmount_lazily(&self.dir);
    }
}

fn start_coordinator(binaries: &Binaries, dir: &Path, spec: &ClusterSpec) -> Result<Process> {
    let mut command = binaries.command("coordinator");
    command
        .arg("--data-dir")
        .arg(dir.join("coordinator"))
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--block-size", &spec.block_size])
        .args(["--heartbeat-interval", &spec.heartbeat])
        .args(["--death-timeout", &spec.death_timeout])
        .args(["--log-level", &spec.log_level]);
    Process::start("coordinator", command, &dir.join("coordinator.log"), READY)
}

/// Members in state `active` anywhere in a status document.
fn active_nodes(status: &serde_json::Value) -> usize {
    use serde_json::Value;
    match status {
        Value::Object(map) => {
            let here = map
                .get("state")
                .and_then(Value::as_str)
                .is_some_and(|state| state.eq_ignore_ascii_case("active"));
            usize::from(here) + map.values().map(active_nodes).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(active_nodes).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_members_are_counted_wherever_the_status_has_them() {
        let status = serde_json::json!({
            "epoch": 4,
            "nodes": [
                {"id": "node-1", "state": "active"},
                {"id": "node-2", "state": "dead"},
                {"id": "node-3", "state": "active"},
            ],
        });
        assert_eq!(active_nodes(&status), 2);
    }
}
