//! `millpond fs du`.

use futures::TryStreamExt;
use millpond_client::FileSystem;
use serde::Serialize;

use super::entry::printable;
use super::walk::walk;
use crate::connect::{ClusterArgs, TargetArgs, normal_path};
use crate::output::{self, OutputArgs, human};

/// Sums up the sizes of the files below a path, per directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond fs du /data
  millpond fs du -s --bytes /data/train
  millpond fs du / --uri s3://bucket/prefix -o json")]
pub(crate) struct DuArgs {
    /// A directory or file
    #[arg(default_value = "/")]
    path: String,
    /// Only the sum of it all
    #[arg(short, long)]
    summarize: bool,
    /// Exact bytes instead of KiB, MiB, …
    #[arg(short, long)]
    bytes: bool,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What lies below one directory, at any depth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Usage {
    path: String,
    bytes: u64,
    files: u64,
    directories: u64,
}

pub(super) async fn run(args: DuArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let path = normal_path(&args.path)?;
    let session = args.target.open(cluster).await?;
    let usage = measure(session.fs(), &path).await;
    session.close().await;
    let mut usage = usage?;
    if args.summarize {
        usage.drain(..usage.len() - 1);
    }
    if args.output.is_json() {
        return output::json(&usage);
    }
    for row in usage {
        let size = if args.bytes {
            row.bytes.to_string()
        } else {
            human(row.bytes)
        };
        output::line(format!(
            "{size:>12}  {:>9} files  {}",
            row.files,
            printable(&row.path)
        ))?;
    }
    Ok(())
}

async fn measure(fs: &FileSystem, path: &str) -> anyhow::Result<Vec<Usage>> {
    let attr = fs.stat(path).await?;
    let mut sums = Sums::new(path);
    if attr.is_dir() {
        let mut found = Box::pin(walk(fs, path));
        while let Some((path, attr)) = found.try_next().await? {
            sums.add(&path, attr.is_dir(), attr.size);
        }
    } else {
        sums.add(path, false, attr.size);
    }
    Ok(sums.finish())
}

/// Adds up a walk that names each directory before what it holds.
struct Sums {
    /// The directories on the way down to where the walk is.
    open: Vec<Usage>,
    /// Those the walk has left: each after what it holds.
    done: Vec<Usage>,
}

impl Sums {
    fn new(root: &str) -> Self {
        Self {
            open: vec![Usage::of(root)],
            done: Vec::new(),
        }
    }

    fn add(&mut self, path: &str, is_dir: bool, size: u64) {
        while self.open.len() > 1 && !self.open.last().is_some_and(|u| u.holds(path)) {
            self.close();
        }
        if is_dir {
            self.open.push(Usage::of(path));
        } else if let Some(dir) = self.open.last_mut() {
            dir.files += 1;
            dir.bytes += size;
        }
    }

    fn close(&mut self) {
        let Some(left) = self.open.pop() else { return };
        if let Some(parent) = self.open.last_mut() {
            parent.bytes += left.bytes;
            parent.files += left.files;
            parent.directories += left.directories + 1;
        }
        self.done.push(left);
    }

    /// All directories, the root last.
    fn finish(mut self) -> Vec<Usage> {
        while !self.open.is_empty() {
            self.close();
        }
        self.done
    }
}

impl Usage {
    fn of(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            bytes: 0,
            files: 0,
            directories: 0,
        }
    }

    fn holds(&self, path: &str) -> bool {
        self.path == "/"
            || path
                .strip_prefix(&self.path)
                .is_some_and(|rest| rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_sum_up_what_lies_below_them() {
        let mut sums = Sums::new("/d");
        for (path, is_dir, size) in [
            ("/d/a", true, 0),
            ("/d/a/1", false, 10),
            ("/d/a/b", true, 0),
            ("/d/a/b/2", false, 5),
            ("/d/ab", false, 1),
            ("/d/c", true, 0),
        ] {
            sums.add(path, is_dir, size);
        }
        let rows: Vec<_> = sums
            .finish()
            .into_iter()
            .map(|u| (u.path, u.bytes, u.files, u.directories))
            .collect();
        let row = |path: &str, bytes, files, dirs| (path.to_owned(), bytes, files, dirs);
        let expected = [
            row("/d/a/b", 5, 1, 0),
            row("/d/a", 15, 2, 1),
            row("/d/c", 0, 0, 0),
            row("/d", 16, 3, 3),
        ];
        assert_eq!(rows, expected);
    }
}
