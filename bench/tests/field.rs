//! The `millpond-bench field` program.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on should fail"
)]

use std::collections::BTreeSet;
use std::process::{Command, Output};

use millpond_bench::process_cluster::fuse_or_skip;
use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond-bench"))
        .arg("field")
        .args(args)
        .args(["--quick", "--json", "--duration", "50ms", "--runs", "2"])
        .args(["--size", "1MiB", "--files", "24"])
        .output()
        .unwrap()
}

fn rows(output: &Output) -> Vec<Value> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let record: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    record["figures"].as_array().unwrap().clone()
}

fn has(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").output();
    asked.is_ok()
}

#[test]
fn the_tools_are_run_on_a_mount_or_it_is_said_which_is_missing() {
    if !fuse_or_skip("field") {
        return;
    }
    let output = bench(&["--setup", "disk"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let rows = rows(&output);
    let complete = ["curl", "dd", "fio", "ls"].into_iter().all(has);
    let figures: BTreeSet<String> = rows
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str().unwrap().to_owned();
            format!("{} {}", text("case"), text("figure"))
        })
        .collect();
    assert_eq!(figures.len(), rows.len(), "a figure came twice");
    for row in &rows {
        if complete {
            assert!(row["value"]["median"].as_f64().unwrap() > 0.0, "{row}");
            assert_eq!(row["proof"]["mismatches"], 0, "{row}");
            assert!(
                row["case"] == "disk/memory" || row["ratio"]["median"].as_f64().unwrap() > 0.0,
                "{row}"
            );
        } else {
            assert_eq!(row["status"], "impossible", "{row}");
            assert!(row["note"].as_str().unwrap().contains("not installed"));
        }
    }
    for expected in ["disk/cold/dd throughput", "disk/warm/fio-4k-1job p50"] {
        assert!(figures.contains(expected), "{figures:?}");
    }
}

#[test]
fn sizes_without_sense_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_millpond-bench"))
        .args(["field", "--size", "1KiB"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--size"));
}
