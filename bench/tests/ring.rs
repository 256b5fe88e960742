//! `millpond-bench ring`: rows with the right names, and figures that any good ring has.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use clap::Parser;
use millpond_bench::record::{Row, Status};
use millpond_bench::ring::{self, RingArgs};
use millpond_bench::scenario::Context;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: RingArgs,
}

async fn run(flags: &[&str]) -> anyhow::Result<Vec<Row>> {
    let common = ["ring", "--quick", "--duration", "10ms", "--runs", "1"];
    let args = Cli::try_parse_from(common.iter().chain(flags))?.args;
    let context = Context::new(&args.common)?;
    tokio::task::spawn_blocking(move || ring::run(&context, &args)).await?
}

fn ids(rows: &[Row]) -> Vec<String> {
    rows.iter().map(Row::id).collect()
}

#[tokio::test]
async fn every_size_has_its_rows() {
    let rows = run(&["--nodes", "3,10", "--clusters", "2"]).await.unwrap();
    assert_eq!(
        ids(&rows),
        [
            "ring/balance/3/max-over-mean",
            "ring/moved/3/moved-over-ideal",
            "ring/balance/10/max-over-mean",
            "ring/moved/10/moved-over-ideal",
            "ring/moved/moved-over-ideal",
            "ring/lookup/3/rate",
            "ring/lookup-3/3/rate",
            "ring/lookup/10/rate",
            "ring/lookup-3/10/rate",
        ]
    );
    for row in &rows {
        assert_eq!(row.status, Status::Measured);
        let median = row.value.as_ref().unwrap().median;
        match row.figure.as_str() {
            "max-over-mean" => assert!((1.0..1.5).contains(&median), "{row:?}"),
            "moved-over-ideal" => {
                assert!((0.8..1.2).contains(&median), "{row:?}");
                assert_eq!(row.detail.more["moved_needlessly"], 0.0);
            }
            _ => assert!(row.ratio.as_ref().unwrap().median > 0.0, "{row:?}"),
        }
    }
}

#[tokio::test]
async fn placement_is_the_same_in_every_run() {
    let flags = [
        "--nodes", "5", "--case", "balance", "--case", "moved/5", "--seed", "3",
    ];
    let (one, two) = (run(&flags).await.unwrap(), run(&flags).await.unwrap());
    assert_eq!(
        ids(&one),
        [
            "ring/balance/5/max-over-mean",
            "ring/moved/5/moved-over-ideal"
        ]
    );
    for (one, two) in one.iter().zip(&two) {
        assert_eq!(one.value, two.value);
    }
}

#[tokio::test]
async fn flags_that_measure_nothing_are_refused() {
    for flags in [
        ["--nodes", "0"],
        ["--clusters", "0"],
        ["--blocks", "0"],
        ["--nodes", "1"],
    ] {
        let error = run(&flags).await.unwrap_err().to_string();
        assert!(error.contains(flags[0]), "{error}");
    }
}
