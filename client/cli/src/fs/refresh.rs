//! `millpond fs refresh`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use millpond_client::Refreshed;
use millpond_process::UsageError;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::connect::{ClusterArgs, normal_path};
use crate::mounted::OurMount;
use crate::output::{self, OutputArgs};

/// Has nodes and clients forget what they know of a path, so that a change made in its store
/// is seen at once.
///
/// Attributes, absence and listings of the path are asked of the store again by whoever needs
/// them next, also on mounts with the option metadata=immutable. Files that are open stay in
/// the version that was opened. Data is never out of date and stays cached.
///
/// PATH may lie in a mount of this host, of a cluster or of one store alone: then the mount is
/// told, and tells the nodes of its cluster. Else it is one of the cluster's namespace.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  One object was replaced:
    millpond fs refresh /mnt/data/labels.csv
  A whole dataset was written anew:
    millpond fs refresh /data -r --coordinator 10.0.0.1:7000")]
pub(crate) struct RefreshArgs {
    /// A path on a mount or of the namespace, whether anything is there or not
    path: PathBuf,
    /// Everything below it, too
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    /// The mount that was told; none for the namespace.
    mount: Option<PathBuf>,
    path: String,
    recursive: bool,
    told: Vec<String>,
    silent: Vec<String>,
}

pub(super) async fn run(args: RefreshArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    match OurMount::of_name(&args.path)? {
        Some((mount, below)) => by_mount(&mount, &below, &args).await,
        None => by_cluster(&args, cluster).await,
    }
}

/// How long a mount may take: as long as one of its calls.
const WITHIN: Duration = Duration::from_secs(30);

async fn by_mount(mount: &OurMount, below: &Path, args: &RefreshArgs) -> anyhow::Result<()> {
    let before = mount.stats()?.refreshed;
    mount.refresh(below, args.recursive)?;
    let deadline = Instant::now() + WITHIN;
    let after = loop {
        sleep(Duration::from_millis(20)).await;
        let after = mount.stats()?.refreshed;
        if after.paths > before.paths {
            break after;
        }
        if Instant::now() >= deadline {
            bail!("the mount at {} did not take it", mount.dir().display());
        }
    };
    let report = Report {
        mount: Some(mount.dir().to_owned()),
        path: args.path.display().to_string(),
        recursive: args.recursive,
        told: Vec::new(),
        silent: Vec::new(),
    };
    if args.output.is_json() {
        output::json(&report)?;
    } else {
        let dir = mount.dir().display();
        output::line(format!(
            "{}: the mount at {dir} asks the store again",
            report.path
        ))?;
    }
    if after.bad_lines > before.bad_lines {
        bail!("the mount refused the path: its log says why");
    }
    if after.silent_nodes > before.silent_nodes {
        bail!(
            "some nodes did not answer (the mount's log names them): they may give old answers \
             until their metadata runs out; run it again when they are back"
        );
    }
    Ok(())
}

async fn by_cluster(args: &RefreshArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let text = args.path.to_str();
    let text = text.ok_or_else(|| UsageError::new("PATH is neither on a mount nor UTF-8"))?;
    let path = normal_path(text)?;
    let session = cluster.file_system().await?;
    let refreshed = session.fs().refresh(&path, args.recursive).await;
    session.close().await;
    let Refreshed { told, silent } = refreshed?;
    let names = |nodes: &[millpond_proto::NodeId]| nodes.iter().map(ToString::to_string).collect();
    let report = Report {
        mount: None,
        path,
        recursive: args.recursive,
        told: names(&told),
        silent: names(&silent),
    };
    if args.output.is_json() {
        output::json(&report)?;
    } else {
        output::line(format!(
            "{}: {} nodes and the clients that they serve ask the store again",
            report.path,
            told.len()
        ))?;
    }
    if !silent.is_empty() {
        anyhow::bail!(
            "no answer from {}: they may give old answers until their metadata runs out; run it \
             again when they are back",
            report.silent.join(", ")
        );
    }
    Ok(())
}
