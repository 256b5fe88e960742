//! The `millpond-bench small-files` program.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on should fail"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use millpond_bench::process_cluster::fuse_or_skip;
use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond-bench"))
        .arg("small-files")
        .args(args)
        .args(["--quick", "--json", "--duration", "20ms", "--runs", "1"])
        .output()
        .unwrap()
}

fn record(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

fn rows(record: &Value) -> BTreeMap<String, &Value> {
    let figures = record["figures"].as_array().unwrap();
    figures
        .iter()
        .map(|row| {
            let part = |name: &str| row[name].as_str().unwrap();
            (format!("{}/{}", part("case"), part("figure")), row)
        })
        .collect()
}

fn tree(dir: &Path) {
    for sub in ["a", "b"] {
        std::fs::create_dir(dir.join(sub)).unwrap();
        for file in 0..5 {
            std::fs::write(dir.join(sub).join(file.to_string()), vec![1; 1000]).unwrap();
        }
    }
}

#[test]
fn a_directory_is_listed_and_read_beside_local_files() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let output = bench(&["--dir", dir.path().to_str().unwrap(), "--workers", "1,3"]);
    assert!(output.status.success());
    let record = record(&output);
    let rows = rows(&record);
    let expected = [
        "dir/ls-l/rate",
        "dir/stat/rate",
        "dir/warm/in-order-1worker/rate",
        "dir/warm/in-order-3workers/rate",
        "dir/warm/shuffled-1worker/rate",
        "dir/warm/shuffled-3workers/rate",
    ];
    assert_eq!(
        rows.keys().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
    for row in rows.values() {
        assert!(row["ratio"]["median"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["detail"]["errors"], 0, "{row}");
        let bytes = row["detail"]["bytes"].as_u64().unwrap();
        let reads = row["case"].as_str().unwrap().contains("/warm/");
        assert_eq!(
            bytes,
            if reads {
                row["detail"]["ops"].as_u64().unwrap() * 1000
            } else {
                0
            }
        );
    }
}

#[test]
fn the_standard_cases_are_measured_verified_and_proved() {
    if !fuse_or_skip("the_standard_cases_are_measured_verified_and_proved") {
        return;
    }
    let args = [
        "--files",
        "40",
        "--dirs",
        "2",
        "--size",
        "5000B",
        "--workers",
        "1,8",
    ];
    let output = bench(&args);
    assert!(output.status.success(), "{output:?}");
    let record = record(&output);
    let rows = rows(&record);
    for id in [
        "fuse/stat-cached/rate",
        "fuse/ls-l-cached/rate",
        "fuse/warm/in-order-1worker/rate",
        "fuse/warm/shuffled-1worker/rate",
        "fuse/warm/shuffled-8workers/rate",
        "fuse/cold/ufs-requests/requests-per-file",
        "fuse/cold/in-order-32workers/rate",
    ] {
        let row = rows[id];
        assert_eq!(row["status"], "measured", "{row}");
        assert_eq!(row["detail"]["errors"], 0, "{row}");
        assert_eq!(row["proof"]["verified_bytes"], 40 * 5000, "{row}");
        assert_eq!(row["proof"]["mismatches"], 0, "{row}");
        if id.starts_with("fuse/warm/") || id.starts_with("fuse/stat") {
            assert_eq!(row["proof"]["ufs_requests"], 0, "{row}");
        }
    }
    let requests = rows["fuse/cold/ufs-requests/requests-per-file"];
    let value = requests["value"]["median"].as_f64().unwrap();
    assert!(
        value >= 1.0,
        "a file cannot be read without a request: {requests}"
    );
}

#[test]
fn the_files_of_a_cluster_are_read_through_its_nodes() {
    if !fuse_or_skip("the_files_of_a_cluster_are_read_through_its_nodes") {
        return;
    }
    let args = [
        "--nodes",
        "2",
        "--files",
        "20",
        "--size",
        "5000B",
        "--workers",
        "8",
    ];
    let output = bench(&[&args[..], &["--case", "cluster/warm/shuffled-8workers"]].concat());
    assert!(output.status.success(), "{output:?}");
    let record = record(&output);
    let rows = rows(&record);
    let row = rows["cluster/warm/shuffled-8workers/rate"];
    assert_eq!(rows.len(), 1);
    assert_eq!(row["proof"]["mismatches"], 0, "{row}");
    assert_eq!(row["proof"]["ufs_bytes"], 0, "{row}");
}

#[test]
fn wrong_usage_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let table: [(&[&str], &str); 7] = [
        (&["--dir", "/nowhere"], "/nowhere"),
        (&["--dir", at], "no file"),
        (&["--dir", at, "--files", "3"], "--files"),
        (&["--files", "0"], "--files"),
        (&["--size", "0"], "--size"),
        (&["--dirs", "0"], "--dirs"),
        (&["--workers", "8,0"], "--workers"),
    ];
    for (args, message) in table {
        let output = bench(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
}
