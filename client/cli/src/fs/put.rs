//! `millpond fs put`.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use indicatif::ProgressBar;
use millpond_client::{AttributeChange, Attributes, ClientError, FileSystem, Writer};
use millpond_process::UsageError;
use millpond_proto::{ErrorKind, Refusal};
use serde::Serialize;

use super::cp::{blocking, style};
use super::walk::join;
use crate::connect::{ClusterArgs, TargetArgs, normal_path};
use crate::output::{self, OutputArgs, human};

/// What is sent at a time.
const PIECE: u64 = 4 << 20;

/// Files that are sent at once.
const PARALLEL: usize = 8;

/// Copies files, or with -r directories, from this machine.
///
/// A file is seen when it is whole: an interrupted copy leaves nothing behind but the files that
/// were finished.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond fs put model.bin /data/
  millpond fs put -r ./train /data/train
  millpond fs put a.txt b.txt /notes --uri s3://bucket/prefix")]
pub(crate) struct PutArgs {
    /// Files and directories of this machine, and where to; into it if it is a directory
    #[arg(required = true, num_args = 2.., value_name = "LOCAL… PATH")]
    paths: Vec<String>,
    /// Copy directories with all they hold
    #[arg(short, long)]
    recursive: bool,
    /// Leave out files that are there already with the same size, and no older
    #[arg(long)]
    update: bool,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Default, Serialize)]
struct Sent {
    to: String,
    files: u64,
    bytes: u64,
    left_out: u64,
}

pub(super) async fn run(mut args: PutArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let to = normal_path(&args.paths.pop().unwrap_or_default())?;
    let session = args.target.open(cluster).await?;
    let job = Job {
        fs: session.fs(),
        bar: ProgressBar::new(0).with_style(style()?),
        update: args.update,
    };
    let result = job.all(&args.paths, &to, args.recursive).await;
    job.bar.finish_and_clear();
    session.close().await;
    let sent = result?;
    if args.output.is_json() {
        return output::json(&sent);
    }
    let Sent {
        to,
        files,
        bytes,
        left_out,
    } = sent;
    let rest = match left_out {
        0 => String::new(),
        left_out => format!(", left out {left_out}"),
    };
    Ok(output::line(format!(
        "put {files} files, {}{rest} to {to}",
        human(bytes)
    ))?)
}

struct Job<'a> {
    fs: &'a FileSystem,
    bar: ProgressBar,
    update: bool,
}

/// One file of this machine, and where it goes.
struct Item {
    from: PathBuf,
    to: String,
    metadata: Metadata,
}

impl Job<'_> {
    async fn all(&self, from: &[String], to: &str, recursive: bool) -> anyhow::Result<Sent> {
        let into = match self.fs.stat(to).await {
            Ok(attr) => attr.is_dir(),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error.into()),
        };
        if from.len() > 1 && !into {
            bail!(UsageError(format!("{to} is not a directory")));
        }
        let mut sent = Sent {
            to: to.to_owned(),
            ..Sent::default()
        };
        for from in from.iter().map(Path::new) {
            let target = match (into, from.file_name()) {
                (true, Some(name)) => join(to, text_of(Path::new(name))?),
                _ => to.to_owned(),
            };
            self.tree(from, target, recursive, &mut sent).await?;
        }
        Ok(sent)
    }

    /// Directories are made as they are met, files sent several at once.
    async fn tree(
        &self,
        from: &Path,
        to: String,
        recursive: bool,
        sent: &mut Sent,
    ) -> anyhow::Result<()> {
        let mut open = vec![(from.to_owned(), to)];
        let mut sending = FuturesUnordered::new();
        while let Some((from, to)) = open.pop() {
            let cannot = || format!("cannot read {}", from.display());
            let metadata = tokio::fs::metadata(&from).await.with_context(cannot)?;
            if !metadata.is_dir() {
                let item = Item { from, to, metadata };
                sending.push(self.one(item));
                if sending.len() >= PARALLEL
                    && let Some(done) = sending.next().await
                {
                    sent.add(done?);
                }
                continue;
            }
            if !recursive {
                let from = from.display();
                bail!(UsageError(format!("{from} is a directory: put it with -r")));
            }
            make_dir(self.fs, &to).await?;
            let mut entries = tokio::fs::read_dir(&from).await.with_context(cannot)?;
            while let Some(entry) = entries.next_entry().await.with_context(cannot)? {
                let name = entry.file_name();
                open.push((entry.path(), join(&to, text_of(Path::new(&name))?)));
            }
        }
        while let Some(done) = sending.next().await {
            sent.add(done?);
        }
        Ok(())
    }

    /// How many bytes were sent; none if the file was there already.
    async fn one(&self, item: Item) -> anyhow::Result<Option<u64>> {
        let size = item.metadata.len();
        if self.update && self.is_there(&item).await? {
            return Ok(None);
        }
        self.bar.inc_length(size);
        self.bar.set_message(item.to.clone());
        let from = item.from.clone();
        let cannot = format!("cannot put {}", from.display());
        let file = blocking(move || Ok(File::open(from)?)).await;
        let file = Arc::new(file.context(cannot.clone())?);
        let attributes = Attributes {
            mode: Some(item.metadata.permissions().mode() & 0o777),
            mtime: item.metadata.modified().ok(),
            ..Attributes::default()
        };
        let writer = self.fs.create(&item.to, attributes.clone(), false).await?;
        if let Err(error) = self.send(&file, size, &writer).await {
            // What is there stays as it was.
            writer.discard();
            return Err(error.context(cannot));
        }
        writer.attributes_changed(&AttributeChange {
            mode: attributes.mode,
            mtime: attributes.mtime,
            ..AttributeChange::default()
        });
        writer.close().await?;
        Ok(Some(size))
    }

    async fn send(&self, file: &Arc<File>, size: u64, writer: &Writer) -> anyhow::Result<()> {
        writer.truncate(0).await?;
        let mut at = 0;
        while at < size {
            let len = PIECE.min(size - at);
            let reader = Arc::clone(file);
            let piece = blocking(move || {
                let mut piece = vec![0; len as usize];
                reader.read_exact_at(&mut piece, at)?;
                Ok(Bytes::from(piece))
            });
            writer.write(at, piece.await?).await?;
            at += len;
            self.bar.inc(len);
        }
        Ok(())
    }

    async fn is_there(&self, item: &Item) -> anyhow::Result<bool> {
        match self.fs.stat(&item.to).await {
            Ok(there) => {
                let is_younger = there.mtime.zip(item.metadata.modified().ok());
                Ok(there.size == item.metadata.len()
                    && is_younger.is_some_and(|(there, here)| there >= here))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes the directory, if it is not there.
pub(super) async fn make_dir(fs: &FileSystem, path: &str) -> Result<(), ClientError> {
    if path == "/" {
        return Ok(());
    }
    match fs.mkdir(path, &Attributes::default()).await {
        Err(error) if error.refusal() == Some(Refusal::Exists) && fs.stat(path).await?.is_dir() => {
            Ok(())
        }
        made => made.map(drop),
    }
}

fn text_of(name: &Path) -> anyhow::Result<&str> {
    name.to_str()
        .with_context(|| format!("the name {} is not UTF-8", name.display()))
}

impl Sent {
    fn add(&mut self, sent: Option<u64>) {
        match sent {
            Some(bytes) => {
                self.files += 1;
                self.bytes += bytes;
            }
            None => self.left_out += 1,
        }
    }
}
