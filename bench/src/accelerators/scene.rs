//! Data, a cluster that has them all in memory, and a mount of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use millpond_client::ClientConfig;
use millpond_fuse::preflight;
use millpond_process::Size;

use super::loader::Run;
use super::model::{Model, Work};
use super::search::Search;
use super::store::Store;
use super::{AcceleratorsArgs, FIGURE, SCENARIO};
use crate::cluster::{Cluster, ClusterSpec, Kind};
use crate::measure::{Arm, Sample, Spread, interleave, interrupt};
use crate::process_cluster::Mount;
use crate::read::dataset::Dataset;
use crate::record::{Better, Detail, Proof, Row};
use crate::scenario::Context;

const LOCAL: &str = "the same files on the local disk, pages dropped after each read";
/// Where the data are in the namespace.
const MOUNT: &str = "/data";
/// So many accelerators should be busy with the faster of both stores.
const WISHED: f64 = 16.0;
/// Accelerators that load a store as fast as it goes.
const CALIBRATION: usize = 8;
/// Steps of a run: fewer say little, more are so short that it matters how late a sleeper wakes.
const STEPS: f64 = 8.0;
/// How often all is read until no byte comes from the store any more.
const WARM_PASSES: usize = 5;

/// What all models are measured with.
pub(super) struct Scene<'a> {
    context: &'a Context,
    args: &'a AcceleratorsArgs,
    // Order matters: the mount ends before the cluster.
    mount: Option<Mount>,
    cluster: Cluster,
    models: Vec<(&'static str, Work, Dataset)>,
    tier: Store,
    local: Store,
}

/// One model under way.
struct Trials<'a> {
    scene: &'a Scene<'a>,
    model: &'a Model,
    work: &'a Work,
    data: &'a Dataset,
    slowdown: f64,
}

impl<'a> Scene<'a> {
    /// Writes the data of these models and warms a cluster with them.
    pub(super) fn start(
        context: &'a Context,
        args: &'a AcceleratorsArgs,
        models: &[&'static Model],
    ) -> Result<Self> {
        let usual = Size::mib(context.pick(192, 48));
        let bytes = args.size.unwrap_or(usual).bytes();
        let dir = context.new_dir(SCENARIO)?;
        let mut written = Vec::new();
        for model in models {
            context.step(format!("writing samples of {}", model.name));
            let work = Work::new(model, args.accelerator, bytes, context.seed);
            let data = Dataset::write(&dir, Arc::clone(&work.files), context.seed)?;
            written.push((model.name, work, data));
        }
        // Two thirds of a node's memory are its tier, and no node owns twice its share.
        let total = (bytes * models.len() as u64) >> 20;
        let spec = ClusterSpec {
            block_size: "4MiB".to_owned(),
            node_memory: Size::mib((total * 3 / 2).max(128)).to_string(),
            node_disk: "0".to_owned(),
            log_level: "warn".to_owned(),
            ..ClusterSpec::default()
        };
        let cluster = Cluster::start(context, spec, Kind::Processes)?;
        cluster.add_ufs(
            MOUNT,
            &format!("file://{}", dir.display()),
            &BTreeMap::new(),
        )?;
        let through_mount = !args.library && preflight::check_right().is_ok();
        let (mount, tier) = if through_mount {
            // The mount's own memory holds little, so that the nodes are read.
            let mount = cluster.mount(&["--memory-limit", "48MiB", "--metadata-ttl", "1h"])?;
            let root = mount.path().join(MOUNT.trim_start_matches('/'));
            (Some(mount), Store::Dir(root))
        } else {
            let config = ClientConfig {
                memory: ClientConfig::MIN_MEMORY,
                metadata_ttl: Duration::from_secs(3600),
                ..ClientConfig::default()
            };
            let filesystem = cluster.client(config)?;
            let runtime = context.runtime.clone();
            (
                None,
                Store::Library {
                    filesystem,
                    root: MOUNT.to_owned(),
                    runtime,
                },
            )
        };
        let local = Store::Dir(dir);
        Ok(Self {
            context,
            args,
            mount,
            cluster,
            models: written,
            tier,
            local,
        })
    }

    /// The row of one model.
    pub(super) fn measure(&self, model: &Model) -> Result<Row> {
        let Some((_, work, data)) = self.models.iter().find(|(name, ..)| *name == model.name)
        else {
            bail!("there are no data for {}", model.name);
        };
        let verified = self.warm(data)?;
        let before = self.cluster.ufs_use(&self.mounts())?;
        let mut trials = Trials {
            scene: self,
            model,
            work,
            data,
            slowdown: 1.0,
        };
        let (tier_speed, local_speed) = (trials.speed(&self.tier)?, trials.speed(&self.local)?);
        // As many accelerators of full speed could be just busy enough with that.
        let fed = |speed: f64| speed / (work.demand() * model.threshold);
        let wished = WISHED / fed(tier_speed.max(local_speed)).max(1e-9);
        trials.slowdown = self.args.slowdown.unwrap_or(wished);
        let guess = |speed: f64| Cell::new((fed(speed) * trials.slowdown) as usize + 1);
        let (tier_guess, local_guess) = (guess(tier_speed), guess(local_speed));
        let (tier, local) = (RefCell::default(), RefCell::default());
        let samples = interleave(
            self.context.runs,
            &mut [
                Arm::new("accelerators fed by the tier", |_| {
                    trials.search(&self.tier, &tier_guess, &tier)
                }),
                Arm::new("accelerators fed by the local disk", |_| {
                    trials.search(&self.local, &local_guess, &local)
                }),
            ],
        )?;
        let used = self.cluster.ufs_use(&self.mounts())? - before;
        let proof = Proof {
            verified_bytes: Some(verified.0),
            mismatches: Some(verified.1),
            ufs_requests: Some(used.requests),
            ufs_bytes: Some(used.bytes),
            kernel_cache: self.tier.drop_pages(data.files())?,
        };
        trials.row(&tier.take(), &local.take(), &samples, proof)
    }

    /// Reads and verifies everything until no byte comes from the store any more; bytes, and
    /// how many of them were wrong.
    fn warm(&self, data: &Dataset) -> Result<(u64, u64)> {
        for pass in 0..WARM_PASSES {
            self.context.step("warming the nodes");
            interrupt::check()?;
            self.tier.drop_pages(data.files())?;
            let before = self.cluster.ufs_use(&self.mounts())?;
            let verified = self.tier.verify(data)?;
            let used = self.cluster.ufs_use(&self.mounts())? - before;
            if pass > 0 && used.bytes == 0 {
                return Ok(verified);
            }
        }
        bail!("after {WARM_PASSES} passes bytes still come from the store")
    }

    fn mounts(&self) -> Vec<&Mount> {
        self.mount.iter().collect()
    }

    fn processes(&self) -> Vec<u32> {
        let mount = self.mount.iter().map(|mount| mount.pid());
        self.cluster.pids().into_iter().chain(mount).collect()
    }
}

impl Trials<'_> {
    /// Bytes per second without a pause.
    fn speed(&self, store: &Store) -> Result<f64> {
        let (_, sample) = self.run(store, CALIBRATION, 1, Duration::ZERO)?;
        ensure!(
            sample.bytes > 0,
            "nothing was read: {}",
            sample.first_error.unwrap_or_default()
        );
        Ok(sample.bytes as f64 / sample.seconds())
    }

