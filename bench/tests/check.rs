//! `millpond-bench check` and `all` as programs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond-bench"))
        .args(args)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn all_goals_can_be_listed() {
    let output = bench(&["check", "--list"]);
    assert!(output.status.success());
    assert_eq!(stdout(&output).lines().count(), 58);
    let some = stdout(&bench(&["check", "--list", "herd"]));
    assert_eq!(some.lines().count(), 3, "{some}");
    assert!(
        some.contains("herd.bytes") && some.contains("<= 1.00"),
        "{some}"
    );
}

#[test]
fn a_goal_that_does_not_exist_is_wrong_usage_and_the_nearest_one_is_named() {
    let output = bench(&["check", "ring.balance_11"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("ring.balance_10"), "{stderr}");
}

#[test]
fn goals_are_measured_judged_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run.json");
    let out = out.to_str().unwrap();
    let output = bench(&[
        "check",
        "ring.balance_10",
        "--quick",
        "--runs",
        "1",
        "--json",
        "--out",
        out,
    ]);
    // The ring is the same on every machine, so the goal is met on each.
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = record["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "just the goal that was asked for");
    let row = &rows[0];
    assert_eq!(row["id"], "ring.balance_10");
    assert_eq!(row["goal"], "<= 1.10");
    assert_eq!(row["met"], true);
    assert!(row["ratio"].as_f64().unwrap() >= 1.0, "{row}");
    for key in ["value", "unit", "limit", "note"] {
        assert!(row.get(key).is_some(), "no {key} in {row}");
    }
    assert_eq!(
        std::fs::read_to_string(out).unwrap().trim(),
        stdout(&output).trim()
    );
}

#[test]
fn a_missed_goal_ends_with_3() {
    let output = bench(&["check", "write.seq", "--quick", "--runs", "1", "--json"]);
    assert_eq!(output.status.code(), Some(3), "writing is not built");
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = record["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(row["met"], false, "{row}");
    assert_eq!(row["value"], serde_json::Value::Null, "{row}");
    assert!(row["note"].as_str().is_some(), "{row}");
}
