//! `millpond fs prefetch`: have files in a cache before they are read.

use std::cell::Cell;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use millpond_client::{ClientError, FileSystem, Loaded};
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
/// Other PATHs are of the cluster's namespace: their cache nodes fetch them, and the command ends
/// when they have them.
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
    /// Paths handed over, or files loaded.
    files: u64,
    /// What loading came to; none where a mount goes on by itself.
    #[serde(flatten)]
    loaded: Option<Loaded>,
}

/// Files that are loaded at a time.
const AT_ONCE: usize = 8;

pub(super) async fn run(args: PrefetchArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let report = match mount_of(&args.paths)? {
        Some(mount) => hand_over(&mount, &args)?,
        None if args.list.is_some() => {
            return Err(UsageError::new("--list is for a mount: name the mount as PATH").into());
        }
        None => load_all(&args.paths, cluster).await?,
    };
    if args.output.is_json() {
        return output::json(&report);
    }
    let files = report.files;
    output::line(match (&report.mount, report.loaded) {
        (Some(mount), _) => format!(
            "{files} paths handed to the mount at {}; `millpond stats` shows how far it is",
            mount.display()
        ),
        (None, loaded) => describe(files, &loaded.unwrap_or_default()),
    })?;
    Ok(())
}

fn describe(files: u64, loaded: &Loaded) -> String {
    let Loaded {
        bytes,
        blocks,
        filled,
        not_kept,
    } = loaded;
    let text = format!(
        "{files} files, {}: {blocks} blocks, {filled} of them fetched",
        human(*bytes)
    );
    match not_kept {
        0 => text,
        _ => format!("{text}, {not_kept} not kept: the cache nodes have no room for them"),
    }
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
        loaded: None,
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

async fn load_all(paths: &[PathBuf], cluster: &ClusterArgs) -> anyhow::Result<Report> {
    let texts = paths.iter().map(|path| {
        let text = path.to_str();
        text.ok_or_else(|| UsageError(format!("{} is not UTF-8", path.display())))
    });
    let paths: Vec<String> = texts
        .map(|text| normal_path(text?))
        .collect::<Result<_, _>>()?;
    let session = cluster.file_system().await?;
    let job = Job::new(session.fs())?;
    let mut result = Ok(());
    for path in &paths {
        result = job.below(path).await;
        if result.is_err() {
            break;
        }
    }
    let report = job.end();
    session.close().await;
    result?;
    Ok(report)
}

/// Files that are loaded, with a line that says how far it is.
struct Job<'a> {
    fs: &'a FileSystem,
    line: ProgressBar,
    done: Cell<(u64, Loaded)>,
}

impl<'a> Job<'a> {
    fn new(fs: &'a FileSystem) -> anyhow::Result<Self> {
        let template = "{spinner} {elapsed} {binary_bytes} {binary_bytes_per_sec} {wide_msg}";
        let line = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(template)?);
        line.enable_steady_tick(Duration::from_millis(200));
        Ok(Self {
            fs,
            line,
            done: Cell::default(),
        })
    }

    /// Loads the file `path`, or all files below it.
    async fn below(&self, path: &str) -> Result<(), ClientError> {
        if !self.fs.stat(path).await?.is_dir() {
            return self.file(path.to_owned()).await;
        }
        walk(self.fs, path)
            .try_filter_map(|(path, attr)| async move { Ok(attr.is_file().then_some(path)) })
            .try_for_each_concurrent(AT_ONCE, |path| self.file(path))
            .await
    }

    async fn file(&self, path: String) -> Result<(), ClientError> {
        let loaded = self.fs.load(&path).await?;
        let (files, sum) = self.done.get();
        self.done.set((files + 1, sum.and(loaded)));
        self.line.inc(loaded.bytes);
        self.line
            .set_message(format!("{} files, {path}", files + 1));
        Ok(())
    }

    fn end(&self) -> Report {
        self.line.finish_and_clear();
        let (files, loaded) = self.done.get();
        Report {
            mount: None,
            files,
            loaded: Some(loaded),
        }
    }
}
