//! `millpond-bench accelerators` by a cluster of this very program.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::process::{Command, Output};

use millpond_bench::process_cluster::fuse_or_skip;
use millpond_bench::record::{KernelCache, Row, RunRecord, Status};

fn run(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond-bench"))
        .args([
            "accelerators",
            "--quick",
            "--json",
            "--size",
            "8MiB",
            "--runs",
            "1",
        ])
        .args(["--duration", "200ms"])
        .args(flags)
        .output()
        .unwrap()
}

fn rows(flags: &[&str]) -> Vec<Row> {
    let output = run(flags);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice::<RunRecord>(&output.stdout)
        .unwrap()
        .figures
}

fn check(row: &Row) {
    assert_eq!(row.status, Status::Measured, "{:?}", row.note);
    assert_eq!(row.detail.errors, 0, "{:?}", row.detail.first_error);
    assert!(row.value.as_ref().unwrap().median > 0.0);
    assert!(row.limit.as_ref().unwrap().value.median > 0.0);
    assert!(row.proof.verified_bytes.unwrap() > 4 << 20);
    assert_eq!(row.proof.mismatches, Some(0));
    assert_eq!(
        row.proof.ufs_bytes,
        Some(0),
        "the tier did not hold everything"
    );
}

#[test]
fn a_mount_and_the_local_disk_feed_accelerators() {
    if !fuse_or_skip("a_mount_and_the_local_disk_feed_accelerators") {
        return;
    }
    let rows = rows(&["--case", "resnet50"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].id(), "accelerators/resnet50/accelerators");
    check(&rows[0]);
    assert!(matches!(
        rows[0].proof.kernel_cache,
        Some(KernelCache::Dropped { .. })
    ));
}

#[test]
fn the_library_feeds_accelerators_without_a_mount() {
    let rows = rows(&["--case", "cosmoflow", "--library", "--accelerator", "a100"]);
    assert_eq!(rows.len(), 1);
    check(&rows[0]);
    assert!(rows[0].note.as_ref().unwrap().contains("client library"));
}

#[test]
fn flags_without_sense_are_refused() {
    for flags in [
        ["--slowdown", "0"],
        ["--slowdown", "-1"],
        ["--size", "1MiB"],
    ] {
        let output = run(&flags);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
