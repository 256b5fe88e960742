//! `millpond fs refresh`.

use millpond_client::Refreshed;
use serde::Serialize;

use crate::connect::{ClusterArgs, normal_path};
use crate::output::{self, OutputArgs};

/// Has nodes and clients forget what they know of a path, so that a change made in its store
/// is seen at once.
///
/// Attributes, absence and listings of the path are asked of the store again by whoever needs
/// them next, also on mounts with the option metadata=immutable. Files that are open stay in
/// the version that was opened. Data is never out of date and stays cached.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  One object was replaced:
    millpond fs refresh /data/labels.csv
  A whole dataset was written anew:
    millpond fs refresh /data -r")]
pub(crate) struct RefreshArgs {
    /// A path of the namespace, whether anything is there or not
    path: String,
    /// Everything below it, too
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    path: String,
    recursive: bool,
    told: Vec<String>,
    silent: Vec<String>,
}

pub(super) async fn run(args: RefreshArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let path = normal_path(&args.path)?;
    let session = cluster.file_system().await?;
    let refreshed = session.fs().refresh(&path, args.recursive).await;
    session.close().await;
    let Refreshed { told, silent } = refreshed?;
    let names = |nodes: &[millpond_proto::NodeId]| nodes.iter().map(ToString::to_string).collect();
    let report = Report {
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
