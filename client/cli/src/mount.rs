//! `millpond mount` and `millpond umount`.
//!
//! A mount is one process: it checks the mount point, opens the cluster's namespace or one
//! store, and only then makes the mount, so that a wrong address, key or bucket is an error
//! message and not a directory that fails.

mod background;
pub(crate) mod helper;
mod malloc;
mod memory;
mod settings;
mod source;
mod supervisor;
mod umount;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use millpond_client::{ClientError, FileSystem};
use millpond_fuse::{FuseMetrics, MountError, MountedFs, dead, preflight};
use millpond_process::logging::LogArgs;
use millpond_process::{
    AdminServer, Readiness, SharedRegistry, UsageError, announce_ready, logging, shared_registry,
    shutdown,
};
use millpond_proto::{Epoch, ErrorKind, MetadataMode};
use tokio_util::sync::CancellationToken;

use crate::options::{BudgetArgs, parse_option};
pub use memory::BESIDE_DATA;
pub(crate) use settings::Settings;
use source::{MountSource, parse_source};
pub(crate) use umount::{UmountArgs, run_umount};

/// Mount a cluster's namespace, or one store without a cluster, as a directory.
///
/// With a store as SOURCE the mount stands alone: it reads that store directly and caches in
/// its own memory and, with --cache-dir, on its own disk. With HOST:PORT/PATH it shows that
/// directory of the cluster's namespace, without SOURCE all of it, and reads through the cache
/// nodes.
#[derive(Debug, Clone, clap::Args)]
#[command(allow_missing_positional = true, after_help = EXAMPLES)]
pub(crate) struct MountArgs {
    /// A store to mount alone: s3://bucket/prefix, file:///dir, …; or coordinators of a
    /// cluster and a directory of its namespace: HOST:PORT[,HOST:PORT…][/PATH]
    #[arg(value_name = "SOURCE", conflicts_with = "coordinator", value_parser = parse_source)]
    source: Option<MountSource>,
    /// Where to mount: an empty directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Coordinators of the cluster, separated by commas [default: 127.0.0.1:7000]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    coordinator: Vec<String>,
    /// What the environment says; neither SOURCE nor --coordinator is in its way
    #[arg(long, hide = true, env = "MILLPOND_COORDINATOR", value_delimiter = ',')]
    coordinator_of_environment: Vec<String>,
    /// File with a token for clients (millpond token create), for coordinators on other machines;
    /// needed for the first mount with a --state-dir
    #[arg(long, value_name = "FILE", env = "MILLPOND_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// TOML file with a `[mount]` section; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An option of SOURCE's driver, like endpoint=http://host:9000; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", requires = "source", value_parser = parse_option)]
    options: Vec<(String, String)>,
    #[command(flatten)]
    budget: BudgetArgs,
    /// Memory of the whole process, which may exceed it by 64MiB for a moment [default: a
    /// quarter of the host's or the control group's, at least 256MiB]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// Also cache on disk, in this directory
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Disk for --cache-dir [default: 10GiB]
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<String>,
    /// Whether the kernel reads files that are whole in --cache-dir itself: auto (where it can
    /// and this process has the right to it), or off [default: auto]
    #[arg(long, value_name = "auto|off")]
    passthrough: Option<String>,
    /// Whether blocks of cache nodes on this host are read through their Unix sockets: auto
    /// (where they let this user in), or off: over the network [default: auto]
    #[arg(long, value_name = "auto|off")]
    local_socket: Option<String>,
    /// Directory for the certificate and the last view of the cluster [default: one for each
    /// mount point, below /var/lib/millpond/mount or ~/.local/share/millpond/mount]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Owner of files whose store knows none [default: you]
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// Group of files whose store knows none [default: yours]
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,
    /// Mode of files whose store knows none, octal [default: 0644]
    #[arg(long, value_name = "MODE")]
    file_mode: Option<String>,
    /// Mode of directories whose store knows none, octal [default: 0755]
    #[arg(long, value_name = "MODE")]
    dir_mode: Option<String>,
    /// Bits to take away from these modes, octal [default: 0]
    #[arg(long, value_name = "MODE")]
    umask: Option<String>,
    /// Let other users in, as far as modes allow (needs root, or user_allow_other in
    /// /etc/fuse.conf)
    #[arg(long)]
    allow_other: bool,
    /// Refuse every change (EROFS). Without it what the stores let this mount write is
    /// written; a mount all of whose stores can only be read is read-only anyway
    #[arg(long)]
    read_only: bool,
    /// Directory for what is written and not in a store yet [default: the system's for temporary
    /// files]
    #[arg(long, value_name = "DIR")]
    staging_dir: Option<PathBuf>,
    /// The most that is staged there [default: 16GiB]
    #[arg(long, value_name = "SIZE")]
    staging_size: Option<String>,
    /// Keep a file that was replaced in its store since it was opened for writing: who closes
    /// later gets ESTALE. Without it what is closed last is what is there
    #[arg(long)]
    if_match: bool,
    /// The most files and directories below a directory that is renamed where the store has to
    /// copy each; a larger one is refused (EXDEV, on which `mv` copies by itself) [default:
    /// 100000]
    #[arg(long, value_name = "COUNT")]
    rename_limit: Option<u64>,
    /// How long attributes and listings are believed, on mounts that do not say it themselves:
    /// strict (each open and stat asks the store), ttl, immutable (until `fs refresh`)
    /// [default: ttl]
    #[arg(long, value_name = "MODE")]
    metadata: Option<MetadataMode>,
    /// How long a change made in the store may stay unseen in mode ttl [default: 1s]
    #[arg(long, value_name = "DURATION")]
    metadata_ttl: Option<String>,
    /// Return when the mount is up; it goes on in the background, and is made again should its
    /// process be killed
    #[arg(long)]
    background: bool,
    /// Where /metrics, /healthz and /readyz are served, or none [default: none]
    #[arg(long, value_name = "HOST:PORT|none")]
    admin: Option<String>,
    /// Print the settings as TOML and exit
    #[arg(long)]
    print_config: bool,
    /// Set in the process that supervises a mount in the background.
    #[arg(long, hide = true)]
    detached: bool,
    /// Set in the process that is that mount.
    #[arg(long, hide = true)]
    supervised: bool,
    /// Set in the process that takes its place, should there still be one to take.
    #[arg(long, hide = true)]
    supervised_again: bool,
    #[command(flatten)]
    log: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  A bucket, without a cluster, cached in memory and on disk:
    millpond mount s3://bucket/prefix /mnt/data --option region=eu-central-1 \\
        --cache-dir /var/cache/millpond --cache-size 100GiB
  An S3-compatible store; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY:
    millpond mount s3://bucket /mnt/data --option endpoint=http://minio:9000
  A local directory:
    millpond mount file:///srv/dataset /mnt/data
  The directory /train of a cluster's namespace:
    millpond mount coord:7000/train /mnt/train
  A cluster's namespace, for all users, in the background:
    millpond mount --coordinator coord:7000 /mnt/data --allow-other --background
  Take it away again:
    millpond umount /mnt/data";

/// Mounts, and stays until a signal comes or the mount is taken away.
pub(crate) async fn run(args: MountArgs) -> anyhow::Result<()> {
    let settings = Settings::load(&args)?;
    if args.print_config {
        return settings.print();
    }
    let mut plan = settings.plan()?;
    plan.show(&args)?;
    if args.background && !args.detached {
        return background::start(&args.dir, &plan.state_dir(&args.dir)).await;
    }
    if args.detached {
        background::detach();
        logging::init(settings.log())?;
        return supervisor::run(&args.dir).await;
    }
    malloc::limit_arenas();
    logging::init(settings.log())?;
    let stop = shutdown::token();
    let dir = check_mount_point(&args.dir)?;
    preflight::check_device().map_err(mount_error)?;

    let registry = shared_registry();
    let readiness = Readiness::new("not mounted yet");
    let admin = match plan.admin {
        Some(addr) => {
            let registry = Arc::clone(&registry);
            Some(AdminServer::start(addr, registry, readiness.clone()).await?)
        }
        None => None,
    };
    let fs = tokio::select! {
        fs = open(&args, &plan, &dir, &registry) => fs?,
        () = stop.cancelled() => anyhow::bail!("interrupted before the mount was made"),
    };
    let admin_ref = admin.as_ref();
    let result = match clear_the_way(&args, &dir) {
        Ok(true) => serve(&fs, &plan, &dir, &registry, &readiness, admin_ref, &stop).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    readiness.set_not_ready("unmounted");
    fs.shutdown().await;
    if let Some(admin) = admin {
        admin.shutdown().await;
    }
    result
}

/// Whether something can be mounted at `dir`. What is left there of a mount whose process has
/// ended is no hindrance: it goes just before the new mount comes, so that the directory looks
/// empty as shortly as can be.
fn check_mount_point(dir: &Path) -> anyhow::Result<PathBuf> {
    match dead::dead_mount(dir)? {
        Some(place) => Ok(place),
        None => preflight::check_mount_point(dir).map_err(mount_error),
    }
}

/// Takes away what a killed process left at `dir`. False if there is nothing of that although
/// it is to be replaced: somebody has taken the mount away for good.
fn clear_the_way(args: &MountArgs, dir: &Path) -> anyhow::Result<bool> {
    let is_wanted = dead::clear(dir)? > 0 || !args.supervised_again;
    if !is_wanted {
        tracing::info!(mount = %dir.display(), "the mount was taken away; not making it again");
    }
    Ok(is_wanted)
}

/// Makes the mount and waits for its end.
async fn serve(
    fs: &FileSystem,
    plan: &settings::Plan,
    dir: &Path,
    registry: &SharedRegistry,
    readiness: &Readiness,
    admin: Option<&AdminServer>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut options = plan.mount.clone();
    if options.fs_name.is_empty() {
        options.fs_name = shown_name(fs);
    }
    if !options.read_only && !fs.can_be_written().await {
        tracing::info!("no store of this namespace can be written: mounting read-only");
        options.read_only = true;
        options.kernel_opens = plan.opens_if_read_only;
    }
    if !options.read_only {
        fs.finish_renames().await;
    }
    options.metrics = Some(Arc::new(FuseMetrics::new(&mut registry.lock())));
    let runtime = tokio::runtime::Handle::current();
    let mounted = MountedFs::mount(fs.clone(), runtime, dir, &options).map_err(mount_error)?;
    readiness.set_ready();
    let admin = admin.map_or_else(|| "none".to_owned(), |admin| admin.addr().to_string());
    announce_ready(&[("mount", dir.display().to_string()), ("admin", admin)]);
    tokio::select! {
        () = stop.cancelled() => {}
        () = mounted.ended() => tracing::info!("the mount was taken away from outside"),
    }
    mounted
        .unmount()
        .await
        .with_context(|| format!("the mount at {} stays behind", dir.display()))?;
    Ok(())
}

/// What `df` shows: the one store of a standalone mount, else the cluster.
fn shown_name(fs: &FileSystem) -> String {
    let view = fs.view();
    match view.mounts.iter().next() {
        Some(only) if view.epoch == Epoch(0) => only.ufs.clone(),
        _ => view.cluster.to_string(),
    }
}

/// Opens what is to be mounted. Fails here, before anything is mounted, when a store or a
/// cluster cannot be used.
async fn open(
    args: &MountArgs,
    plan: &settings::Plan,
    dir: &Path,
    registry: &SharedRegistry,
) -> anyhow::Result<FileSystem> {
    let mut client = plan.client.clone();
    client.rename_journal = Some(plan.state_dir(dir).join("renames"));
    if let Some(MountSource::Store(source)) = &args.source {
        let options = plan.options.clone();
        return FileSystem::standalone(source, options, client, registry)
            .await
            .map_err(|error| client_error(error, format!("cannot mount {source}")));
    }
    client.state_dir = plan.state_dir(dir);
    let coordinators = client.coordinators.join(", ");
    tracing::info!(coordinators, "joining the cluster");
    let connect = FileSystem::connect(client, registry);
    tokio::pin!(connect);
    let connected = tokio::select! {
        connected = &mut connect => connected,
        () = tokio::time::sleep(PATIENCE) => {
            tracing::warn!(
                coordinators,
                "no coordinator answers; falling back to the last view on disk, if there is one"
            );
            tokio::time::timeout(LAST_VIEW, connect).await.map_err(|_| {
                let waited = PATIENCE + LAST_VIEW;
                anyhow::anyhow!("no coordinator of {coordinators} answered within {waited:?}")
            })?
        }
    };
    let fs = connected.map_err(|error| {
        client_error(error, format!("cannot join the cluster of {coordinators}"))
    })?;
    check_subtree(&fs, &plan.mount.subtree).await?;
    Ok(fs)
}

/// What is mounted must be a directory.
async fn check_subtree(fs: &FileSystem, subtree: &str) -> anyhow::Result<()> {
    if subtree == "/" {
        return Ok(());
    }
    let attr = fs.stat(subtree).await;
    let attr = attr.map_err(|error| client_error(error, format!("cannot mount {subtree}")))?;
    if !attr.is_dir() {
        return Err(UsageError(format!("cannot mount {subtree}: it is no directory")).into());
    }
    Ok(())
}

/// A wrong setting or URI is wrong input; all else is a failure.
fn client_error(error: ClientError, doing: String) -> anyhow::Error {
    let wrong_input = error.kind() == ErrorKind::Invalid;
    let error = anyhow::Error::new(error).context(doing);
    if wrong_input {
        UsageError(millpond_process::run::chain(&error)).into()
    } else {
        error
    }
}

/// A mount point that cannot be used is a failure, not wrong usage; a setting is.
fn mount_error(error: MountError) -> anyhow::Error {
    match error {
        MountError::Setting { .. } => UsageError(error.to_string()).into(),
        error => error.into(),
    }
}

/// How long coordinators may take to answer before a mount says that none does.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the client may then take to start from its last view.
const LAST_VIEW: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: MountArgs,
    }

    fn parse(line: &[&str]) -> Result<MountArgs, clap::Error> {
        let line = ["mount"].iter().chain(line);
        Line::try_parse_from(line).map(|line| line.args)
    }

    #[test]
    fn the_source_may_be_left_out() {
        let alone = parse(&["s3://b/p", "/mnt"]).unwrap();
        let store = MountSource::Store("s3://b/p".to_owned());
        assert_eq!(alone.source, Some(store));
        assert_eq!(alone.dir, Path::new("/mnt"));
        let cluster = parse(&["--coordinator", "a:1,b:2", "/mnt"]).unwrap();
        assert_eq!((cluster.source, cluster.dir), (None, "/mnt".into()));
        assert_eq!(cluster.coordinator, ["a:1", "b:2"]);
    }

    #[test]
    fn a_source_and_a_cluster_exclude_each_other() {
        let error = parse(&["s3://b", "/mnt", "--coordinator", "a:1"]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict);
        let error = parse(&["/mnt", "--option", "region=x"]).unwrap_err();
        assert_eq!(
            error.kind(),
            clap::error::ErrorKind::MissingRequiredArgument
        );
    }
}
