//! `millpond fs find`.

use std::str::FromStr;

use clap::ValueEnum;
use futures::TryStreamExt;
use millpond_client::{Attr, FileKind, FileSystem};
use millpond_process::config::BadSize;
use millpond_process::{Size, UsageError};

use super::entry::{Row, printable};
use super::glob;
use super::walk::walk;
use crate::connect::{ClusterArgs, TargetArgs, normal_path};
use crate::output::{self, JsonArray, OutputArgs};

/// Finds files below a path by name, kind and size; all conditions must hold.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond fs find /data --name '*.tar' --size +1GiB
  millpond fs find /data --type d
  millpond fs find / --uri s3://bucket --size 0 -o json")]
pub(crate) struct FindArgs {
    /// Where to look
    #[arg(default_value = "/")]
    path: String,
    /// Names that match this pattern: * ? [a-z] [!a-z]
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,
    /// Only files, directories or links
    #[arg(long = "type", value_enum, value_name = "f|d|l")]
    kind: Option<Kind>,
    /// Files of this size, +SIZE at least, -SIZE at most
    #[arg(long, value_name = "[+-]SIZE", allow_hyphen_values = true)]
    size: Option<SizeFilter>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Files
    F,
    /// Directories
    D,
    /// Symbolic links
    L,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SizeFilter {
    Exactly(u64),
    AtLeast(u64),
    AtMost(u64),
}

pub(super) async fn run(args: FindArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let path = normal_path(&args.path)?;
    if args.name.as_ref().is_some_and(|name| name.contains('/')) {
        let message = "--name is compared with names, which hold no /; give the directory as PATH";
        return Err(UsageError::new(message).into());
    }
    let filter = Filter {
        name: args.name,
        kind: args.kind,
        size: args.size,
    };
    let session = args.target.open(cluster).await?;
    let json = args.output.is_json().then(JsonArray::default);
    let result = find(session.fs(), &path, &filter, json).await;
    session.close().await;
    result
}

async fn find(
    fs: &FileSystem,
    path: &str,
    filter: &Filter,
    mut json: Option<JsonArray>,
) -> anyhow::Result<()> {
    let attr = fs.stat(path).await?;
    let below = attr.is_dir().then(|| walk(fs, path));
    let mut next = Some((path.to_owned(), attr));
    let mut found = below.map(Box::pin);
    while let Some((path, attr)) = next {
        if filter.accepts(&path, &attr) {
            match &mut json {
                Some(array) => array.push(&Row::new(path, &attr))?,
                None => output::line(printable(&path))?,
            }
        }
        next = match &mut found {
            Some(found) => found.try_next().await?,
            None => None,
        };
    }
    if let Some(array) = json {
        array.finish()?;
    }
    Ok(())
}

struct Filter {
    name: Option<String>,
    kind: Option<Kind>,
    size: Option<SizeFilter>,
}

impl Filter {
    fn accepts(&self, path: &str, attr: &Attr) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.name
            .as_ref()
            .is_none_or(|pattern| glob::matches(pattern, name))
            && self.kind.is_none_or(|kind| kind.is(attr.kind))
            && self
                .size
                .is_none_or(|size| attr.is_file() && size.accepts(attr.size))
    }
}

impl Kind {
    fn is(self, kind: FileKind) -> bool {
        kind == match self {
            Self::F => FileKind::File,
            Self::D => FileKind::Directory,
            Self::L => FileKind::Symlink,
        }
    }
}

impl SizeFilter {
    fn accepts(self, size: u64) -> bool {
        match self {
            Self::Exactly(wanted) => size == wanted,
            Self::AtLeast(least) => size >= least,
            Self::AtMost(most) => size <= most,
        }
    }
}

impl FromStr for SizeFilter {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let bytes = |text: &str| text.parse().map(Size::bytes);
        match text.split_at_checked(1) {
            Some(("+", size)) => bytes(size).map(Self::AtLeast),
            Some(("-", size)) => bytes(size).map(Self::AtMost),
            _ => bytes(text).map(Self::Exactly),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_at_least_or_at_most() {
        assert_eq!("4KiB".parse(), Ok(SizeFilter::Exactly(4096)));
        assert_eq!("+1MiB".parse(), Ok(SizeFilter::AtLeast(1 << 20)));
        assert_eq!("-7".parse(), Ok(SizeFilter::AtMost(7)));
        assert!("+".parse::<SizeFilter>().is_err());
        assert!(SizeFilter::AtMost(7).accepts(7) && !SizeFilter::AtMost(7).accepts(8));
        assert!(SizeFilter::AtLeast(7).accepts(7) && !SizeFilter::AtLeast(7).accepts(6));
    }
}
