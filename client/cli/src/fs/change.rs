//! `millpond fs rm`, `mv`, `mkdir`, `touch`, `write` and `append`.

use std::io::Read;
use std::time::SystemTime;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::TryStreamExt;
use millpond_client::{AttributeChange, Attributes, FileKind, FileSystem, RenameMode, Writer};
use millpond_process::UsageError;
use millpond_proto::ErrorKind;
use serde::Serialize;

use super::put::make_dir;
use super::walk::{join, walk};
use crate::connect::{ClusterArgs, TargetArgs, normal_path};
use crate::output::{self, OutputArgs, human};

/// Removes files, or with -r directories and all they hold.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond fs rm /data/old.bin
  millpond fs rm -r /data/old")]
pub(crate) struct RmArgs {
    /// Files and directories
    #[arg(required = true)]
    paths: Vec<String>,
    /// Remove directories with all they hold
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Renames a file or directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond fs mv /data/a.bin /data/b.bin
  millpond fs mv /data/a.bin /archive/")]
pub(crate) struct MvArgs {
    /// What is renamed
    from: String,
    /// Its new path; into it if it is a directory
    to: String,
    /// Replace nothing
    #[arg(short, long)]
    no_clobber: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Makes directories.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  millpond fs mkdir -p /data/runs/7")]
pub(crate) struct MkdirArgs {
    /// Directories
    #[arg(required = true)]
    paths: Vec<String>,
    /// Make those above them too, and say nothing of those that are there
    #[arg(short, long)]
    parents: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Makes empty files, or sets the time of those that are there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  millpond fs touch /data/runs/7/done")]
pub(crate) struct TouchArgs {
    /// Files
    #[arg(required = true)]
    paths: Vec<String>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Makes what comes from standard input the content of a file, or with `append` its end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tar c src | millpond fs write /backup/src.tar
  date | millpond fs append /notes/log --uri s3://bucket")]
pub(crate) struct WriteArgs {
    /// A file, which is made if there is none
    path: String,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Default, Serialize)]
struct Removed {
    files: u64,
    directories: u64,
}

pub(super) async fn rm(args: RmArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let paths = normal(&args.paths)?;
    let session = args.target.open(cluster).await?;
    let mut removed = Removed::default();
    let mut result = Ok(());
    for path in &paths {
        result = remove(session.fs(), path, args.recursive, &mut removed).await;
        if result.is_err() {
            break;
        }
    }
    session.close().await;
    result?;
    if args.output.is_json() {
        return output::json(&removed);
    }
    let Removed { files, directories } = removed;
    Ok(output::line(format!(
        "removed {files} files and {directories} directories"
    ))?)
}

async fn remove(
    fs: &FileSystem,
    path: &str,
    recursive: bool,
    removed: &mut Removed,
) -> anyhow::Result<()> {
    if !fs.stat(path).await?.is_dir() {
        fs.unlink(path).await?;
        removed.files += 1;
        return Ok(());
    }
    if !recursive {
        bail!(UsageError(format!(
            "{path} is a directory: remove it with -r"
        )));
    }
    // Each directory comes before what it holds.
    let mut directories = vec![path.to_owned()];
    let mut found = Box::pin(walk(fs, path));
    while let Some((path, attr)) = found.try_next().await? {
        if attr.kind == FileKind::Directory {
            directories.push(path);
        } else {
            fs.unlink(&path).await?;
            removed.files += 1;
        }
    }
    for directory in directories.iter().rev().filter(|path| *path != "/") {
        match fs.rmdir(directory).await {
            Ok(()) => removed.directories += 1,
            // One without a marker goes with its last file.
            Err(error) if error.kind() == ErrorKind::NotFound => removed.directories += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) async fn mv(args: MvArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let (from, mut to) = (normal_path(&args.from)?, normal_path(&args.to)?);
    let mode = match args.no_clobber {
        true => RenameMode::NoReplace,
        false => RenameMode::Replace,
    };
    let session = args.target.open(cluster).await?;
    let fs = session.fs();
    let name = from.rsplit('/').next().unwrap_or_default();
    let is_directory = fs.stat(&to).await.is_ok_and(|attr| attr.is_dir());
    if is_directory && to != from {
        to = join(&to, name);
    }
    let renamed = fs.rename(&from, &to, mode).await;
    session.close().await;
    Ok(renamed?)
}

pub(super) async fn mkdir(args: MkdirArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let paths = normal(&args.paths)?;
    let session = args.target.open(cluster).await?;
    let mut result = Ok(());
    for path in &paths {
        result = match args.parents {
            true => make_all(session.fs(), path).await,
            false => session
                .fs()
                .mkdir(path, &Attributes::default())
                .await
                .map(drop),
        };
        if result.is_err() {
            break;
        }
    }
    session.close().await;
    Ok(result?)
}

async fn make_all(fs: &FileSystem, path: &str) -> Result<(), millpond_client::ClientError> {
    for (at, _) in path.match_indices('/').skip(1) {
        make_dir(fs, &path[..at]).await?;
    }
    make_dir(fs, path).await
}

pub(super) async fn touch(args: TouchArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let paths = normal(&args.paths)?;
    let session = args.target.open(cluster).await?;
    let mut result = Ok(());
    for path in &paths {
        result = touched(session.fs(), path).await;
        if result.is_err() {
            break;
        }
    }
    session.close().await;
    result
}

async fn touched(fs: &FileSystem, path: &str) -> anyhow::Result<()> {
    match fs.stat(path).await {
        Ok(_) => {
            let change = AttributeChange {
                mtime: Some(SystemTime::now()),
                ..AttributeChange::default()
            };
            fs.set_attributes(path, &change).await?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs.make_file(path, &Attributes::default()).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Where what comes from standard input goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Instead,
    Behind,
}

pub(super) async fn write(
    args: WriteArgs,
    place: Place,
    cluster: &ClusterArgs,
) -> anyhow::Result<()> {
    let path = normal_path(&args.path)?;
    let session = args.target.open(cluster).await?;
    let result = write_to(session.fs(), &path, place).await;
    session.close().await;
    let bytes = result?;
    Ok(output::line(format!("wrote {} to {path}", human(bytes)))?)
}

async fn write_to(fs: &FileSystem, path: &str, place: Place) -> anyhow::Result<u64> {
    let writer = fs.create(path, Attributes::default(), false).await?;
    match take_input(&writer, place).await {
        Ok(bytes) => {
            writer.close().await?;
            Ok(bytes)
        }
        Err(error) => {
            // What is there stays as it was.
            writer.discard();
            Err(error)
        }
    }
}

async fn take_input(writer: &Writer, place: Place) -> anyhow::Result<u64> {
    if place == Place::Instead {
        writer.truncate(0).await?;
    }
    let mut taken = 0;
    loop {
        let piece = super::cp::blocking(|| {
            let mut piece = Vec::with_capacity(PIECE);
            let input = std::io::stdin().lock();
            Read::read_to_end(&mut input.take(PIECE as u64), &mut piece)?;
            Ok(Bytes::from(piece))
        });
        let piece = piece.await.context("cannot read standard input")?;
        if piece.is_empty() {
            return Ok(taken);
        }
        taken += piece.len() as u64;
        writer.append(piece).await?;
    }
}

fn normal(paths: &[String]) -> Result<Vec<String>, UsageError> {
    paths.iter().map(|path| normal_path(path)).collect()
}

/// What is read from standard input at a time.
const PIECE: usize = 4 << 20;
