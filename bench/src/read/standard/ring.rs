//! Reads from three nodes that hold all data in memory, by clients that cannot.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use millpond_client::ClientConfig;
use millpond_process::Size;

use super::{HandedOut, Stage, asked, fail_on_errors, one_file};
use crate::cluster::{Cluster, ClusterSpec, Kind};
use crate::limits::QuinnLimit;
use crate::measure::{Arm, Sample, Spread, interleave};
use crate::process_cluster::{Mount, limit_for};
use crate::read::SCENARIO;
use crate::read::args::Pattern;
use crate::read::dataset::Dataset;
use crate::read::given::best_of;
use crate::read::layout::FileInfo;
use crate::read::shape::Shape;
use crate::read::source::{Library, Source};
use crate::read::verify;
use crate::read::workload::{Length, Workload};
use crate::record::{Better, Figure, KernelCache, Row};

const QUINN: &str = "plain quinn, same settings, 4 requests of 1 MiB in flight";
/// How often all is read until no byte comes from the store any more.
const WARM_PASSES: usize = 5;

const SEQUENTIAL_4: Shape = Shape::new(Pattern::Sequential, 1 << 20, 4);
const SEQUENTIAL_32: Shape = Shape::new(Pattern::Sequential, 1 << 20, 32);
const RANDOM: Shape = Shape::new(Pattern::Random, 256 << 10, 1);

/// A warm cluster.
struct Ring<'a> {
    stage: &'a Stage<'a>,
    cluster: Cluster,
    data: Dataset,
    /// Of each client: too little for the data.
    memory: Size,
}

/// Measures what is wanted.
pub(super) fn run(stage: &Stage<'_>, wanted: &[&str]) -> Result<Vec<Row>> {
    let ring = Ring::start(stage)?;
    let quinn = QuinnLimit::start(&stage.context.runtime, true, stage.context.seed)?;
    let mut rows = Vec::new();
    if wanted.iter().any(|case| case.starts_with("fuse/")) {
        rows.extend(ring.by_mount(wanted, &quinn)?);
    }
    if wanted.contains(&"library/ring/seq-1m-4jobs") {
        rows.push(ring.by_library(&quinn)?);
    }
    Ok(rows)
}

impl<'a> Ring<'a> {
    fn start(stage: &'a Stage<'a>) -> Result<Self> {
        let (context, size) = (stage.context, 2 * stage.size());
        context.step("writing the data of the ring");
        let dir = context.new_dir("ring")?;
        let data = Dataset::write(&dir, one_file("file", size), context.seed + 1)?;
        // Two thirds of a node's memory are its tier, and no node owns twice its share.
        let spec = ClusterSpec {
            block_size: "4MiB".to_owned(),
            node_memory: Size::mib((size >> 20).max(128)).to_string(),
            node_disk: "0".to_owned(),
            log_level: "warn".to_owned(),
            ..ClusterSpec::default()
        };
        let cluster = Cluster::start(context, spec, Kind::Processes)?;
        let uri = format!("file://{}", dir.display());
        cluster.add_ufs("/data", &uri, &BTreeMap::new())?;
        let memory = Size::mib((size >> 22).max(16));
        Ok(Self {
            stage,
            cluster,
            data,
            memory,
        })
    }

    /// Reads everything until it is warm.
    fn warm(&self, source: &Source, mounts: &[&Mount]) -> Result<()> {
        let progress = self.stage.context.progress();
        let once = self.workload(Shape::SEQUENTIAL);
        for pass in 0..WARM_PASSES {
            self.stage.context.step("warming the nodes");
            self.forget(source)?;
            let before = self.cluster.ufs_use(mounts)?;
            fail_on_errors(&once.run(source, Length::Pass, &[], progress)?)?;
            let used = self.cluster.ufs_use(mounts)? - before;
            if pass > 0 && used.bytes == 0 {
                return Ok(());
            }
        }
        anyhow::bail!("after {WARM_PASSES} passes bytes still come from the store")
    }

    fn forget(&self, source: &Source) -> Result<Option<KernelCache>> {
        let Some(dir) = source.dir() else {
            return Ok(None);
        };
        crate::read::kernel::drop_pages(dir, self.files()).map(Some)
    }

    const fn files(&self) -> &Arc<[FileInfo]> {
        self.data.files()
    }

    fn workload(&self, shape: Shape) -> Workload {
        self.stage.workload(self.files(), shape)
    }

    fn quinn(&self, limit: &QuinnLimit) -> Result<Sample> {
        self.stage.context.step(QUINN);
        limit.run(1 << 20, 4, self.stage.context.duration)
    }

