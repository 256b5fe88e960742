//! `millpond mounts`: the mount table.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::Subcommand;
use comfy_table::Table;
use millpond_process::UsageError;
use millpond_proto::{ErrorKind, Mount, MountPath};
use serde::Serialize;

use crate::connect::ClusterArgs;
use crate::options::{BudgetArgs, option_map, parse_option};
use crate::output::{self, OutputArgs};

/// The mount table: which store serves which path.
#[derive(Debug, clap::Args)]
pub(crate) struct MountsArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(subcommand)]
    command: MountsCommand,
}

#[derive(Debug, Subcommand)]
enum MountsCommand {
    Add(AddArgs),
    Ls(LsArgs),
    Show(ShowArgs),
    Update(UpdateArgs),
    Rm(RmArgs),
}

/// Lets a store serve a path of the namespace.
///
/// The store is listed once from here before it is added. Mounts may be nested, and one may be
/// at /; the longest path wins. Clients and nodes see it within a second.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond mounts add /data s3://bucket/prefix --option region=eu-central-1
  millpond mounts add /lake s3://lake --option endpoint=http://minio:9000 --option path_style=true
  millpond mounts add /shared s3://shared --ufs-bandwidth 500MB/s --ufs-requests 1000
  millpond mounts add /scratch file:///srv/scratch --coordinator 10.0.0.1:7000")]
pub(crate) struct AddArgs {
    /// Where it appears, like /data
    path: String,
    /// The store: s3://bucket/prefix, gs://…, az://…, http(s)://…, file:///dir
    uri: String,
    /// An option of the store's driver; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = parse_option)]
    options: Vec<(String, String)>,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// Do not list the store first: it cannot be reached from here, or does not exist yet
    #[arg(long)]
    no_check: bool,
}

/// Lists all mounts.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond mounts ls
  millpond mounts ls -o json")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Shows one mount with its options; secrets are hidden.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  millpond mounts show /data")]
