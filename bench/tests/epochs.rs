//! `millpond-bench epochs`: the tier is held against the best possible for the same reads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use clap::Parser;
use millpond_bench::epochs::{self, EpochsArgs};
use millpond_bench::record::{Row, Status};
use millpond_bench::scenario::Context;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: EpochsArgs,
}

async fn run(flags: &[&str]) -> anyhow::Result<Vec<Row>> {
    let common = ["epochs", "--quick", "--nodes", "1", "--epochs", "3"];
    let args = Cli::try_parse_from(common.iter().chain(flags))?.args;
    let context = Context::new(&args.common)?;
    tokio::task::spawn_blocking(move || epochs::run(&context, &args)).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_are_held_against_the_best() {
    let rows = run(&["--percent", "80"]).await.unwrap();
    let ids: Vec<String> = rows.iter().map(Row::id).collect();
    assert_eq!(
        ids,
        [
            "epochs/shuffled/80/hit-ratio",
            "epochs/sequential/80/hit-ratio"
        ]
    );
    for row in &rows {
        assert_eq!(row.status, Status::Measured, "{:?}", row.note);
        let (samples, room) = (row.detail.more["samples"], row.detail.more["tier_blocks"]);
        assert_eq!(samples, (room * 100.0 / 80.0).ceil());
        // Room for 80 % of what is read in turn gives at best a little less than 80 % of it.
        let best = &row.limit.as_ref().unwrap().value;
        assert!(best.min > 0.7 && best.max <= 1.0, "{best:?}");
        let hits = row.value.as_ref().unwrap();
        assert!(hits.values.len() == 2 && hits.max <= 1.0);
        assert_eq!(row.proof.verified_bytes, Some(row.detail.bytes));
        assert!(row.proof.ufs_bytes.unwrap() >= (samples as u64) << 18);
    }
}

#[tokio::test]
async fn flags_without_sense_are_refused() {
    for (flags, named) in [
        (["--percent", "1"], "--percent"),
        (["--epochs", "1"], "--epochs"),
        (["--nodes", "0"], "--nodes"),
        (["--node-memory", "2GiB"], "--node-memory"),
    ] {
        let error = run(&flags).await.unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    assert!(run(&["--case", "random"]).await.unwrap().is_empty());
}