    fn by_mount(&self, wanted: &[&str], limit: &QuinnLimit) -> Result<Vec<Row>> {
        let context = self.stage.context;
        let memory = limit_for(self.memory);
        let flags = [&super::LONG_TTL[..], &["--memory-limit", &memory]].concat();
        let mount = self.cluster.mount(&flags)?;
        let mut pids = self.cluster.pids();
        pids.push(mount.pid());
        let dir = mount.path().join("data");
        let source = Source::Dir(dir.clone());
        self.warm(&source, &[&mount])?;

        let one_thread = wanted.contains(&"fuse/ring/one-thread");
        let random = wanted.contains(&"fuse/ring/rand-256k-1job");
        let sequential = wanted.contains(&"fuse/ring/seq-1m-4jobs");
        // The arms are shared: a reader against others, against itself in another order, and
        // against the network.
        let shapes = [
            (Shape::SEQUENTIAL, one_thread || random),
            (SEQUENTIAL_4, one_thread || sequential),
            (SEQUENTIAL_32, one_thread),
            (RANDOM, random),
        ];
        let shapes: Vec<_> = shapes.into_iter().filter(|(_, needed)| *needed).collect();
        let mut dropped = vec![None; shapes.len()];
        let before = (self.cluster.ufs_use(&[&mount])?, HandedOut::by(&mount)?);
        let mut arms = Vec::new();
        for ((shape, _), dropped) in shapes.iter().zip(&mut dropped) {
            let (workload, name) = (self.workload(*shape), format!("fuse/ring/{}", shape.name()));
            let (dir, pids) = (&dir, &pids);
            arms.push(Arm::new(name.clone(), move |_| {
                let files = (&**dir, &self.files()[..]);
                self.stage
                    .run_dropped(&name, &workload, files, pids, dropped)
            }));
        }
        if sequential {
            arms.push(Arm::new(QUINN, |_| self.quinn(limit)));
        }
        let samples = interleave(context.runs, &mut arms)?;
        drop(arms);
        let used = self.cluster.ufs_use(&[&mount])? - before.0;
        let (memory, peer) = HandedOut::by(&mount)?.shares_since(before.1);

        let of = |shape: Shape| {
            let index = shapes.iter().position(|(known, _)| *known == shape);
            index.map(|index| (&*samples[index], dropped[index].clone()))
        };
        let mut rows = Vec::new();
        if let (true, Some((ours, dropped))) = (sequential, of(SEQUENTIAL_4)) {
            let theirs = samples.last().map_or(&[][..], |samples| samples);
            let row = Row::measured(SCENARIO, "fuse/ring/seq-1m-4jobs", Figure::Throughput, ours);
            let row = row.against(QUINN, Figure::Throughput, theirs);
            rows.push(cpu_bound(row).proved(asked(used, dropped)));
        }
        if let (true, Some((one, dropped))) = (one_thread, of(Shape::SEQUENTIAL)) {
            let throughput =
                |samples: &[Sample]| Spread::of(samples.iter().map(Sample::gb_per_second));
            let all = [Shape::SEQUENTIAL, SEQUENTIAL_4, SEQUENTIAL_32];
            let all: Vec<_> = all
                .iter()
                .filter_map(|shape| throughput(of(*shape)?.0))
                .collect();
            let ratio = throughput(one).zip(best_of(&all));
            let ratio = ratio.and_then(|(one, best)| Spread::ratio(&one, &best));
            let ratio = ratio.context("nothing came from the ring")?;
            let case = "fuse/ring/one-thread";
            let row = Row::of(SCENARIO, case, "ratio", "ratio", Better::Higher, ratio);
            let row = row.noted("1 job against the best of 1, 4 and 32 jobs, 1 MiB, sequential");
            let mut row = row.proved(asked(used, dropped));
            row.detail.errors = errors(&samples);
            rows.push(row);
        }
        if let (true, Some((ours, dropped)), Some((theirs, _))) =
            (random, of(RANDOM), of(Shape::SEQUENTIAL))
        {
            let name = "the same mount, sequential, 1 job";
            let row = Row::measured(
                SCENARIO,
                "fuse/ring/rand-256k-1job",
                Figure::Throughput,
                ours,
            );
            let row = row.against(name, Figure::Throughput, theirs);
            rows.push(row.proved(asked(used, dropped)));
        }
        for row in &mut rows {
            for (name, share) in [("from_memory_tier", memory), ("from_peers", peer)] {
                if share.is_finite() {
                    row.detail.more.insert(name.to_owned(), share);
                }
            }
        }
        self.forget(&source)?;
        verify::enter(&verify::against_dataset(&source, &self.data), &mut rows);
        Ok(rows)
    }

    fn by_library(&self, limit: &QuinnLimit) -> Result<Row> {
        let context = self.stage.context;
        let filesystem = self.cluster.client(ClientConfig {
            memory: self.memory.bytes(),
            metadata_ttl: std::time::Duration::from_secs(3600),
            ..ClientConfig::default()
        })?;
        let source = Source::Library(Library {
            filesystem: filesystem.clone(),
            root: "/data".to_owned(),
            runtime: context.runtime.clone(),
        });
        self.warm(&source, &[])?;
        let (case, pids) = ("library/ring/seq-1m-4jobs", self.cluster.pids());
        let workload = self.workload(SEQUENTIAL_4);
        let before = self.cluster.ufs_use(&[])?;
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new(case, |_| self.stage.run(case, &workload, &source, &pids)),
                Arm::new(QUINN, |_| self.quinn(limit)),
            ],
        )?;
        let used = self.cluster.ufs_use(&[])? - before;
        let row = Row::measured(SCENARIO, case, Figure::Throughput, &samples[0]);
        let row = row.against(QUINN, Figure::Throughput, &samples[1]);
        let mut rows = [cpu_bound(row).proved(asked(used, None))];
        verify::enter(&verify::against_dataset(&source, &self.data), &mut rows);
        context.runtime.block_on(filesystem.shutdown());
        let [row] = rows;
        Ok(row)
    }
}

fn errors(samples: &[Vec<Sample>]) -> u64 {
    samples.iter().flatten().map(|sample| sample.errors).sum()
}

/// With what the ratio would be on a machine where both are bound by its processors: CPU time
/// for a GB of the limit over ours.
fn cpu_bound(row: Row) -> Row {
    let ours = row.detail.cpu_seconds_per_gb.as_ref().map(|cpu| cpu.median);
    let limit = row.limit.as_ref();
    let theirs = limit.and_then(|limit| Some(limit.detail.cpu_seconds_per_gb.as_ref()?.median));
    match ours.zip(theirs) {
        Some((ours, theirs)) => row.with("cpu_bound_ratio", theirs / ours),
        None => row,
    }
}
