//! `millpond fs`: look at files, and change them, without a mount.

mod cat;
mod change;
mod cp;
mod du;
mod entry;
mod find;
mod glob;
mod ls;
mod prefetch;
mod put;
mod refresh;
mod stat;
mod walk;

use clap::Subcommand;

use self::change::Place;
use crate::connect::ClusterArgs;

/// Looks at files and changes them without a mount, in a cluster or, with --uri, straight in a store.
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
    #[command(visible_alias = "get")]
    Cp(cp::CpArgs),
    Put(put::PutArgs),
    Rm(change::RmArgs),
    Mv(change::MvArgs),
    Mkdir(change::MkdirArgs),
    Touch(change::TouchArgs),
    /// Makes what comes from standard input the content of a file
    Write(change::WriteArgs),
    /// Adds what comes from standard input to a file
    Append(change::WriteArgs),
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
        FsCommand::Put(args) => put::run(args, cluster).await,
        FsCommand::Rm(args) => change::rm(args, cluster).await,
        FsCommand::Mv(args) => change::mv(args, cluster).await,
        FsCommand::Mkdir(args) => change::mkdir(args, cluster).await,
        FsCommand::Touch(args) => change::touch(args, cluster).await,
        FsCommand::Write(args) => change::write(args, Place::Instead, cluster).await,
        FsCommand::Append(args) => change::write(args, Place::Behind, cluster).await,
        FsCommand::Du(args) => du::run(args, cluster).await,
        FsCommand::Find(args) => find::run(args, cluster).await,
        FsCommand::Prefetch(args) => prefetch::run(args, cluster).await,
        FsCommand::Refresh(args) => refresh::run(args, cluster).await,
    }
}
