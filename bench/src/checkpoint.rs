//! `millpond-bench checkpoint`: writes through a mount, beside the same writes done directly
//! to the UFS, and reads back through another mount.
//!
//! Whether a mount takes writes is found out by writing: where it refuses, every row says so.

mod direct;
mod scene;

use std::io;

use anyhow::Result;
use clap::Args;
use millpond_fuse::preflight;
use millpond_process::{Size, UsageError};

use crate::measure::{Arm, Spread, interleave};
use crate::record::{Better, Figure, Proof, Row, Status};
use crate::scenario::{CommonArgs, Context};

use scene::Scene;

const SCENARIO: &str = "checkpoint";
const SEQ: &str = "seq";
const SMALL: &str = "small";
const READ_BACK: &str = "read-back";
/// The cases and the figure of each.
const CASES: [(&str, &str); 3] = [
    (SEQ, "throughput"),
    (SMALL, "rate"),
    (READ_BACK, "ufs-bytes"),
];
/// Small files and PUTs at once.
const WORKERS: usize = 16;

/// Write a checkpoint, flush it, and read it back elsewhere.
///
/// seq: one large file, written in order, fsync, close; beside a multipart upload of the same
/// bytes. small: many small files by 16 workers, each flushed and closed; beside as many PUTs.
/// read-back: bytes that the UFS is asked for when another mount reads the large file.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  millpond-bench checkpoint --quick
  millpond-bench checkpoint --size 4GiB --case seq --json")]
pub struct CheckpointArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
    /// Bytes of the large file [default: 1GiB, with --quick 128MiB]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Small files [default: 2000, with --quick 300]
    #[arg(long, value_name = "N")]
    pub files: Option<u64>,
    /// Bytes of a small file
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    pub file_size: Size,
}

impl CheckpointArgs {
    /// The flags' defaults.
    pub const fn standard(common: CommonArgs) -> Self {
        Self {
            common,
            size: None,
            files: None,
            file_size: Size(64 << 10),
        }
    }

    fn validate(&self) -> Result<(), UsageError> {
        let zero = Some(Size(0));
        if self.size == zero || self.files == Some(0) || self.file_size == Size(0) {
            let wrong = "--size, --files and --file-size must not be 0";
            return Err(UsageError::new(wrong));
        }
        Ok(())
    }
}

/// Measures the wanted cases.
///
/// # Errors
/// [`UsageError`] for flags without sense. What fails while others can go on is a row.
pub fn run(context: &Context, args: &CheckpointArgs) -> Result<Vec<Row>> {
    args.validate()?;
    let wanted = |case: &str| context.wanted.wants(case);
    if !CASES.iter().any(|(case, _)| wanted(case)) {
        return Ok(Vec::new());
    }
    let mut rows = match preflight::check_right() {
        Err(why) => without(Status::Impossible, &why.to_string()),
        Ok(()) => match Scene::start(context, args).and_then(|scene| rows(context, &scene)) {
            Ok(rows) => rows,
            Err(error) => match refusal(&error) {
                Some(why) => without(Status::NotBuilt, &why),
                None => without(Status::Failed, &format!("{error:#}")),
            },
        },
    };
    rows.retain(|row| wanted(&row.case));
    Ok(rows)
}

fn rows(context: &Context, scene: &Scene<'_>) -> Result<Vec<Row>> {
    scene.try_to_write()?;
    let mut rows = Vec::new();
    if context.wanted.wants(SEQ) {
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new("writing through the mount", |run| scene.write_large(run)),
                Arm::new("multipart upload", |run| scene.upload_large(run)),
            ],
        )?;
        let row = Row::measured(SCENARIO, SEQ, Figure::Throughput, &samples[0]);
        let limit = "the same multipart upload done directly";
        let row = row.against(limit, Figure::Throughput, &samples[1]);
        rows.push(
            row.proved(scene.proof())
                .noted("until fsync and close returned"),
        );
    }
    if context.wanted.wants(SMALL) {
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new("writing through the mount", |run| scene.write_small(run)),
                Arm::new("PUTs", |run| scene.put_small(run)),
            ],
        )?;
        let files = Figure::Ops("files/s");
        let row = Row::measured(SCENARIO, SMALL, files, &samples[0]);
        let row = row.against("direct PUTs, 16 workers", files, &samples[1]);
        rows.push(row.proved(scene.proof()).noted("each flushed and closed"));
    }
    if context.wanted.wants(READ_BACK) {
        let (ufs_bytes, verified, mismatches) = scene.read_back()?;
        let value = Spread::once(ufs_bytes as f64);
        let row = Row::of(
            SCENARIO,
            READ_BACK,
            "ufs-bytes",
            "bytes",
            Better::Lower,
            value,
        );
        rows.push(row.proved(Proof {
            verified_bytes: Some(verified),
            mismatches: Some(mismatches),
            ufs_bytes: Some(ufs_bytes),
            ..Proof::default()
        }));
    }
    Ok(rows)
}

/// What a mount says that takes no writes at all.
fn refusal(error: &anyhow::Error) -> Option<String> {
    let of_system = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())?;
    let code = of_system.raw_os_error()?;
    [libc::EROFS, libc::ENOSYS, libc::EOPNOTSUPP]
        .contains(&code)
        .then(|| format!("writing is not built yet; {error:#}"))
}

fn without(status: Status, why: &str) -> Vec<Row> {
    let row = |(case, figure): (&str, &str)| Row::without(SCENARIO, case, figure, status, why);
    CASES.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn only_a_mount_that_takes_no_writes_is_not_built() {
        let error = |code| {
            Err::<(), _>(io::Error::from_raw_os_error(code))
                .context("creating x")
                .unwrap_err()
        };
        let why = refusal(&error(libc::EROFS)).unwrap();
        assert!(
            why.contains("creating x") && why.contains("Read-only"),
            "{why}"
        );
        assert_eq!(refusal(&error(libc::EIO)), None);
        assert_eq!(refusal(&anyhow::anyhow!("else")), None);
    }
}
