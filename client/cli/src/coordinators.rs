//! `millpond coordinators`: the group that keeps the cluster's state.

use clap::Subcommand;
use millpond_net::control::CoordinatorInfo;
use serde::Serialize;

use crate::connect::ClusterArgs;
use crate::output::{self, OutputArgs};

/// The group of coordinators, which keeps the cluster's state.
///
/// One is added by starting it with `coordinator --join`.
#[derive(Debug, clap::Args)]
pub(crate) struct CoordinatorsArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(subcommand)]
    command: CoordinatorsCommand,
}

#[derive(Debug, Subcommand)]
enum CoordinatorsCommand {
    Ls(LsArgs),
    Rm(RmArgs),
    Transfer(TransferArgs),
}

/// Lists the coordinators: who leads, who votes, who is behind.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond coordinators ls
  millpond coordinators ls --coordinator 10.0.0.1:7000,10.0.0.2:7000 -o json")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Takes a coordinator out of the group for good: it is dead, or about to be stopped.
///
/// A majority of the others must be alive. Never start it again with the same --data-dir.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  millpond coordinators rm 3")]
pub(crate) struct RmArgs {
    /// Its number, as `millpond coordinators ls` shows it
    id: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// Has another coordinator lead, before work on the machine of the one that does.
///
/// Takes a few seconds, in which changes wait; reads do not notice.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  millpond coordinators transfer 2")]
pub(crate) struct TransferArgs {
    /// The number of the one that is to lead
    id: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// A coordinator as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    id: u64,
    addr: String,
    leads: bool,
    votes: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<u64>,
}

pub(crate) async fn run(args: CoordinatorsArgs) -> anyhow::Result<()> {
    let control = args.cluster.control()?;
    let (output, group) = match args.command {
        CoordinatorsCommand::Ls(args) => (args.output, control.coordinators().await?),
        CoordinatorsCommand::Rm(args) => (args.output, control.remove_coordinator(args.id).await?),
        CoordinatorsCommand::Transfer(args) => (args.output, control.transfer_lead(args.id).await?),
    };
    print(output, group)
}

fn print(args: OutputArgs, group: Vec<CoordinatorInfo>) -> anyhow::Result<()> {
    let rows: Vec<_> = group.into_iter().map(Row::from).collect();
    if args.is_json() {
        return output::json(&rows);
    }
    let mut table = output::table(&["id", "address", "role", "behind"]);
    table.add_rows(rows.iter().map(|row| {
        let role = match (row.leads, row.votes) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "catching up",
        };
        let behind = row.behind.map_or_else(|| "-".to_owned(), |n| n.to_string());
        [
            row.id.to_string(),
            row.addr.clone(),
            role.to_owned(),
            behind,
        ]
    }));
    Ok(output::line(table.trim_fmt())?)
}

impl From<CoordinatorInfo> for Row {
    fn from(info: CoordinatorInfo) -> Self {
        let CoordinatorInfo {
            id,
            addr,
            leads,
            votes,
            behind,
        } = info;
        Self {
            id,
            addr,
            leads,
            votes,
            behind,
        }
    }
}
