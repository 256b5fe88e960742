//! `millpond ring`: where the blocks of a file belong and are.

use clap::Subcommand;
use millpond_client::{BlockReport, LocationReport};
use millpond_proto::wire::frame::Tier;

use crate::connect::{ClusterArgs, normal_path};
use crate::output::{self, OutputArgs, human};

/// Where the blocks of files belong and are.
#[derive(Debug, clap::Args)]
pub(crate) struct RingArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(subcommand)]
    command: RingCommand,
}

#[derive(Debug, Subcommand)]
enum RingCommand {
    Show(ShowArgs),
}

/// Shows the blocks of a file, the nodes that own them, and where each is cached now.
///
/// Nothing is fetched: the nodes are asked what they hold.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond ring show /data/train/shard-00.tar
  millpond ring show /data/big.bin --from 100 --blocks 20 -o json")]
pub(crate) struct ShowArgs {
    /// A file of the cluster's namespace
    path: String,
    /// The first block to show
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// How many blocks to show at most
    #[arg(long, value_name = "COUNT", default_value_t = MOST_BLOCKS)]
    blocks: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// How many blocks are shown unless more are asked for.
pub(crate) const MOST_BLOCKS: u64 = 256;

pub(crate) async fn run(args: RingArgs) -> anyhow::Result<()> {
    let RingArgs { cluster, command } = args;
    let RingCommand::Show(args) = command;
    let path = normal_path(&args.path)?;
    let session = cluster.file_system().await?;
    let range = args.from..args.from.saturating_add(args.blocks);
    let report = session.fs().location_report(&path, range).await;
    session.close().await;
    let report = report?;
    if args.output.is_json() {
        return output::json(&report);
    }
    print(&report)
}

/// Prints where the blocks of a file are, for people.
pub(crate) fn print(report: &LocationReport) -> anyhow::Result<()> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    output::line(format!(
        "{}  {}  {}",
        report.path,
        human(report.size),
        text(&report.version)
    ))?;
    output::line(format!("object {}", report.ufs))?;
    output::line(format!(
        "file {}  epoch {}  {} blocks of {}",
        text(&report.file_id),
        report.epoch,
        report.block_count,
        human(report.block_size),
    ))?;
    let mut table = output::table(&[">block", ">bytes", "owners", "cached"]);
    table.add_rows(report.blocks.iter().map(cells));
    output::line(table.trim_fmt())?;
    let shown = report.blocks.len() as u64;
    if shown < report.block_count {
        let rest = report.block_count - shown;
        output::line(format!(
            "{rest} more blocks: see `millpond ring show`, --from and --blocks"
        ))?;
    }
    Ok(())
}

fn cells(block: &BlockReport) -> [String; 4] {
    let here = match block.here {
        Tier::None => None,
        tier => Some(format!("here:{}", tier_name(tier))),
    };
    let nodes = block.cached.iter();
    let mut cached: Vec<_> = here
        .into_iter()
        .chain(nodes.map(|c| format!("{}:{}", c.node, tier_name(c.tier))))
        .chain(block.silent.iter().map(|node| format!("{node}:no answer")))
        .collect();
    if cached.is_empty() {
        cached.push("nowhere".to_owned());
    }
    [
        block.index.to_string(),
        block.bytes.to_string(),
        block.owners.join(" "),
        cached.join(" "),
    ]
}

fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::None => "none",
        Tier::Memory => "memory",
        Tier::Disk => "disk",
        Tier::Peer => "peer",
        Tier::Ufs => "ufs",
    }
}
