//! `millpond info`: all about one file or directory.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use millpond_client::{Attr, LocationReport};
use millpond_process::UsageError;
use millpond_proto::ErrorKind;
use serde::Serialize;

use crate::connect::{ClusterArgs, normal_path};
use crate::mounted::OurMount;
use crate::output::{self, OutputArgs};
use crate::ring;

/// Shows all about one file: its version, its blocks, the nodes that own them, and where each
/// is cached now.
///
/// PATH may lie in a mount of this host: then the mount is asked, and its own memory and disk
/// count as places ("here"). Else it is one of the cluster's namespace.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond info /mnt/data/train/shard-00.tar
  millpond info /data/train/shard-00.tar --coordinator 10.0.0.1:7000 -o json")]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// A file or directory, on a mount or of the namespace
    path: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    /// The mount that was asked; none for the namespace.
    mount: Option<PathBuf>,
    /// What is known of a directory is that it is one.
    kind: &'static str,
    #[serde(flatten)]
    location: Option<LocationReport>,
}

pub(crate) async fn run(args: InfoArgs) -> anyhow::Result<()> {
    let report = match OurMount::of(&args.path)? {
        Some((mount, _)) => by_mount(&mount, &args.path)?,
        None => by_cluster(&args).await?,
    };
    if args.output.is_json() {
        return output::json(&report);
    }
    if let Some(mount) = &report.mount {
        output::line(format!("mount {}", mount.display()))?;
    }
    match &report.location {
        Some(location) => ring::print(location),
        None => Ok(output::line(format!(
            "{}  {}",
            args.path.display(),
            report.kind
        ))?),
    }
}

fn by_mount(mount: &OurMount, path: &Path) -> anyhow::Result<Report> {
    let kind = path.metadata()?;
    let mut report = Report {
        mount: Some(mount.dir().to_owned()),
        kind: if kind.is_dir() { "directory" } else { "file" },
        location: None,
    };
    if kind.is_file() {
        let mut value = vec![0; MAX_XATTR];
        let len = rustix::fs::getxattr(path, millpond_fuse::LOCATION_XATTR, &mut value)
            .with_context(|| format!("cannot ask the mount about {}", path.display()))?;
        report.location = Some(serde_json::from_slice(&value[..len])?);
    }
    Ok(report)
}

async fn by_cluster(args: &InfoArgs) -> anyhow::Result<Report> {
    let text = args.path.to_str();
    let text = text.ok_or_else(|| UsageError::new("PATH is neither on a mount nor UTF-8"))?;
    let path = normal_path(text)?;
    let session = args.cluster.file_system().await?;
    let report = async {
        let attr = session.fs().stat(&path).await;
        let attr: Attr = attr.map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::anyhow!(
                "{path} is on no mount of this host and not in the cluster's namespace"
            ),
            _ => error.into(),
        })?;
        let location = match attr.is_file() {
            true => Some(
                session
                    .fs()
                    .location_report(&path, 0..ring::MOST_BLOCKS)
                    .await?,
            ),
            false => None,
        };
        anyhow::Ok(Report {
            mount: None,
            kind: if attr.is_dir() { "directory" } else { "file" },
            location,
        })
    };
    let report = report.await;
    session.close().await;
    report
}

/// The kernel's limit on the value of an extended attribute.
const MAX_XATTR: usize = 64 << 10;
