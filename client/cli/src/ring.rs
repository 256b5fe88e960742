//! `millpond ring`: where the blocks of a file belong and are.

use clap::Subcommand;
use millpond_client::{BlockLocation, FileLocation};
use millpond_proto::NodeId;
use millpond_proto::wire::frame::Tier;
use serde::Serialize;

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
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    blocks: u64,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    path: String,
    size: u64,
    file_id: Option<String>,
    version: Option<String>,
    epoch: u64,
    block_size: u64,
    block_count: u64,
    blocks: Vec<BlockRow>,
}

#[derive(Debug, Serialize)]
struct BlockRow {
    index: u64,
    bytes: u32,
    owners: Vec<String>,
    cached: Vec<CachedAt>,
    silent: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CachedAt {
    node: String,
    tier: Tier,
}

pub(crate) async fn run(args: RingArgs) -> anyhow::Result<()> {
    let RingArgs { cluster, command } = args;
    let RingCommand::Show(args) = command;
    let path = normal_path(&args.path)?;
    let session = cluster.file_system().await?;
    let range = args.from..args.from.saturating_add(args.blocks);
    let location = session.fs().locate(&path, range).await;
    let epoch = session.fs().view().epoch.0;
    session.close().await;
    let report = Report::new(path, epoch, location?);
    if args.output.is_json() {
        return output::json(&report);
    }
    report.print()
}

impl Report {
    fn new(path: String, epoch: u64, location: FileLocation) -> Self {
        let FileLocation {
            attr,
            block_size,
            blocks,
        } = location;
        Self {
            path,
            size: attr.size,
            file_id: attr.file_id.map(|id| id.to_string()),
            version: attr.version.map(|version| version.to_string()),
            epoch,
            block_size: block_size.bytes(),
            block_count: block_size.count(attr.size),
            blocks: blocks.into_iter().map(BlockRow::new).collect(),
        }
    }

    fn print(&self) -> anyhow::Result<()> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        output::line(format!(
            "{}  {}  {}",
            self.path,
            human(self.size),
            text(&self.version)
        ))?;
        output::line(format!(
            "file {}  epoch {}  {} blocks of {}",
            text(&self.file_id),
            self.epoch,
            self.block_count,
            human(self.block_size),
        ))?;
        let mut table = output::table(&[">block", ">bytes", "owners", "cached"]);
        table.add_rows(self.blocks.iter().map(BlockRow::cells));
        output::line(table.trim_fmt())?;
        let shown = self.blocks.len() as u64;
        if shown < self.block_count {
            let rest = self.block_count - shown;
            output::line(format!("{rest} more blocks: see --from and --blocks"))?;
        }
        Ok(())
    }
}

impl BlockRow {
    fn new(location: BlockLocation) -> Self {
        let names = |nodes: Vec<NodeId>| nodes.iter().map(NodeId::to_string).collect();
        let cached = |(node, tier): (NodeId, Tier)| CachedAt {
            node: node.to_string(),
            tier,
        };
        Self {
            index: location.block.index,
            bytes: location.len,
            owners: names(location.owners),
            cached: location.cached.into_iter().map(cached).collect(),
            silent: names(location.silent),
        }
    }

    fn cells(&self) -> [String; 4] {
        let mut cached: Vec<_> = self
            .cached
            .iter()
            .map(|c| format!("{}:{}", c.node, tier_name(c.tier)))
            .chain(self.silent.iter().map(|node| format!("{node}:no answer")))
            .collect();
        if cached.is_empty() {
            cached.push("nowhere".to_owned());
        }
        [
            self.index.to_string(),
            self.bytes.to_string(),
            self.owners.join(" "),
            cached.join(" "),
        ]
    }
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
