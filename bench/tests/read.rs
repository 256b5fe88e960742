//! The `millpond-bench read` program.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on should fail"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use millpond_bench::process_cluster::{ClusterSpec, ProcessCluster, fuse_or_skip};
use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond-bench"))
        .arg("read")
        .args(args)
        .output()
        .unwrap()
}

/// The record that a run printed, whatever its exit code.
fn record(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

fn measured(args: &[&str]) -> Value {
    let output = bench(&[args, &["--quick", "--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    record(&output)
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
fn every_byte_of_a_directory_is_read_once_in_a_pass() {
    let dir = dataset();
    let at = text(dir.path());
    let shapes = ["--pattern", "sequential,random,strided", "--jobs", "1,3"];
    let args = [&["--dir", at, "--pass", "--runs", "2"][..], &shapes].concat();
    let record = measured(&[&args[..], &["--block-size", "4KiB"]].concat());
    let rows = rows(&record);
    let small = "rate";
    for (case, figure) in [
        ("seq-4k-1job", "throughput"),
        ("seq-4k-3jobs", "throughput"),
        ("rand-4k-1job", small),
        ("rand-4k-3jobs", small),
        ("strided-4k-1job", small),
        ("strided-4k-3jobs", small),
    ] {
        let row = rows[&format!("dir/warm/{case}/{figure}")];
        let detail = &row["detail"];
        assert_eq!(detail["bytes"], 2 * 3_000_002, "{row}");
        assert_eq!(detail["ops"], 2 * 734, "{row}");
        assert_eq!(detail["errors"], 0, "{row}");
        assert!(detail["latency"]["p50"].as_f64() <= detail["latency"]["p99"].as_f64());
        let series = detail["series"]["bytes"].as_array().unwrap();
        let bytes: u64 = series.iter().filter_map(Value::as_u64).sum();
        assert_eq!(bytes, 3_000_002, "the series is of one run: {row}");
        assert!(row["ratio"]["median"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["note"].as_str().unwrap().contains("own error"), "{row}");
        assert_eq!(row["proof"]["kernel_cache"]["state"], "kept", "{row}");
    }
    for reads in ["seq-4k", "rand-4k", "strided-4k"] {
        assert!(rows.contains_key(&format!("dir/warm/{reads}/one-thread")));
    }
    assert!(rows.contains_key("dir/warm/rand-4k-1job/over-sequential"));
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
    ];
    let record = measured(&[&args[..], &["--jobs", "2", "--block-size", "1KiB"]].concat());
    let row = rows(&record)["dir/warm/seq-1k-2jobs/throughput"];
    assert!(row["detail"]["bytes"].as_u64().unwrap() > 10_000, "{row}");
}

#[test]
fn mapped_files_hold_what_read_ones_do() {
    let dir = dataset();
    let args = ["--dir", text(dir.path()), "--mmap", "--pass", "--runs", "1"];
    let record = measured(&args);
    let row = rows(&record)["dir/warm/mmap-1job/throughput"];
    assert_eq!(row["detail"]["bytes"], 3_000_002, "{row}");
}

#[test]
fn cold_says_what_was_dropped() {
    let dir = dataset();
    let record = measured(&["--dir", text(dir.path()), "--cold", "--runs", "1"]);
    let row = rows(&record)["dir/cold/seq-1m-1job/throughput"];
    let cache = &row["proof"]["kernel_cache"];
    assert_eq!(cache["state"], "dropped", "{row}");
    assert!(cache["after"].as_u64() <= cache["before"].as_u64(), "{row}");
    assert_eq!(row["detail"]["bytes"], 3_000_002, "a cold run is one pass");
}

#[test]
fn a_difference_is_found_and_fails_the_run() {
    let (dir, copy) = (dataset(), dataset());
    let args = ["--dir", text(dir.path()), "--pass", "--runs", "1"];
    let against = ["--verify-against", text(copy.path()), "--json"];
    let args = [&args[..], &against].concat();
    let output = bench(&args);
    assert!(output.status.success());
    let equal = record(&output);
    let proof = &rows(&equal)["dir/warm/seq-1m-1job/throughput"]["proof"];
    assert_eq!(proof["mismatches"], 0);
    assert_eq!(proof["verified_bytes"], 3_000_002);

    let mut bytes = vec![7u8; 3_000_001];
    bytes[2_000_000] = 8;
    std::fs::write(copy.path().join("sub dir/large"), bytes).unwrap();
    let output = bench(&args);
    assert!(!output.status.success());
    let differing = record(&output);
    let row = rows(&differing)["dir/warm/seq-1m-1job/throughput"];
    assert_eq!(row["proof"]["mismatches"], 1, "{row}");
    assert!(
        row["note"].as_str().unwrap().contains("sub dir/large"),
        "{row}"
    );
}

#[test]
fn a_store_is_read_through_the_client_library() {
    let dir = dataset();
    let uri = format!("file://{}", dir.path().display());
    let against = ["--verify-against", text(dir.path())];
    for (mode, ufs_bytes) in [("cold", 2 * 3_000_002), ("warm", 0)] {
        let flag = format!("--{mode}");
        let args = ["--uri", &uri, &flag, "--pass", "--runs", "2", "--jobs", "2"];
        let record = measured(&[&args[..], &["--block-size", "64KiB"], &against].concat());
        let row = rows(&record)[&format!("library/{mode}/seq-64k-2jobs/throughput")];
        assert_eq!(row["detail"]["bytes"], 2 * 3_000_002, "{row}");
        assert_eq!(row["proof"]["ufs_bytes"], ufs_bytes, "{row}");
        assert_eq!(row["proof"]["mismatches"], 0, "{row}");
    }
}

#[test]
fn a_running_cluster_is_read_through_library_and_mount() {
    let dir = dataset();
    let cluster = ProcessCluster::start(ClusterSpec {
        nodes: 1,
        node_disk: "0".to_owned(),
        ..ClusterSpec::default()
    })
    .unwrap();
    let uri = format!("file://{}", dir.path().display());
    cluster.add_ufs("/data", &uri, &BTreeMap::new()).unwrap();
    let at = [
        "--coordinator",
        cluster.coordinator_addr(),
        "--path",
        "/data",
    ];
    let rest = [
        "--pass",
        "--runs",
        "1",
        "--verify-against",
        text(dir.path()),
    ];
    let mut accesses = vec![("library", vec![])];
    if fuse_or_skip("a_running_cluster_is_read_through_library_and_mount") {
        accesses.push(("mount", vec!["--mount"]));
    }
    for (access, flags) in accesses {
        let record = measured(&[&at[..], &rest, &flags].concat());
        let row = rows(&record)[&format!("{access}/warm/seq-1m-1job/throughput")];
        assert_eq!(row["detail"]["bytes"], 3_000_002, "{row}");
        assert_eq!(row["proof"]["ufs_bytes"], 0, "{row}");
        assert_eq!(row["proof"]["verified_bytes"], 3_000_002, "{row}");
        assert_eq!(row["proof"]["mismatches"], 0, "{row}");
    }
}

#[test]
fn the_standard_cases_are_measured_verified_and_proved() {
    if !fuse_or_skip("the_standard_cases_are_measured_verified_and_proved") {
        return;
    }
    let record = measured(&["--size", "4MiB", "--runs", "1", "--duration", "20ms"]);
    let rows = rows(&record);
    for id in [
        "fuse/kernel-warm/seq-1m-1job/throughput",
        "fuse/kernel-warm/rand-4k-1job/rate",
        "fuse/kernel-warm/mmap-1job/throughput",
        "fuse/tier-warm/seq-1m-1job/throughput",
        "fuse/tier-warm/seq-1m-4jobs/throughput",
        "fuse/tier-warm/seq-128k-1job/throughput",
        "fuse/tier-warm/rand-4k-4jobs/rate",
        "fuse/ring/seq-1m-4jobs/throughput",
        "fuse/ring/one-thread/ratio",
        "fuse/ring/rand-256k-1job/throughput",
        "fuse/cold/seq-1m-1job/throughput",
        "fuse/cold/first-byte/p50",
        "fuse/cold/rand-4k-bytes/amplification",
        "library/tier-warm/seq-1m-1job/throughput",
        "library/tier-warm/rand-4k-4jobs/rate",
        "library/ring/seq-1m-4jobs/throughput",
    ] {
        let row = rows[id];
        assert_eq!(row["status"], "measured", "{row}");
        assert!(row["value"]["median"].as_f64().unwrap() > 0.0, "{row}");
        assert!(
            row["proof"]["verified_bytes"].as_u64().unwrap() > 0,
            "{row}"
        );
        assert_eq!(row["proof"]["mismatches"], 0, "{row}");
        assert_eq!(row["detail"]["errors"], 0, "{row}");
        if !id.ends_with("/ratio") && !id.ends_with("/amplification") {
            assert!(row["ratio"]["median"].as_f64().unwrap() > 0.0, "{row}");
        }
        if !id.contains("/cold/") {
            assert_eq!(row["proof"]["ufs_requests"], 0, "{row}");
        }
        let cache = &row["proof"]["kernel_cache"];
        if id.starts_with("fuse/tier-warm/") || id.starts_with("fuse/ring/") {
            assert_eq!(
                (&cache["state"], &cache["after"]),
                (&"dropped".into(), &0.into()),
                "{row}"
            );
        }
        if id.starts_with("fuse/kernel-warm/") {
            assert_eq!(cache["resident"], 4 << 20, "{row}");
        }
    }
    let seq = rows["fuse/ring/seq-1m-4jobs/throughput"];
    assert!(
        seq["detail"]["more"]["cpu_bound_ratio"].is_number(),
        "{seq}"
    );
    for case in ["seq-1m-1job", "seq-1m-4jobs", "mmap-1job"] {
        let row = rows[&format!("fuse/passthrough/{case}/throughput")];
        // Passing files through needs more than the right to mount.
        let possible = row["status"] != "impossible";
        assert!(
            !possible || row["ratio"]["median"].as_f64().unwrap() > 0.0,
            "{row}"
        );
    }
    assert!(rows.contains_key("fuse/passthrough/rand-4k-1job/rate"));
}

#[test]
fn wrong_usage_ends_with_2_and_failure_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let at = text(dir.path());
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let missing = format!("{at}/missing");
    let table: [(&[&str], i32, &str); 16] = [
        (&["--cold"], 2, "--cold"),
        (&["--jobs", "4"], 2, "--jobs"),
        (&["--size", "1"], 2, "--size"),
        (&["--dir", at, "--size", "8MiB"], 2, "--size"),
        (&["--dir", at, "--uri", "file:///x"], 2, "--uri"),
        (
            &["--dir", at, "--block-size", "12 elephants"],
            2,
            "12 elephants",
        ),
        (&["--dir", at, "--block-size", "0"], 2, "--block-size"),
        (&["--dir", at, "--jobs", "1,0"], 2, "--jobs"),
        (&["--dir", at, "--runs", "0"], 2, "--runs"),
        (&["--dir", at, "--stride", "0"], 2, "--stride"),
        (&["--dir", at, "--cold", "--warm"], 2, "--warm"),
        (&["--dir", &missing], 2, "missing"),
        (&["--dir", at, "--option", "a=b"], 2, "--uri"),
        (&["--dir", at, "--mount"], 2, "--coordinator"),
        (&["--uri", "file:///tmp", "--mmap"], 2, "--mmap"),
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
