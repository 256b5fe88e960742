//! `millpond dev --once`: a real cluster, a real mount where this machine allows one, nothing
//! left behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]
#![allow(clippy::print_stderr, reason = "a skipped part is told")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn dev(temp: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command
        .args(["dev", "--dataset-size", "8MiB", "--block-size", "256KiB"])
        .args(["--client-memory", "8MiB", "--node-memory", "64MiB"])
        .args(args)
        .env("TMPDIR", temp)
        .stdin(Stdio::null());
    command
}

fn once(args: &[&str]) -> Value {
    let temp = tempfile::tempdir().unwrap();
    let args: Vec<_> = ["--once", "--json"].iter().chain(args).copied().collect();
    let output = dev(temp.path(), &args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(left_in(temp.path()), Vec::<String>::new(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn left_in(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn check(report: &Value) {
    let bytes = report["dataset"]["bytes"].as_u64().unwrap();
    assert!(bytes > 6 << 20, "{report}");
    for name in ["cold", "warm", "node_loss"] {
        let pass = &report[name];
        assert_eq!(pass["bytes"], bytes, "{name}: {report}");
        assert_eq!(pass["errors"], 0, "{name}: {report}");
        assert_eq!(pass["mismatches"], 0, "{name}: {report}");
        let sources = pass["sources"].as_object().unwrap();
        let sum: u64 = sources.values().map(|v| v.as_u64().unwrap()).sum();
        assert!(sum >= bytes, "{name}: {report}");
    }
    assert_eq!(report["warm"]["sources"]["ufs"], 0, "{report}");
    assert_eq!(report["ufs_amplification"], 1.0, "{report}");
}

#[test]
fn every_byte_is_right_through_the_mount_and_nothing_is_left_behind() {
    let report = once(&[]);
    check(&report);
    if report["access"] != "mount" {
        eprintln!("skipped the mount: {}", report["no_mount"]);
    }
}

#[test]
fn every_byte_is_right_through_the_library() {
    let report = once(&["--no-mount", "--nodes", "2"]);
    check(&report);
    assert_eq!(report["access"], "library");
    assert_eq!(report["warm"]["sources"]["kernel"], 0, "{report}");
    assert!(
        report["warm"]["sources"]["peer"].as_u64().unwrap() > 0,
        "{report}"
    );
}

#[test]
fn a_store_of_the_user_is_compared_with_direct_reads() {
    let store = tempfile::tempdir().unwrap();
    for i in 0..3u8 {
        fs::write(store.path().join(format!("f {i}")), vec![i; 3 << 20]).unwrap();
    }
    let uri = format!("file://{}", store.path().display());
    check(&once(&["--no-mount", "--nodes", "1", "--ufs", &uri]));
}

#[test]
fn sigterm_ends_everything_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let mut child = dev(temp.path(), &["--no-mount"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Wherever it is by then: generating, starting, or reading.
    wait_for("the stage", || !left_in(temp.path()).is_empty());
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    wait_for("the end", || child.try_wait().unwrap().is_some());
    assert_eq!(left_in(temp.path()), Vec::<String>::new());
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
