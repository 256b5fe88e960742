//! `millpond-bench memory`, by its own program: peaks of both processes over what they are
//! allowed, of bytes that were compared; a limit that is refused is no figure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::process::{Command, Stdio};

use millpond_bench::process_cluster::fuse_or_skip;
use millpond_bench::record::{RunRecord, Status};

fn run(flags: &[&str]) -> (bool, RunRecord) {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let out = dir.path().join("run.json");
    let status = Command::new(env!("CARGO_BIN_EXE_millpond-bench"))
        .args(["memory", "--quick", "--case", "64m", "--dataset", "8MiB"])
        .args(["--duration", "100ms", "--work-dir"])
        .arg(&work)
        .arg("--out")
        .arg(&out)
        .args(flags)
        .stdout(Stdio::null())
        .status();
    assert!(std::fs::read_dir(&work).unwrap().next().is_none());
    (status.unwrap().success(), RunRecord::load(&out).unwrap())
}

#[test]
fn peaks_are_held_against_the_limit() {
    if !fuse_or_skip("peaks_are_held_against_the_limit") {
        return;
    }
    let (sound, record) = run(&[]);
    assert!(sound);
    let [row] = &record.figures[..] else {
        panic!("{:?}", record.figures)
    };
    assert_eq!(row.id(), "memory/64m/rss");
    assert_eq!(row.status, Status::Measured, "{:?}", row.note);
    let more = &row.detail.more;
    let ratio = row.value.as_ref().unwrap().median;
    assert_eq!(ratio, more["client_ratio"].max(more["node_ratio"]));
    assert!(more["client_peak_mib"] > 1.0 && more["node_peak_mib"] > 1.0);
    // Two passes and some pieces of 8 MiB.
    assert!(row.proof.verified_bytes.unwrap() >= 16 << 20);
    assert_eq!(row.proof.mismatches, Some(0));
}

#[test]
fn a_limit_that_is_refused_says_so() {
    if !fuse_or_skip("a_limit_that_is_refused_says_so") {
        return;
    }
    // Sixteen blocks have to fit into a node's memory.
    let (sound, record) = run(&["--block-size", "16MiB"]);
    assert!(!sound, "a case that failed is no success");
    let row = &record.figures[0];
    assert_eq!(row.status, Status::Failed);
    let note = row.note.as_ref().unwrap();
    assert!(
        note.starts_with("it does not start: ") && note.contains("256MiB"),
        "{note}"
    );
}
