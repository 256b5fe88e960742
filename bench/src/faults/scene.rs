//! The cluster that faults happen to: nodes behind a network of ours, and who reads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use millpond_client::{ClientConfig, FileSystem};
use millpond_s3_fixture::S3Fixture;

use super::FaultsArgs;
use super::load::{Access, Dataset, Load, Outcome, read_all};
use super::network::Network;
use super::timeline::Timeline;
use crate::cluster::{Cluster, ClusterSpec, Kind};
use crate::measure::interrupt;
use crate::process_cluster::{Mount, wait_until};
use crate::scenario::Context;

/// Little memory, so that nearly every read asks a node.
const CLIENT_MEMORY: u64 = 16 << 20;
const BUCKET: &str = "lake";
/// How long the cluster may take to be whole and warm again.
const HEALS_WITHIN: Duration = Duration::from_secs(60);

/// What is done to a node while it is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; healed by a start with the same disk.
    Kill,
    /// SIGSTOP; healed by SIGCONT.
    Stop,
    /// Nothing reaches it or leaves it.
    Cut,
    /// Everything reaches and leaves it later.
    Slow(Duration),
}

/// How long each part of a run lasts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) before: Duration,
    pub(super) fault: Duration,
    pub(super) after: Duration,
}

/// What one run found.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) timeline: Timeline,
    pub(super) outcome: Outcome,
    /// Requests to the UFS before the fault: none if everything was warm.
    pub(super) ufs_requests_before: u64,
    /// Requests to the UFS from the fault on.
    pub(super) ufs_requests_after: u64,
    /// Bytes from the UFS from the fault on.
    pub(super) ufs_bytes_after: u64,
    /// When the fault was and when it was healed, in seconds of the run.
    pub(super) at: (f64, f64),
}

/// Everything that a run needs.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    context: &'a Context,
    args: &'a FaultsArgs,
    // Order matters: readers end before the nodes that they read from.
    mount: Option<Mount>,
    fs: FileSystem,
    cluster: Cluster,
    network: Network,
    dataset: Dataset,
    s3: S3Fixture,
}

impl Fault {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Cut => "cut",
            Self::Slow(_) => "slow",
        }
    }
}

