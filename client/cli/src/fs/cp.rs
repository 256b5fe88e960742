//! `millpond fs cp`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use millpond_client::{Attr, FileKind, FileSystem};
use millpond_process::UsageError;
use serde::Serialize;
use tempfile::NamedTempFile;

use super::walk::walk;
use crate::connect::{ClusterArgs, TargetArgs, normal_path};
use crate::output::{self, OutputArgs, human};

/// What is asked for at a time.
const PIECE: u32 = 4 << 20;

/// Files that are copied at once.
const PARALLEL: usize = 8;

/// Copies a file, or with -r a directory, to this machine.
///
/// A file appears under its name when it is whole: an interrupted copy leaves nothing behind
/// but the files that were finished.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond fs cp /data/model.bin /tmp/
  millpond fs cp -r /data/train ./train
  millpond fs cp /model.bin . --uri s3://bucket/prefix")]
pub(crate) struct CpArgs {
    /// A file or directory
    path: String,
    /// Where to; into it if it is a directory
    local: PathBuf,
    /// Copy directories with all they hold
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Default, Serialize)]
struct Copied {
    to: String,
    files: u64,
    bytes: u64,
}

pub(super) async fn run(args: CpArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let path = normal_path(&args.path)?;
    let session = args.target.open(cluster).await?;
    let result = copy(session.fs(), &path, &args.local, args.recursive).await;
    session.close().await;
    let copied = result?;
    if args.output.is_json() {
        return output::json(&copied);
    }
    let Copied { to, files, bytes } = copied;
    Ok(output::line(format!(
        "copied {files} files, {} to {to}",
        human(bytes)
    ))?)
}

async fn copy(
    fs: &FileSystem,
    path: &str,
    local: &Path,
    recursive: bool,
) -> anyhow::Result<Copied> {
    let attr = fs.stat(path).await?;
    let to = destination(path, local)?;
    if attr.is_dir() && !recursive {
        bail!(UsageError(format!(
            "{path} is a directory: copy it with -r"
        )));
    }
    let job = Job {
        fs,
        bar: ProgressBar::new(0).with_style(style()?),
    };
    let mut copied = if attr.is_dir() {
        job.directory(path, &to).await?
    } else {
        job.one(path, &attr, &to).await?
    };
    job.bar.finish_and_clear();
    copied.to = to.display().to_string();
    Ok(copied)
}

/// `local`, or the place in it that has the name of `path` if it is a directory.
fn destination(path: &str, local: &Path) -> anyhow::Result<PathBuf> {
    if !local.is_dir() {
        let parent = local.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(parent) = parent.filter(|p| !p.is_dir()) {
            bail!(
                "cannot copy to {}: {} is no directory",
                local.display(),
                parent.display()
            );
        }
        return Ok(local.to_owned());
    }
    Ok(match path.rsplit('/').next() {
        Some("") | None => local.to_owned(),
        Some(name) => local.join(name),
    })
}

/// How progress is shown.
pub(super) fn style() -> anyhow::Result<ProgressStyle> {
    let template = "{bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {wide_msg}";
    Ok(ProgressStyle::with_template(template)?)
}

struct Job<'a> {
    fs: &'a FileSystem,
    bar: ProgressBar,
}

