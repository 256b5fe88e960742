//! `millpond gc`.

use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use millpond_ufs::Unfinished;
use serde::Serialize;

use crate::connect::{ufs_context, ufs_usage};
use crate::options::{option_map, parse_option};
use crate::output::{self, JsonArray, OutputArgs};

/// Finds what writers that died have left in a store: uploads that never ended, which nobody
/// sees and somebody pays for. Removes nothing unless told to.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond gc s3://bucket/prefix
  millpond gc s3://bucket --older-than 7days --remove
  millpond gc file:///srv/data -o json")]
pub(crate) struct GcArgs {
    /// The store: s3://bucket/prefix, file:///dir, …
    #[arg(value_name = "URI")]
    uri: String,
    /// An option of its driver; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = parse_option)]
    options: Vec<(String, String)>,
    /// Leave younger ones alone: their writers may be alive
    #[arg(long, value_name = "TIME", default_value = "1day", value_parser = humantime::parse_duration)]
    older_than: Duration,
    /// Remove them
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// One upload that never ended.
#[derive(Debug, Serialize)]
struct Row {
    path: String,
    upload: String,
    started: Option<String>,
    removed: bool,
}

pub(crate) async fn run(args: GcArgs) -> anyhow::Result<()> {
    let options = option_map(args.options)?;
    let ufs = millpond_ufs::open(&args.uri, &options, ufs_context()).await;
    let ufs = ufs.map_err(ufs_usage)?;
    let until = SystemTime::now() - args.older_than;
    let mut found = 0_u64;
    let mut array = args.output.is_json().then(JsonArray::default);
    let mut pages = ufs.unfinished_uploads("");
    while let Some(page) = pages.try_next().await? {
        for upload in page.into_iter().filter(|upload| is_old(upload, until)) {
            found += 1;
            if args.remove {
                ufs.abort_upload(&upload.path, &upload.id).await?;
            }
            let row = Row {
                path: format!("/{}", upload.path),
                upload: upload.id,
                started: upload
                    .started
                    .map(|time| humantime::format_rfc3339_seconds(time).to_string()),
                removed: args.remove,
            };
            match &mut array {
                Some(array) => array.push(&row)?,
                None => output::line(format!(
                    "{}  {}  {}",
                    row.started.as_deref().unwrap_or("-"),
                    row.path,
                    row.upload
                ))?,
            }
        }
    }
    if let Some(array) = array {
        return Ok(array.finish()?);
    }
    output::notice(match (found, args.remove) {
        (0, _) => "no upload is that old".to_owned(),
        (found, true) => format!("removed {found} uploads"),
        (found, false) => format!("{found} uploads never ended: --remove removes them"),
    });
    Ok(())
}

/// One whose age is not known is not touched.
fn is_old(upload: &Unfinished, until: SystemTime) -> bool {
    upload.started.is_some_and(|started| started < until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_alive_is_left_alone() {
        let now = SystemTime::now();
        let upload = |started| Unfinished {
            path: "f".into(),
            id: "1".into(),
            started,
        };
        assert!(is_old(&upload(Some(now - Duration::from_secs(1))), now));
        assert!(!is_old(&upload(Some(now)), now));
        assert!(!is_old(&upload(None), now));
    }
}
