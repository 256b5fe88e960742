//! The `millpond-bench read` program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::path::Path;
use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond-bench"))
        .arg("read")
        .args(args)
        .output()
        .unwrap()
}

fn json(args: &[&str]) -> serde_json::Value {
    let output = bench(&[args, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn dataset() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub dir")).unwrap();
    std::fs::write(dir.path().join("empty"), "").unwrap();
    std::fs::write(dir.path().join("small"), "x").unwrap();
    std::fs::write(dir.path().join("sub dir/large"), vec![7u8; 3_000_001]).unwrap();
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_byte_of_a_directory_is_read_once_per_run() {
    let dir = dataset();
    for pattern in ["sequential", "random"] {
        for jobs in ["1", "3"] {
            let args = [
                "--dir",
                text(dir.path()),
                "--pattern",
                pattern,
                "--jobs",
                jobs,
            ];
            let report = json(&[&args[..], &["--block-size", "4KiB", "--runs", "2"]].concat());
            assert_eq!(report["files"], 3);
            assert_eq!(report["bytes"], 3_000_002);
            let runs = report["runs"].as_array().unwrap();
            assert_eq!(runs.len(), 2);
            for run in runs {
                assert_eq!(run["bytes"], 3_000_002);
                assert_eq!(run["reads"], 734);
                assert_eq!(run["errors"], 0);
                assert!(run["p50_us"].as_f64().unwrap() <= run["p99_us"].as_f64().unwrap());
            }
            assert!(report["ratio"].as_f64().unwrap() > 0.0);
            assert!(report["limit"]["gib_per_second"].as_f64().unwrap() > 0.0);
        }
    }
}

#[test]
fn a_duration_ends_a_run_and_repeats_the_data() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), vec![1; 10_000]).unwrap();
    let args = [
        "--dir",
        text(dir.path()),
        "--duration",
        "50ms",
        "--runs",
        "1",
        "--jobs",
        "2",
    ];
    let report = json(&[&args[..], &["--block-size", "1KiB"]].concat());
    let run = &report["runs"][0];
    assert!(run["bytes"].as_u64().unwrap() > 10_000, "{run}");
    assert!(run["seconds"].as_f64().unwrap() >= 0.05, "{run}");
}

#[test]
fn cold_says_what_was_dropped() {
    let dir = dataset();
    let report = json(&["--dir", text(dir.path()), "--cold", "--runs", "1"]);
    let cache = &report["cache"];
    assert_eq!(cache["state"], "cold");
    assert!(
        cache["resident_after"].as_u64().unwrap() <= cache["resident_before"].as_u64().unwrap()
    );
    assert!(
        cache["dropped"][0].as_str().unwrap().contains("pages"),
        "{cache}"
    );
}

#[test]
fn a_difference_is_found_and_fails_the_run() {
    let (dir, copy) = (dataset(), dataset());
    let args = [
        "--dir",
        text(dir.path()),
        "--runs",
        "1",
        "--verify-against",
        text(copy.path()),
    ];
    let report = json(&args);
    assert_eq!(report["verified"]["mismatches"], 0);
    assert_eq!(report["verified"]["bytes"], 3_000_002);
    let mut bytes = vec![7u8; 3_000_001];
    bytes[2_000_000] = 8;
    std::fs::write(copy.path().join("sub dir/large"), bytes).unwrap();
    let output = bench(&args);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("sub dir/large"), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 files differ"));
}

#[test]
fn a_ufs_is_read_through_the_client_library() {
    let dir = dataset();
    let uri = format!("file://{}", dir.path().display());
    for mode in ["--cold", "--warm"] {
        let args = [
            "--uri",
            &uri,
            mode,
            "--runs",
            "2",
            "--block-size",
            "64KiB",
            "--jobs",
            "2",
        ];
        let report = json(&[&args[..], &["--verify-against", text(dir.path())]].concat());
        assert_eq!(report["bytes"], 3_000_002);
        assert_eq!(report["runs"][1]["bytes"], 3_000_002);
        assert_eq!(report["verified"]["mismatches"], 0);
    }
}

#[test]
fn wrong_usage_ends_with_2_and_failure_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let at = text(dir.path());
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let missing = format!("{at}/missing");
    let table: [(&[&str], i32, &str); 10] = [
        (&[], 2, "--dir"),
        (&["--dir", at, "--uri", "file:///x"], 2, "--uri"),
        (
            &["--dir", at, "--block-size", "12 elephants"],
            2,
            "12 elephants",
        ),
        (&["--dir", at, "--block-size", "0"], 2, "--block-size"),
        (&["--dir", at, "--jobs", "0"], 2, "--jobs"),
        (&["--dir", at, "--runs", "0"], 2, "--runs"),
        (&["--dir", at, "--cold", "--warm"], 2, "--warm"),
        (&["--dir", &missing], 2, "missing"),
        (&["--dir", at, "--option", "a=b"], 2, "--uri"),
        (&["--uri", &format!("file://{missing}")], 1, "missing"),
    ];
    for (args, code, message) in table {
        let output = bench(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(bench(&["--dir", text(empty.path())]).status.code(), Some(2));
}
