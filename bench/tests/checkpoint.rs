//! `millpond-bench checkpoint`, by its own program: whether mounts take writes is found out by
//! writing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::process::{Command, Stdio};

use millpond_bench::process_cluster::fuse_or_skip;
use millpond_bench::record::{Row, RunRecord, Status};

#[test]
fn what_is_not_built_is_named_by_what_the_mount_said() {
    if !fuse_or_skip("what_is_not_built_is_named_by_what_the_mount_said") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run.json");
    let status = Command::new(env!("CARGO_BIN_EXE_millpond-bench"))
        .args(["checkpoint", "--quick", "--runs", "1", "--size", "10MiB"])
        .args(["--files", "20", "--out"])
        .arg(&out)
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let rows = RunRecord::load(&out).unwrap().figures;
    let ids: Vec<String> = rows.iter().map(Row::id).collect();
    assert_eq!(
        ids,
        [
            "checkpoint/seq/throughput",
            "checkpoint/small/rate",
            "checkpoint/read-back/ufs-bytes"
        ]
    );
    for row in &rows {
        match row.status {
            Status::NotBuilt => {
                let note = row.note.as_ref().unwrap();
                assert!(note.contains("Read-only file system"), "{note}");
            }
            Status::Measured => assert_eq!(row.proof.mismatches, Some(0), "{row:?}"),
            other => panic!("{other:?}: {row:?}"),
        }
    }
}
