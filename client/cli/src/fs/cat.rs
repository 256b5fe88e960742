//! `millpond fs cat`.

use millpond_client::FileHandle;
use millpond_process::Size;

use crate::connect::{ClusterArgs, TargetArgs, normal_path};
use crate::output;

/// What is asked for at a time.
const PIECE: u32 = 1 << 20;

/// Writes a file, or a part of it, to stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond fs cat /data/notes.txt
  millpond fs cat /data/big.bin --offset 1GiB --len 64KiB | xxd | head
  millpond fs cat /notes.txt --uri file:///srv/data")]
pub(crate) struct CatArgs {
    /// A file
    path: String,
    /// Where to start
    #[arg(long, value_name = "SIZE", default_value = "0")]
    offset: Size,
    /// How much to write at most [default: to the end of the file]
    #[arg(long, value_name = "SIZE")]
    len: Option<Size>,
    #[command(flatten)]
    target: TargetArgs,
}

pub(super) async fn run(args: CatArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let path = normal_path(&args.path)?;
    let session = args.target.open(cluster).await?;
    let result = async {
        let file = session.fs().open(&path).await?;
        let end = match args.len {
            Some(len) => args.offset.bytes().saturating_add(len.bytes()),
            None => u64::MAX,
        };
        copy(&file, args.offset.bytes(), end).await
    };
    let result = result.await;
    session.close().await;
    result
}

async fn copy(file: &FileHandle, start: u64, end: u64) -> anyhow::Result<()> {
    let end = end.min(file.attr().size);
    let mut at = start;
    while at < end {
        let len = u64::from(PIECE).min(end - at) as u32;
        let data = file.read(at, len).await?;
        anyhow::ensure!(
            !data.is_empty(),
            "the file ended early, at {at} of {end} bytes"
        );
        output::bytes(&data)?;
        at += data.len() as u64;
    }
    Ok(output::flush()?)
}
