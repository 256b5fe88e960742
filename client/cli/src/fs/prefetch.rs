//! `millpond fs prefetch`: have files in a cache before they are read.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use millpond_client::{ClientError, FileSystem};
use millpond_process::UsageError;
use serde::Serialize;

use super::walk::walk;
use crate::connect::{ClusterArgs, normal_path};
use crate::mounted::OurMount;
use crate::output::{self, OutputArgs, human};

/// Fetches files before they are read.
///
/// PATHs on a mount of this host become its hint list: it fetches them in the order given
/// (directories with all below them), staying a bounded window ahead of what is opened there.
/// Other PATHs are of the cluster's namespace: each file is read once, so that the cache nodes
/// hold it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond fs prefetch /mnt/data/train
  millpond fs prefetch /mnt/data --list epoch-3.txt
  millpond fs prefetch /data/train --coordinator 10.0.0.1:7000")]
pub(crate) struct PrefetchArgs {
    /// Files and directories of one mount, or of the namespace
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// For the mount that PATH is in: a file of paths in the order in which they will be read,
    /// one to a line, or - for standard input
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// The mount that fetches; none when the cluster's nodes do.
    mount: Option<PathBuf>,
    /// Paths handed over, or files read.
    files: u64,
    /// Bytes read; none where a mount goes on by itself.
    bytes: Option<u64>,
}

/// Files that are read at a time.
const AT_ONCE: usize = 8;

/// Bytes of one read.
const READ: u32 = 1 << 20;

pub(super) async fn run(args: PrefetchArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let report = match mount_of(&args.paths)? {
        Some(mount) => hand_over(&mount, &args)?,
        None if args.list.is_some() => {
            return Err(UsageError::new("--list is for a mount: name the mount as PATH").into());
        }
        None => read_all(&args.paths, cluster).await?,
    };
    if args.output.is_json() {
        return output::json(&report);
    }
    let files = report.files;
    output::line(match (&report.mount, report.bytes) {
        (Some(mount), _) => format!(
            "{files} paths handed to the mount at {}; `millpond stats` shows how far it is",
            mount.display()
        ),
        (None, bytes) => format!("{files} files, {}", human(bytes.unwrap_or_default())),
    })?;
    Ok(())
}

/// The mount that all `paths` lie in, if they lie in one.
fn mount_of(paths: &[PathBuf]) -> anyhow::Result<Option<OurMount>> {
    let mut mounts = paths
        .iter()
        .map(|path| Ok(OurMount::of(path)?.map(|(mount, _)| mount)));
    let first: Option<OurMount> = mounts
        .next()
        .transpose()
        .map_err(anyhow::Error::from)?
        .flatten();
    for other in mounts {
        let other: Result<_, std::io::Error> = other;
        if other? != first {
            bail!("the paths are not all in one mount");
        }
    }
    Ok(first)
}

fn hand_over(mount: &OurMount, args: &PrefetchArgs) -> anyhow::Result<Report> {
    let list = match &args.list {
        Some(file) => read_list(file)?,
        None => {
            let mut list = Vec::new();
            for path in &args.paths {
                add_all(&path.canonicalize()?, &mut list)?;
            }
            list
        }
    };
    mount.prefetch(&list)?;
    Ok(Report {
        mount: Some(mount.dir().to_owned()),
        files: list
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .count() as u64,
        bytes: None,
    })
}

fn read_list(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut list = Vec::new();
        std::io::stdin().lock().read_to_end(&mut list)?;
        return Ok(list);
    }
    std::fs::read(file).with_context(|| format!("cannot read the list {}", file.display()))
}

/// Adds `path`, or all files below it in the order of its listings.
fn add_all(path: &Path, list: &mut Vec<u8>) -> anyhow::Result<()> {
    let kind = path
        .symlink_metadata()
        .with_context(|| format!("cannot look at {}", path.display()))?;
    if kind.is_file() {
        list.extend_from_slice(path.as_os_str().as_encoded_bytes());
        list.push(b'\n');
    } else if kind.is_dir() {
        let entries = path
            .read_dir()
            .with_context(|| format!("cannot list {}", path.display()))?;
        for entry in entries {
            add_all(&entry?.path(), list)?;
        }
    }
    Ok(())
}

async fn read_all(paths: &[PathBuf], cluster: &ClusterArgs) -> anyhow::Result<Report> {
    let texts = paths.iter().map(|path| {
        let text = path.to_str();
        text.ok_or_else(|| UsageError(format!("{} is not UTF-8", path.display())))
    });
    let paths: Vec<String> = texts
        .map(|text| normal_path(text?))
        .collect::<Result<_, _>>()?;
    let session = cluster.file_system().await?;
    let mut report = Report::default();
    let mut bytes = 0;
    let mut result = Ok(());
    for path in &paths {
        match read_below(session.fs(), path).await {
            Ok((more_files, more_bytes)) => {
                report.files += more_files;
                bytes += more_bytes;
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    session.close().await;
    result?;
    report.bytes = Some(bytes);
    Ok(report)
}

/// Reads the file `path`, or all files below it; their number and bytes.
async fn read_below(fs: &FileSystem, path: &str) -> Result<(u64, u64), ClientError> {
    if !fs.stat(path).await?.is_dir() {
        return Ok((1, read(fs.clone(), path.to_owned()).await?));
    }
    let files = walk(fs, path)
        .try_filter_map(|(path, attr)| async move { Ok(attr.is_file().then_some(path)) });
    let read = files
        .map_ok(|path| read(fs.clone(), path))
        .try_buffer_unordered(AT_ONCE);
    read.try_fold((0, 0), |(files, bytes), more| async move {
        Ok((files + 1, bytes + more))
    })
    .await
}

/// Reads all of a file and lets it go.
async fn read(fs: FileSystem, path: String) -> Result<u64, ClientError> {
    let file = fs.open(&path).await?;
    let size = file.attr().size;
    let offsets = (0..size).step_by(READ as usize);
    let reads = stream::iter(offsets)
        .map(|offset| file.read(offset, READ))
        .buffered(AT_ONCE);
    reads.try_for_each(|_| async { Ok(()) }).await?;
    Ok(size)
}
