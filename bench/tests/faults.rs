//! `millpond-bench faults`, by its own program: rows, verified bytes, and nothing left behind,
//! also after Ctrl-C in the middle of a fault.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millpond_bench::process_cluster::wait_until;
use millpond_bench::record::{Row, RunRecord, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(120);

fn command(work_dir: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond-bench"));
    command
        .args(["faults", "--quick", "--runs", "1", "--work-dir"])
        .arg(work_dir)
        .args(flags)
        .stdin(Stdio::null());
    command
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

/// Whether any process has this text in its command line.
fn is_named(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(text))
}

#[test]
fn readers_hardly_notice_a_cut_and_a_restarted_node_serves_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let out = dir.path().join("run.json");
    let cases = ["--case", "cut", "--case", "restart", "--blocks", "300"];
    let mut command = command(&work, &cases);
    command
        .args(["--duration", "500ms", "--out"])
        .arg(&out)
        .stdout(Stdio::null());
    assert!(command.status().unwrap().success());
    let rows = RunRecord::load(&out).unwrap().figures;
    let ids: Vec<String> = rows.iter().map(Row::id).collect();
    assert_eq!(
        ids,
        [
            "faults/cut/errors",
            "faults/cut/stall",
            "faults/cut/p99",
            "faults/cut/recover",
            "faults/restart/seconds"
        ]
    );
    for row in &rows {
        assert_eq!(row.status, Status::Measured, "{row:?}");
    }
    let [errors, stall, p99, _, restart] = &rows[..] else {
        unreachable!()
    };
    assert_eq!(errors.value.as_ref().unwrap().median, 0.0);
    assert!(errors.proof.verified_bytes.unwrap() > 0);
    assert_eq!(errors.proof.mismatches, Some(0));
    let series = stall.detail.series.as_ref().unwrap();
    assert!(series.bytes.iter().sum::<u64>() > 0);
    assert_eq!(stall.detail.more["ufs_requests_before"], 0.0);
    assert!(p99.ratio.is_some());
    assert_eq!(restart.detail.more["blocks"], 300.0);
    assert_eq!(restart.proof.ufs_requests, Some(0));
    assert!(is_empty(&work));
}

/// Killed if the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ctrl_c_leaves_nothing_even_with_a_node_frozen() {
    let work = tempfile::tempdir().unwrap();
    let mut command = command(work.path(), &["--case", "stop", "--duration", "1h"]);
    let running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut running = Running(running.unwrap());
    let name = work.path().to_str().unwrap();
    wait_until(SOON, || is_frozen(name)).unwrap();
    let pid = Pid::from_raw(running.0.id().cast_signed());
    kill(pid, Signal::SIGINT).unwrap();
    wait_until(SOON, || running.0.try_wait().unwrap().is_some()).unwrap();
    assert!(is_empty(work.path()));
    assert!(!is_named(name));
}

/// Whether a process with this text in its command line is stopped.
fn is_frozen(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.map(|process| process.path()).any(|process| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        let stopped = stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.starts_with(" T"));
        stopped && String::from_utf8_lossy(&line).contains(text)
    })
}
