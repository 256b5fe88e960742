//! `millpond fs ls`.

use futures::TryStreamExt;
use millpond_client::{Attr, FileSystem};

use super::entry::Row;
use super::walk::walk;
use crate::connect::{ClusterArgs, TargetArgs, normal_path};
use crate::output::{self, JsonArray, OutputArgs};

/// Lists a directory, page by page as the store gives it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond fs ls /data
  millpond fs ls -l -R /data/train
  millpond fs ls / --uri s3://bucket/prefix --option region=eu-central-1 -o json")]
pub(crate) struct LsArgs {
    /// A directory or file
    #[arg(default_value = "/")]
    path: String,
    /// One line each with kind, mode, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Also list what lies below, with whole paths
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(args: LsArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let path = normal_path(&args.path)?;
    let mut printer = Printer {
        long: args.long,
        json: args.output.is_json().then(JsonArray::default),
    };
    let session = args.target.open(cluster).await?;
    let result = list(session.fs(), &path, args.recursive, &mut printer).await;
    session.close().await;
    result?;
    printer.finish()
}

async fn list(
    fs: &FileSystem,
    path: &str,
    recursive: bool,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let attr = fs.stat(path).await?;
    if !attr.is_dir() {
        return printer.print(path, &attr);
    }
    if recursive {
        let mut found = Box::pin(walk(fs, path));
        while let Some((path, attr)) = found.try_next().await? {
            printer.print(&path, &attr)?;
        }
        return Ok(());
    }
    let mut pages = fs.list(path);
    while let Some(page) = pages.try_next().await? {
        for entry in page {
            printer.print(&entry.name, &entry.attr)?;
        }
    }
    Ok(())
}

struct Printer {
    long: bool,
    json: Option<JsonArray>,
}

impl Printer {
    fn print(&mut self, name: &str, attr: &Attr) -> anyhow::Result<()> {
        let row = Row::new(name, attr);
        match &mut self.json {
            Some(array) => array.push(&row)?,
            None if self.long => output::line(row.long())?,
            None => output::line(row.shown())?,
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        match self.json {
            Some(array) => Ok(array.finish()?),
            None => Ok(()),
        }
    }
}