    /// Finds out how many are busy, and adds that to `found`; the next search begins there.
    fn search(
        &self,
        store: &Store,
        guess: &Cell<usize>,
        found: &RefCell<Vec<f64>>,
    ) -> Result<Sample> {
        let batch = self.batch();
        let compute = self.work.sample_seconds * self.slowdown * batch as f64;
        let mut search = Search::new(self.model.threshold, guess.get());
        let mut all = Sample::default();
        while let Some(accelerators) = search.next() {
            interrupt::check()?;
            let compute = Duration::from_secs_f64(compute);
            let (utilization, sample) = self.run(store, accelerators, batch, compute)?;
            search.record(accelerators, utilization);
            all.elapsed += sample.elapsed;
            all.cpu_seconds += sample.cpu_seconds;
            all.merge(sample);
        }
        let sustained = search.sustained();
        guess.set(sustained as usize + 1);
        found.borrow_mut().push(sustained);
        Ok(all)
    }

    fn run(
        &self,
        store: &Store,
        accelerators: usize,
        batch: u64,
        compute: Duration,
    ) -> Result<(f64, Sample)> {
        let Self { scene, model, .. } = self;
        scene
            .context
            .step(format!("{}: {accelerators} accelerators", model.name));
        store.drop_pages(self.data.files())?;
        let run = Run {
            store,
            work: self.work,
            data: self.data,
            accelerators,
            readers: model.readers,
            batch,
            compute,
            length: self.length(),
            others: &scene.processes(),
        };
        run.run()
    }

    const fn length(&self) -> Duration {
        self.scene.context.duration
    }

    fn batch(&self) -> u64 {
        self.work
            .batch(self.slowdown, self.length().as_secs_f64() / STEPS)
    }

    fn row(
        &self,
        tier: &[f64],
        local: &[f64],
        samples: &[Vec<Sample>],
        proof: Proof,
    ) -> Result<Row> {
        let at_full_speed = |counts: &[f64]| Spread::of(counts.iter().map(|n| n / self.slowdown));
        let median = |counts: &[f64]| Spread::of(counts.iter().copied()).map(|of| of.median);
        let (Some(value), Some(limit)) = (at_full_speed(tier), at_full_speed(local)) else {
            bail!("nothing was measured");
        };
        let (mut row, model) = (
            Row::of(
                SCENARIO,
                self.model.name,
                FIGURE,
                "accelerators",
                Better::Higher,
                value,
            ),
            self.model,
        );
        row = row.against_value(LOCAL, limit).proved(proof);
        row.detail = samples
            .first()
            .map(|of_tier| Detail::of(of_tier))
            .unwrap_or_default();
        if let (Some(limit), Some(of_local)) = (&mut row.limit, samples.get(1)) {
            limit.detail = Detail::of(of_local);
        }
        let through = match self.scene.tier {
            Store::Dir(_) => "a mount",
            Store::Library { .. } => "the client library",
        };
        let kind = format!("{:?}", self.scene.args.accelerator);
        let row = row
            .with("threshold", model.threshold)
            .with("slowdown", self.slowdown)
            .with("slowed_from_tier", median(tier).unwrap_or_default())
            .with("slowed_from_local", median(local).unwrap_or_default())
            .with("batch", self.batch() as f64)
            .with("sample_bytes", self.work.mean_bytes)
            .with("samples_shrunk", self.work.shrunk);
        Ok(row.noted(format!(
            "{kind}s of full speed, busy for {:.0} % of the time; through {through} from three nodes \
             that hold all data in memory; kernel pages dropped on both sides",
            model.threshold * 100.0,
        )))
    }
}
