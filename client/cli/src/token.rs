//! `millpond token`: what lets processes on other machines in.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use millpond_net::control::TokenInfo;
use serde::Serialize;

use crate::connect::ClusterArgs;
use crate::output::{self, OutputArgs};

/// Tokens, with which processes on other machines get their first certificate.
///
/// Run it on a coordinator's own host, or with a token for operators.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Create(CreateArgs),
    Ls(LsArgs),
    Revoke(RevokeArgs),
}

/// Makes a token and prints it: the only time that it is seen.
///
/// Whoever has it may use it until it ends: keep it in a file that others cannot read, and take
/// one with few uses and a short life.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond token create --role node >node.token
  millpond token create --role client --ttl 1h --uses 10 >client.token
  cache-node --join coord:7000 --token-file node.token")]
pub(crate) struct CreateArgs {
    /// What it makes of a process
    #[arg(long, value_enum)]
    role: Role,
    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// How many processes may use it [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What a token makes of a process.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// A cache node
    Node,
    /// A client: a mount, or a command that reads
    Client,
    /// Somebody who changes mounts, tokens and coordinators; not used up
    Operator,
}

/// Lists the tokens that are still good.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  millpond token ls")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Makes a token worthless. Certificates that it brought stay good.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  millpond token revoke 1f2e3d4c")]
pub(crate) struct RevokeArgs {
    /// Its name, as `millpond token ls` shows it: the second part of the token
    id: String,
}

/// A token as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    id: String,
    role: String,
    expires: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses_left: Option<u32>,
}

pub(crate) async fn run(args: TokenArgs) -> anyhow::Result<()> {
    let control = args.cluster.control()?;
    match args.command {
        TokenCommand::Create(args) => {
            let role = match args.role {
                Role::Node => "node",
                Role::Client => "client",
                Role::Operator => "operator",
            };
            let (token, info) = control.create_token(role, args.ttl, args.uses).await?;
            if args.output.is_json() {
                return output::json(&Row::new(info, Some(token)));
            }
            Ok(output::line(token)?)
        }
        TokenCommand::Ls(args) => {
            let tokens = control.tokens().await?;
            let rows: Vec<_> = tokens.into_iter().map(|t| Row::new(t, None)).collect();
            if args.output.is_json() {
                return output::json(&rows);
            }
            let mut table = output::table(&["id", "role", "expires", "uses left"]);
            table.add_rows(rows.into_iter().map(|row| {
                let uses = row
                    .uses_left
                    .map_or_else(|| "any".to_owned(), |n| n.to_string());
                [row.id, row.role, row.expires, uses]
            }));
            Ok(output::line(table.trim_fmt())?)
        }
        TokenCommand::Revoke(args) => {
            control.revoke_token(&args.id).await?;
            Ok(output::line(format!("revoked {}", args.id))?)
        }
    }
}

impl Row {
    fn new(info: TokenInfo, token: Option<String>) -> Self {
        Self {
            token,
            id: info.id,
            role: info.role,
            expires: humantime::format_rfc3339_seconds(info.expires).to_string(),
            uses_left: info.uses_left,
        }
    }
}
