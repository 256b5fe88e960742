//! `millpond-bench herd`: a herd reads every byte right, also from a UFS that fails, and its
//! figures cannot be better than what is possible.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use clap::Parser;
use millpond_bench::herd::{self, HerdArgs};
use millpond_bench::record::{Row, Status};
use millpond_bench::scenario::Context;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: HerdArgs,
}

async fn run(flags: &[&str]) -> anyhow::Result<Vec<Row>> {
    let common = ["herd", "--quick", "--runs", "2", "--clients", "3"];
    let data = ["--size", "5MB", "--files", "3", "--block-size", "1MiB"];
    let args = Cli::try_parse_from(common.iter().chain(&data).chain(flags))?.args;
    let context = Context::new(&args.common)?;
    tokio::task::spawn_blocking(move || herd::run(&context, &args)).await?
}

fn check(rows: &[Row]) {
    let ids: Vec<String> = rows.iter().map(Row::id).collect();
    assert_eq!(
        ids,
        [
            "herd/3-clients/bytes",
            "herd/3-clients/gets",
            "herd/3-clients/time"
        ]
    );
    for row in rows {
        assert_eq!(row.status, Status::Measured, "{:?}", row.note);
        assert_eq!(row.proof.verified_bytes, Some(2 * 3 * 5_000_000));
        let value = row.value.as_ref().unwrap();
        assert_eq!(value.values.len(), 2);
        // Each byte and each block has to come from the UFS once.
        let least = if row.figure == "time" { 0.0 } else { 1.0 };
        assert!(value.min >= least, "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_reads_what_there_is() {
    let rows = run(&["--mode", "shuffled"]).await.unwrap();
    check(&rows);
    // Three clients without a tier would fetch everything three times.
    assert!(rows[0].value.as_ref().unwrap().median < 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ufs_that_fails_at_times_is_read_all_the_same() {
    let rows = run(&["--error-rate", "0.2", "--shape", "none"])
        .await
        .unwrap();
    check(&rows);
}

#[tokio::test]
async fn only_wanted_cases_are_measured() {
    assert!(run(&["--case", "16-clients"]).await.unwrap().is_empty());
}

#[tokio::test]
async fn flags_without_sense_are_refused() {
    for (flags, named) in [
        (["--clients", "0"], "--clients"),
        (["--files", "0"], "--files"),
        (["--size", "2B"], "--size"),
        (["--error-rate", "1"], "--error-rate"),
        (["--shape", "floppy"], "s3-same-region"),
    ] {
        let error = match run(&flags).await {
            Err(error) => format!("{error:#}"),
            Ok(rows) => rows[0].note.clone().unwrap(),
        };
        assert!(error.contains(named), "{error}");
    }
}