pub(crate) struct ShowArgs {
    /// The mount's path
    path: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Changes the options of a mount: sets those given, removes those named by --unset, leaves
/// the others.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond mounts update /data --option endpoint=http://minio:9001
  millpond mounts update /data --ufs-bandwidth unlimited
  millpond mounts update /data --unset profile --unset region")]
pub(crate) struct UpdateArgs {
    /// The mount's path
    path: String,
    /// An option to set; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = parse_option)]
    options: Vec<(String, String)>,
    /// An option to remove; may be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Removes a mount. Its objects stay untouched in their store.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  millpond mounts rm /data")]
pub(crate) struct RmArgs {
    /// The mount's path
    path: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// A mount as it is printed: without secrets.
#[derive(Debug, Serialize)]
pub(crate) struct MountRow {
    id: u64,
    path: String,
    ufs: String,
    options: BTreeMap<String, String>,
}

pub(crate) async fn run(args: MountsArgs) -> anyhow::Result<()> {
    let cluster = &args.cluster;
    match args.command {
        MountsCommand::Add(args) => add(args, cluster).await,
        MountsCommand::Ls(args) => list(args, cluster).await,
        MountsCommand::Show(args) => show(args, cluster).await,
        MountsCommand::Update(args) => update(args, cluster).await,
        MountsCommand::Rm(args) => remove(args, cluster).await,
    }
}

async fn add(args: AddArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let path = mount_path(&args.path)?;
    let options = option_map(args.budget.and(&args.options))?;
    args.check.check(&args.uri, &options).await?;
    let mount = cluster
        .control()?
        .add_mount(&path, &args.uri, options)
        .await?;
    print_one(args.output, "added", &mount)
}

async fn list(args: LsArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let status = cluster.control()?.status().await?;
    let rows: Vec<_> = status.view.mounts.iter().map(MountRow::new).collect();
    if args.output.is_json() {
        return output::json(&rows);
    }
    if rows.is_empty() {
        return Ok(output::line(
            "no mounts; add one with `millpond mounts add PATH URI`",
        )?);
    }
    Ok(output::line(MountRow::table(&rows).trim_fmt())?)
}

async fn show(args: ShowArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let mount = find(&mount_path(&args.path)?, cluster).await?;
    let row = MountRow::new(&mount);
    if args.output.is_json() {
        return output::json(&row);
    }
    output::line(format!("path     {}", row.path))?;
    output::line(format!("store    {}", row.ufs))?;
    output::line(format!("id       {}", row.id))?;
    for (key, value) in &row.options {
        output::line(format!("option   {key}={value}"))?;
    }
    Ok(())
}

async fn update(args: UpdateArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let path = mount_path(&args.path)?;
    let set = option_map(args.budget.and(&args.options))?;
    if set.is_empty() && args.unset.is_empty() {
        return Err(UsageError::new("nothing to change: give --option or --unset").into());
    }
    if let Some(both) = args.unset.iter().find(|key| set.contains_key(*key)) {
        return Err(UsageError(format!("option {both} is both set and unset")).into());
    }
    let before = find(&path, cluster).await?;
    let mut options = before.options;
    for key in &args.unset {
        if options.remove(key).is_none() {
            let known = listed(options.keys().map(String::as_str));
            anyhow::bail!("{path} has no option {key}; its options: {known}");
        }
    }
    options.extend(set.clone());
    args.check.check(&before.ufs, &options).await?;
    let mount = cluster
        .control()?
        .update_mount(&path, set, args.unset)
        .await?;
    print_one(args.output, "updated", &mount)
}

async fn remove(args: RmArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let mount = cluster
        .control()?
        .remove_mount(&mount_path(&args.path)?)
        .await?;
    print_one(args.output, "removed", &mount)
}

fn print_one(args: OutputArgs, done: &str, mount: &Mount) -> anyhow::Result<()> {
    if args.is_json() {
        return output::json(&MountRow::new(mount));
    }
    Ok(output::line(format!(
        "{done} {} ({})",
        mount.path, mount.ufs
    ))?)
}

fn mount_path(text: &str) -> Result<MountPath, UsageError> {
    MountPath::parse(text).map_err(|error| UsageError(error.to_string()))
}

async fn find(path: &MountPath, cluster: &ClusterArgs) -> anyhow::Result<Mount> {
    let status = cluster.control()?.status().await?;
    let mounts = &status.view.mounts;
    if let Some(mount) = mounts.at(path) {
        return Ok(mount.clone());
    }
    let known = listed(mounts.iter().map(|m| m.path.as_str()));
    anyhow::bail!("no mount at {path}; mounted paths: {known}")
}

fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

impl CheckArgs {
    /// Opens the store with its `options` and lists its root, as a node would.
    async fn check(&self, uri: &str, options: &BTreeMap<String, String>) -> anyhow::Result<()> {
        let opened = millpond_ufs::open(uri, options, crate::connect::ufs_context()).await;
        let ufs = match opened {
            Ok(_) if self.no_check => return Ok(()),
            // A URI or option that makes no sense here makes none anywhere.
            Err(error) if self.no_check && error.kind() != ErrorKind::Invalid => return Ok(()),
            opened => opened.map_err(crate::connect::ufs_usage)?,
        };
        millpond_ufs::probe(ufs.as_ref())
            .await
            .context("the store cannot be used from here; --no-check adds it all the same")
    }
}

impl MountRow {
    pub(crate) fn new(mount: &Mount) -> Self {
        Self {
            id: mount.id.0,
            path: mount.path.to_string(),
            ufs: mount.ufs.clone(),
            options: mount.redacted_options(),
        }
    }

    pub(crate) fn table(rows: &[Self]) -> Table {
        let mut table = output::table(&["mount", "store", "options"]);
        table.add_rows(rows.iter().map(|row| {
            let options: Vec<_> = row
                .options
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            [row.path.clone(), row.ufs.clone(), options.join(" ")]
        }));
        table
    }
}

#[cfg(test)]
mod tests {
    use millpond_proto::MountId;

    use super::*;

    #[test]
    fn secrets_are_hidden_in_every_form() {
        let pairs = [("endpoint", "http://x"), ("secret_access_key", "hush")];
        let options = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let mount = Mount {
            id: MountId(1),
            path: MountPath::root(),
            ufs: "s3://b".to_owned(),
            options,
        };
        let row = MountRow::new(&mount);
        let json = serde_json::to_string(&row).unwrap();
        let table = MountRow::table(&[row]).trim_fmt();
        for text in [json, table] {
            assert!(
                !text.contains("hush") && text.contains("http://x"),
                "{text}"
            );
        }
    }
}
