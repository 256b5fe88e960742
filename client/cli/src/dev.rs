//! `millpond dev`: a whole cluster and a mount on this machine, tried and checked.

mod args;
mod cluster;
mod dataset;
mod passes;
mod report;
mod source;
mod stage;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use millpond_client::FileSystem;
use millpond_fuse::{dead, preflight};
use millpond_process::{Size, shutdown};
use millpond_proto::NodeId;
use tokio_util::sync::CancellationToken;

pub(crate) use args::DevArgs;
use args::{MountPlan, Origin, Plan};
use cluster::{ClusterPlan, logs};
use dataset::Recipe;
use passes::{Access, Workload};
use report::{Dataset, Report};
use source::{Source, SourceFile, open_store};
use stage::{NAMESPACE_DIR, Stage};

use crate::output::notice;

/// The least disk tier of a node.
const LEAST_DISK: u64 = 1 << 30;

pub(crate) async fn run(args: DevArgs) -> anyhow::Result<()> {
    let plan = args.plan()?;
    if let MountPlan::At(dir) = &plan.mount {
        // Before minutes of work: a mount point that cannot be used never will be.
        dead::clear(dir)?;
        preflight::check_mount_point(dir)?;
    }
    let stop = shutdown::token();
    let mut stage = Stage::new()?;
    let result = tokio::select! {
        // First, because a signal while everything just stays up is the ordinary end.
        biased;
        result = Box::pin(perform(&plan, &mut stage, &stop)) => result,
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Some(kept) = stage.tear_down(plan.keep).await {
        notice(format!("kept: {}", kept.display()));
    }
    result
}

async fn perform(plan: &Plan, stage: &mut Stage, stop: &CancellationToken) -> anyhow::Result<()> {
    let truth = Truth::prepare(plan, stage, stop).await?;
    let bytes: u64 = truth.files.iter().map(|file| file.size).sum();
    notice(format!(
        "starting a coordinator and {} cache nodes",
        plan.nodes
    ));
    stage.start_cluster(&plan.cluster(bytes)).await?;
    let fs = stage
        .connect(plan, &truth.uri, truth.options.clone())
        .await?;
    let mount = stage.mount(&plan.mount).await?;
    let workload = Arc::new(truth.workload(plan, &fs, &mount, stop));
    let report = measure(plan, stage, &workload, &truth.uri, mount.as_ref().err()).await?;
    report.print(plan.json)?;
    let (errors, mismatches) = report.faults();
    if plan.once {
        anyhow::ensure!(
            errors + mismatches == 0,
            "{errors} files could not be read and {mismatches} were read wrong"
        );
        return Ok(());
    }
    stay(stage, mount.ok(), stop).await
}

/// Reads everything three times.
async fn measure(
    plan: &Plan,
    stage: &mut Stage,
    workload: &Arc<Workload>,
    uri: &str,
    no_mount: Option<&String>,
) -> anyhow::Result<Report> {
    let cold = workload.pass("cold", async { Ok(()) }).await?;
    let warm = workload.pass("warm", async { Ok(()) }).await?;
    let nodes: Vec<NodeId> = stage.cluster()?.node_ids().collect();
    let ufs_bytes = ufs_bytes(&workload.fs, &nodes).await?;
    workload.drop_page_cache().await?;
    let victim = *nodes.last().context("there is no node")?;
    let kill = async { stage.cluster()?.kill(victim).await };
    let node_loss = workload.pass("node loss", kill).await?;
    let problems = [&cold, &warm, &node_loss]
        .into_iter()
        .flat_map(|o| o.problems.clone());
    Ok(Report {
        problems: problems.collect(),
        cold: cold.pass,
        warm: warm.pass,
        node_loss: node_loss.pass,
        ufs_amplification: Report::amplification(ufs_bytes, workload.bytes()),
        dataset: Dataset {
            ufs: uri.to_owned(),
            files: workload.files.len(),
            bytes: workload.bytes(),
        },
        nodes: nodes.len(),
        block_size: plan.block_size.bytes(),
        readers: workload.readers,
        access: if no_mount.is_none() {
            "mount"
        } else {
            "library"
        },
        no_mount: no_mount.cloned(),
        killed: victim.to_string(),
    })
}

/// File data read from the UFS so far, by all nodes and the client.
async fn ufs_bytes(fs: &FileSystem, nodes: &[NodeId]) -> anyhow::Result<u64> {
    let mut total = fs.ufs_bytes();
    for node in nodes {
        total += fs.node_stats(*node).await?.ufs_bytes;
    }
    Ok(total)
}

/// Says where everything is, and leaves it up until Ctrl-C.
async fn stay(
    stage: &mut Stage,
    mount: Option<PathBuf>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let root = stage.root().to_owned();
    let cluster = stage.cluster()?;
    let coordinator = cluster.coordinator()?;
    match &mount {
        Some(dir) => notice(format!("\nmount        {}{NAMESPACE_DIR}", dir.display())),
        None => notice("\nmount        none"),
    }
    notice(format!("coordinator  {coordinator}"));
    for (name, admin) in cluster.admins() {
        notice(format!("metrics      http://{admin}/metrics  ({name})"));
    }
    notice(format!("logs         {}", logs(&root).display()));
    notice(format!(
        "try          millpond status --coordinator {coordinator}\n\
         \x20            millpond ring show {NAMESPACE_DIR}/… --coordinator {coordinator}\n\
         Ctrl-C ends everything and cleans up."
    ));
    stop.cancelled().await;
    Ok(())
}

/// The dataset and how to reach it without the cluster.
struct Truth {
    source: Source,
    files: Vec<SourceFile>,
    uri: String,
    options: BTreeMap<String, String>,
}

impl Truth {
    async fn prepare(plan: &Plan, stage: &Stage, stop: &CancellationToken) -> anyhow::Result<Self> {
        match &plan.origin {
            Origin::Store { uri, options } => {
                notice(format!("listing {uri}"));
                let (source, files) = open_store(uri, options).await?;
                Ok(Self {
                    source,
                    files,
                    uri: uri.clone(),
                    options: options.clone(),
                })
            }
            Origin::Sample { size, dir } => {
                let root = match dir {
                    Some(dir) => std::path::absolute(dir)?,
                    None => stage.root().join("dataset"),
                };
                sample(Recipe::of_size(*size), root, stop.clone()).await
            }
        }
    }

    fn workload(
        &self,
        plan: &Plan,
        fs: &FileSystem,
        mount: &Result<PathBuf, String>,
        stop: &CancellationToken,
    ) -> Workload {
        let access = match mount {
            Ok(dir) => Access::Mount(dir.join(NAMESPACE_DIR.trim_start_matches('/'))),
            Err(why) => {
                notice(format!(
                    "no mount, reading through the client library: {why}"
                ));
                Access::Library(fs.clone(), NAMESPACE_DIR.to_owned())
            }
        };
        Workload {
            fs: fs.clone(),
            access,
            source: self.source.clone(),
            files: self.files.clone(),
            readers: plan.readers,
            stop: stop.clone(),
        }
    }
}

/// Generates the sample dataset, unless it is there.
async fn sample(recipe: Recipe, root: PathBuf, stop: CancellationToken) -> anyhow::Result<Truth> {
    let files = recipe.files();
    let total = files.iter().map(|file| file.size).sum();
    let style = "{msg:>10} {bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
    let bar = ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?);
    let bar = bar.with_message("dataset");
    let make = move || {
        let made = recipe.make(&root, |bytes| {
            bar.inc(bytes);
            !stop.is_cancelled()
        });
        bar.finish_and_clear();
        made
    };
    let (dir, _) = tokio::task::spawn_blocking(make).await??;
    let uri = match dir.to_str() {
        Some(path) => format!("file://{path}"),
        None => bail!("{} is not UTF-8; choose another directory", dir.display()),
    };
    Ok(Truth {
        source: Source::Directory(dir),
        files: files
            .into_iter()
            .map(|f| SourceFile::local(f.path, f.size))
            .collect(),
        uri,
        options: BTreeMap::new(),
    })
}

impl Plan {
    /// Nodes whose disks hold the dataset even when one of them is gone.
    fn cluster(&self, dataset: u64) -> ClusterPlan {
        let enough = Size((2 * dataset).max(LEAST_DISK));
        ClusterPlan {
            nodes: self.nodes,
            block_size: self.block_size,
            memory: self.node_memory,
            disk: self.node_disk.unwrap_or(enough),
        }
    }
}
