//! The `millpond-bench limits` program, and the limits that other scenarios use.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millpond_bench::limits::files::{Access, Reads};
use millpond_bench::limits::pages;
use millpond_bench::limits::streams::Way;
use millpond_bench::limits::{NullFuse, NullFuseSettings, QuinnLimit, StreamLimit};
use millpond_bench::process_cluster::{fuse_or_skip, is_mounted, unmount_lazily, wait_for};
use millpond_bench::record::{KernelCache, RunRecord, Status};

const SIZE: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
const BRIEF: Duration = Duration::from_millis(20);

fn limits(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond-bench"));
    command.arg("limits").args(args);
    command
}

fn record(args: &[&str]) -> RunRecord {
    run(args, true)
}

/// What a run leaves that succeeds, or not.
fn run(args: &[&str], succeeds: bool) -> RunRecord {
    let brief = ["--quick", "--runs", "1", "--duration", "20ms", "--json"];
    let output = limits(&[args, &brief].concat()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), succeeds, "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ids(record: &RunRecord) -> Vec<String> {
    record.figures.iter().map(|row| row.id()).collect()
}

#[test]
fn a_case_is_measured_alone_and_with_all_that_makes_it_believable() {
    let record = record(&["--case", "memory"]);
    assert_eq!(
        ids(&record),
        [
            "limits/memory/copy/throughput",
            "limits/memory/copy-4jobs/throughput"
        ]
    );
    for row in &record.figures {
        assert_eq!(row.status, Status::Measured);
        assert!(row.value.as_ref().unwrap().median > 0.0);
        assert!(row.detail.cpu_seconds_per_gb.is_some() && row.detail.latency.is_some());
        assert_eq!(row.proof.mismatches, Some(0));
    }
}

#[test]
fn gets_from_a_store_are_measured_and_a_wrong_store_is_a_failed_row() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small"), "x").unwrap();
    std::fs::write(dir.path().join("large"), vec![7u8; 300_000]).unwrap();
    let uri = format!("file://{}", dir.path().display());
    let args = ["--case", "ufs/get-8", "--uri", &uri, "--part", "64KiB"];
    let found = record(&args);
    assert_eq!(ids(&found), ["limits/ufs/get-8/throughput"]);
    let row = &found.figures[0];
    assert_eq!(
        (row.status, row.detail.bytes % 300_000),
        (Status::Measured, 0)
    );
    assert!(row.note.as_ref().unwrap().contains("large"));

    let missing = run(&[&args[..], &["--path", "missing"]].concat(), false);
    let row = &missing.figures[0];
    assert_eq!((row.status, row.value.is_some()), (Status::Failed, false));
    assert!(row.note.as_ref().unwrap().contains("missing"), "{row:?}");
}

#[test]
fn every_group_yields_rows_of_its_own() {
    for (case, id) in [
        (
            "page-cache/rand-4k-1job",
            "limits/page-cache/rand-4k-1job/rate",
        ),
        (
            "disk/buffered/seq-1m-1job",
            "limits/disk/buffered/seq-1m-1job/throughput",
        ),
        (
            "fuse/passthrough/mmap-1job",
            "limits/fuse/passthrough/mmap-1job/throughput",
        ),
    ] {
        let record = record(&["--case", case]);
        assert_eq!(ids(&record), [id]);
        let row = &record.figures[0];
        // Not every machine can do all of it, but each says so.
        match row.status {
            Status::Measured => assert!(row.value.as_ref().unwrap().median > 0.0),
            Status::Impossible => assert!(!row.note.as_ref().unwrap().is_empty()),
            other => panic!("{other:?}: {row:?}"),
        }
    }
}

#[test]
fn a_null_file_system_serves_checked_bytes_and_leaves_nothing() {
    if !fuse_or_skip("a_null_file_system_serves_checked_bytes_and_leaves_nothing") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("null");
    let settings = NullFuseSettings {
        files: 3,
        seed: 9,
        ..NullFuseSettings::default()
    };
    let null = NullFuse::start(&at, SIZE, &settings).unwrap();
    let names = std::fs::read_dir(&at)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["0", "1", "2"]);
    let reads = Reads::new(&null.file(1), SIZE, 4096)
        .jobs(2)
        .access(Access::Random { seed: 1 });
    assert_eq!(reads.verify(&null.content()).unwrap(), SIZE);
    let (cold, cache) = reads.run_cold(BRIEF, &[null.pid()]).unwrap();
    assert!(cold.ops > 0);
    assert!(
        matches!(cache, KernelCache::Dropped { before, after: 0 } if before > 0),
        "{cache:?}"
    );
    assert!(pages::resident(&null.file(1)).unwrap() > 0);
    let busy = std::fs::File::open(null.file(0)).unwrap();
    let pid = null.pid();
    drop(null);
    assert!(!is_mounted(&at));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    drop(busy);
    assert!(NullFuse::start(&dir.path().join("file"), SIZE, &settings).is_ok());
    std::fs::write(dir.path().join("full"), "").unwrap();
    let error = NullFuse::start(&dir.path().join("full"), SIZE, &settings).unwrap_err();
    assert!(format!("{error:#}").contains("full"), "{error:#}");
}

/// A process that is killed, and its mounts unmounted, when the test ends.
struct Killed<'a>(Child, &'a Path);

impl Drop for Killed<'_> {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        for at in mounts_below(self.1) {
            unmount_lazily(Path::new(&at));
        }
    }
}

fn mounts_below(dir: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let dir = dir.to_str().unwrap();
    points
        .filter(|at| at.starts_with(dir))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_null_file_system_goes_when_who_started_it_is_killed() {
    if !fuse_or_skip("a_null_file_system_goes_when_who_started_it_is_killed") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let work_dir = dir.path().to_str().unwrap();
    let endless = ["--case", "fuse/null/stat", "--duration", "1h", "--quick"];
    let child = limits(&[&endless[..], &["--work-dir", work_dir]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut running = Killed(child, dir.path());
    let mounted = || (!mounts_below(dir.path()).is_empty()).then_some(());
    wait_for(PATIENCE, mounted).unwrap();
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let gone = || mounts_below(dir.path()).is_empty().then_some(());
    wait_for(PATIENCE, gone).unwrap();
}

#[test]
fn servers_of_blocks_run_as_processes_of_their_own() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let quinn = QuinnLimit::start(runtime.handle(), true, 5).unwrap();
    let sample = quinn.run(128 << 10, 4, BRIEF).unwrap();
    assert!(sample.ops > 0 && sample.bytes == sample.ops << 17);
    assert!(quinn.pids()[0] != std::process::id());

    let dir = tempfile::tempdir().unwrap();
    let streams = StreamLimit::start(dir.path(), 5).unwrap();
    for way in [Way::Tcp, Way::Sendfile, Way::Unix, Way::Descriptor] {
        assert!(streams.verify(way).unwrap() > 0);
        let sample = streams.run(way, 4096, 2, BRIEF).unwrap();
        assert!(
            sample.ops > 0 && sample.bytes == sample.ops << 12,
            "{way:?}"
        );
    }
}
