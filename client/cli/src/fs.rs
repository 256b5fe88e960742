//! `millpond fs`: look at files without a mount.

mod cat;
mod cp;
mod du;
mod entry;
mod find;
mod glob;
mod ls;
mod prefetch;
mod refresh;
mod stat;
mod walk;

use clap::Subcommand;

use crate::connect::ClusterArgs;

/// Looks at files without a mount, in a cluster or, with --uri, straight in a store.
#[derive(Debug, clap::Args)]
pub(crate) struct FsArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(subcommand)]
    command: FsCommand,
}

#[derive(Debug, Subcommand)]
enum FsCommand {
    Ls(ls::LsArgs),
    Stat(stat::StatArgs),
    Cat(cat::CatArgs),
    Cp(cp::CpArgs),
    Du(du::DuArgs),
    Find(find::FindArgs),
    Prefetch(prefetch::PrefetchArgs),
    Refresh(refresh::RefreshArgs),
}

pub(crate) async fn run(args: FsArgs) -> anyhow::Result<()> {
    let cluster = &args.cluster;
    match args.command {
        FsCommand::Ls(args) => ls::run(args, cluster).await,
        FsCommand::Stat(args) => stat::run(args, cluster).await,
        FsCommand::Cat(args) => cat::run(args, cluster).await,
        FsCommand::Cp(args) => cp::run(args, cluster).await,
        FsCommand::Du(args) => du::run(args, cluster).await,
        FsCommand::Find(args) => find::run(args, cluster).await,
        FsCommand::Prefetch(args) => prefetch::run(args, cluster).await,
        FsCommand::Refresh(args) => refresh::run(args, cluster).await,
    }
}