impl Job<'_> {
    /// Directories are made as the walk meets them, files copied several at once.
    async fn directory(&self, from: &str, to: &Path) -> anyhow::Result<Copied> {
        make_dir(to).await?;
        let mut copied = Copied::default();
        let mut found = Box::pin(walk(self.fs, from));
        let mut copies = FuturesUnordered::new();
        while let Some((path, attr)) = found.try_next().await? {
            let below = path
                .strip_prefix(from)
                .unwrap_or(&path)
                .trim_start_matches('/');
            let target = to.join(below);
            if attr.is_dir() {
                make_dir(&target).await?;
                continue;
            }
            copies.push(async move { self.one(&path, &attr, &target).await });
            if copies.len() >= PARALLEL
                && let Some(done) = copies.next().await
            {
                copied.add(&done?);
            }
        }
        while let Some(done) = copies.next().await {
            copied.add(&done?);
        }
        Ok(copied)
    }

    async fn one(&self, path: &str, attr: &Attr, to: &Path) -> anyhow::Result<Copied> {
        let bytes = match attr.kind {
            FileKind::Symlink => self.link(path, to).await?,
            FileKind::File => self.file(path, to).await?,
            FileKind::Directory => bail!("{path} became a directory while it was copied"),
        };
        Ok(Copied {
            files: 1,
            bytes,
            ..Copied::default()
        })
    }

    async fn link(&self, path: &str, to: &Path) -> anyhow::Result<u64> {
        let target = self.fs.read_link(path).await?;
        let cannot = || format!("cannot make the link {}", to.display());
        symlink(target, to).with_context(cannot)?;
        Ok(0)
    }

    async fn file(&self, path: &str, to: &Path) -> anyhow::Result<u64> {
        let handle = self.fs.open(path).await?;
        let size = handle.attr().size;
        self.bar.inc_length(size);
        self.bar.set_message(path.to_owned());
        let mut writer = Writer::create(to).await?;
        let mut at = 0;
        while at < size {
            let data = handle
                .read(at, u64::from(PIECE).min(size - at) as u32)
                .await?;
            anyhow::ensure!(
                !data.is_empty(),
                "{path} ended early, at {at} of {size} bytes"
            );
            at += data.len() as u64;
            self.bar.inc(data.len() as u64);
            writer = writer.write(data).await?;
        }
        writer.finish(handle.attr().clone()).await?;
        Ok(size)
    }
}

/// A file that has its name only when it is whole. Disk work happens off the runtime.
struct Writer {
    aside: NamedTempFile,
    to: PathBuf,
}

impl Writer {
    async fn create(to: &Path) -> anyhow::Result<Self> {
        let to = to.to_owned();
        blocking(move || {
            let dir = to.parent().filter(|p| !p.as_os_str().is_empty());
            let dir = dir.unwrap_or_else(|| Path::new(".")).to_owned();
            let aside = tempfile::Builder::new()
                .prefix(".millpond-")
                .tempfile_in(&dir)
                .with_context(|| format!("cannot write in {}", dir.display()))?;
            Ok(Self { aside, to })
        })
        .await
    }

    async fn write(mut self, data: Bytes) -> anyhow::Result<Self> {
        blocking(move || {
            let cannot = || format!("cannot write {}", self.to.display());
            std::io::Write::write_all(&mut self.aside, &data).with_context(cannot)?;
            Ok(self)
        })
        .await
    }

    async fn finish(self, attr: Attr) -> anyhow::Result<()> {
        blocking(move || {
            let Self { aside, to } = self;
            let cannot = || format!("cannot finish {}", to.display());
            let file = aside.as_file();
            if let Some(mtime) = attr.mtime {
                file.set_modified(mtime).with_context(cannot)?;
            }
            let mode =
                std::os::unix::fs::PermissionsExt::from_mode(attr.mode.unwrap_or(0o644) & 0o777);
            file.set_permissions(mode).with_context(cannot)?;
            aside.persist(&to).with_context(cannot)?;
            Ok(())
        })
        .await
    }
}

async fn make_dir(dir: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot make the directory {}", dir.display());
    match tokio::fs::create_dir(dir).await {
        Err(_) if dir.is_dir() => Ok(()),
        result => result.with_context(cannot),
    }
}

/// Runs `work` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

impl Copied {
    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_as_target_takes_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str, to: &Path| destination(path, to).unwrap();
        assert_eq!(at("/data/a.bin", dir.path()), dir.path().join("a.bin"));
        assert_eq!(at("/", dir.path()), dir.path());
        assert_eq!(
            at("/data/a.bin", &dir.path().join("b")),
            dir.path().join("b")
        );
        assert!(destination("/a", &dir.path().join("no/such")).is_err());
    }

    #[tokio::test]
    async fn a_copy_appears_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a");
        let writer = Writer::create(&to).await.unwrap();
        let writer = writer.write(Bytes::from_static(b"half")).await.unwrap();
        assert!(!to.exists());
        drop(writer);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