impl<'a> Scene<'a> {
    /// A cluster of `args.nodes` nodes whose network can be cut, and readers.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn start(context: &'a Context, args: &'a FaultsArgs) -> Result<Self> {
        let s3 = context.runtime.block_on(S3Fixture::start());
        let dataset = Dataset {
            files: 8,
            size: context.pick(32 << 20, 16 << 20),
            seed: context.seed << 20,
        };
        dataset.put(&s3, BUCKET, "");
        let spec = ClusterSpec {
            nodes: 0,
            block_size: "1MiB".to_owned(),
            node_memory: "256MiB".to_owned(),
            node_disk: "2GiB".to_owned(),
            heartbeat: "1s".to_owned(),
            death_timeout: "5s".to_owned(),
            log_level: "warn".to_owned(),
            one_host: false,
        };
        let mut cluster = Cluster::start(context, spec, Kind::Processes)?;
        let mut network = Network::new(&context.runtime, cluster.coordinator())?;
        for _ in 0..args.nodes {
            let index = network.add()?;
            let (control, blocks) = (network.control(index), network.blocks(index));
            let advertise = ["--advertise", &blocks.to_string()];
            cluster.add_node_with(&control.to_string(), &advertise)?;
            let listen = cluster.node(index).ready("listen");
            network.connect(index, listen.parse().context("a node's address")?);
        }
        let mut options: BTreeMap<_, _> = s3.options();
        options.extend(args.options.iter().cloned());
        cluster.add_ufs("/data", &format!("s3://{BUCKET}"), &options)?;
        let fs = cluster.client(ClientConfig {
            memory: CLIENT_MEMORY,
            ..ClientConfig::default()
        })?;
        let mount = match args.mount {
            true => Some(cluster.mount(&["--memory-limit", "48MiB"])?),
            false => None,
        };
        Ok(Self {
            context,
            args,
            mount,
            fs,
            cluster,
            network,
            dataset,
            s3,
        })
    }

    /// Reads, breaks node `victim`, heals it, and goes on reading.
    ///
    /// # Errors
    /// When the cluster does not become whole and warm, or the fault cannot be done.
    pub(super) fn run(&mut self, fault: Fault, victim: usize, times: Times) -> Result<Measured> {
        let name = fault.name();
        self.context.step(format!("{name}: warming up"));
        self.heal_and_warm()?;
        self.context.step(format!("{name}: reading before it"));
        let load = Load::start(
            &self.access(),
            self.dataset,
            self.args.jobs,
            u32::try_from(self.args.read_size.bytes())?,
            self.context.seed,
        )?;
        // Files are open from here on: nothing but reads is left to ask the UFS for.
        let at_start = self.s3.counters();
        self.pause(times.before)?;
        let at_fault = self.s3.counters();
        self.context.step(format!("{name}: reading while it lasts"));
        let fault_at = load.elapsed();
        self.inject(fault, victim)?;
        self.pause(times.fault)?;
        self.context.step(format!("{name}: reading after it"));
        let heal_at = load.elapsed();
        self.heal(fault, victim)?;
        self.pause(times.after)?;
        let end = load.elapsed();
        let outcome = load.stop()?;
        let at_end = self.s3.counters();
        Ok(Measured {
            timeline: Timeline::new(outcome.reads.clone(), fault_at, heal_at, end),
            outcome,
            ufs_requests_before: at_fault.requests - at_start.requests,
            ufs_requests_after: at_end.requests - at_fault.requests,
            ufs_bytes_after: at_end.get_bytes - at_fault.get_bytes,
            at: (fault_at.as_secs_f64(), heal_at.as_secs_f64()),
        })
    }

    fn access(&self) -> Access {
        match &self.mount {
            Some(mount) => Access::Mount(mount.path().join("data")),
            None => Access::Library(
                self.fs.clone(),
                "/data".to_owned(),
                self.context.runtime.clone(),
            ),
        }
    }

    fn inject(&mut self, fault: Fault, victim: usize) -> Result<()> {
        match fault {
            Fault::Kill => self.cluster.node(victim).kill9(),
            Fault::Stop => self.cluster.node(victim).freeze()?,
            Fault::Cut => self.network.cut(victim),
            Fault::Slow(delay) => self.network.slow(victim, delay / 2),
        }
        Ok(())
    }

    fn heal(&mut self, fault: Fault, victim: usize) -> Result<()> {
        match fault {
            Fault::Kill => self.cluster.node(victim).restart()?,
            Fault::Stop => self.cluster.node(victim).resume()?,
            Fault::Cut | Fault::Slow(_) => self.network.heal(victim),
        }
        Ok(())
    }

    /// Waits until all nodes serve, and a pass over all data asks the UFS for nothing.
    fn heal_and_warm(&self) -> Result<()> {
        let whole = || self.fs.view().serving().count() == self.args.nodes;
        let done = || interrupt::check().is_err() || whole();
        wait_until(HEALS_WITHIN, done).context("a node does not come back")?;
        let access = self.access();
        let deadline = Instant::now() + HEALS_WITHIN;
        loop {
            interrupt::check()?;
            let before = self.s3.counters().get_bytes;
            read_all(&access, &self.dataset).context("warming up")?;
            let asked = self.s3.counters().get_bytes - before;
            if asked == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("a pass over warm data still asks the UFS for {asked} bytes");
            }
        }
    }

    fn pause(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        // Interrupted within a tick, not at the end.
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            interrupt::check()?;
            let tick = Duration::from_millis(50).min(left);
            self.context.runtime.block_on(tokio::time::sleep(tick));
        }
        Ok(())
    }
}
