//! `millpond fs stat`.

use millpond_client::{Attr, FileKind};
use millpond_proto::ErrorKind;
use serde::Serialize;

use super::entry::{Row, printable};
use crate::connect::{ClusterArgs, TargetArgs, normal_path};
use crate::output::{self, OutputArgs, human};

/// Shows all that is known of a file or directory: size, time, version, identity, and which
/// object of which store it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond fs stat /data/a.bin
  millpond fs stat /a.bin --uri file:///srv/data -o json")]
pub(crate) struct StatArgs {
    /// A file or directory
    path: String,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    row: Row,
    version: Option<String>,
    file_id: Option<String>,
    ufs: String,
    link_target: Option<String>,
}

pub(super) async fn run(args: StatArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let path = normal_path(&args.path)?;
    let session = args.target.open(cluster).await?;
    let attr = session.fs().stat(&path).await;
    let target = match &attr {
        Ok(attr) if attr.kind == FileKind::Symlink => Some(session.fs().read_link(&path).await),
        _ => None,
    };
    session.close().await;
    let target = match target {
        // The link itself may be looked at, only not followed.
        Some(Err(error)) if error.kind() == ErrorKind::Denied => None,
        target => target.transpose()?,
    };
    let report = Report::new(path, &attr?, target);
    if args.output.is_json() {
        return output::json(&report);
    }
    report.print()
}

impl Report {
    fn new(path: String, attr: &Attr, link_target: Option<String>) -> Self {
        Self {
            row: Row::new(path, attr),
            version: attr.version.as_ref().map(ToString::to_string),
            file_id: attr.file_id.map(|id| id.to_string()),
            ufs: attr.ufs_uri.to_string(),
            link_target,
        }
    }

    fn print(&self) -> anyhow::Result<()> {
        let row = &self.row;
        let kind = match row.kind {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symbolic link",
        };
        let number = |n: Option<u32>| n.map(|n| n.to_string());
        let lines = [
            ("path", Some(printable(&row.path))),
            ("kind", Some(kind.to_owned())),
            ("size", Some(format!("{} ({})", row.size, human(row.size)))),
            ("modified", row.mtime.clone()),
            ("mode", row.mode.clone()),
            ("uid", number(row.uid)),
            ("gid", number(row.gid)),
            ("target", self.link_target.as_deref().map(printable)),
            ("version", self.version.clone()),
            ("file id", self.file_id.clone()),
            (
                "object",
                Some(self.ufs.clone()).filter(|uri| !uri.is_empty()),
            ),
        ];
        for (name, value) in lines {
            if let Some(value) = value {
                output::line(format!("{name:<10} {value}"))?;
            }
        }
        Ok(())
    }
}
