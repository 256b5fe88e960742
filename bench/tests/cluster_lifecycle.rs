//! How processes end, and what bad input gets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on should fail"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use millpond_bench::process_cluster::{
    Binaries, ClusterSpec, Mount, Process, ProcessCluster, STOPS_WITHIN, fuse_or_skip, is_mounted,
    wait_until,
};
use millpond_s3_fixture::S3Fixture;
use nix::sys::signal::Signal;

const UP: Duration = Duration::from_secs(30);

fn small() -> ProcessCluster {
    ProcessCluster::start(ClusterSpec {
        nodes: 1,
        ..ClusterSpec::default()
    })
    .unwrap()
}

/// Runs to the end within a minute; a program that stays up is killed and fails the test.
fn run(mut command: Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = wait_until(Duration::from_secs(60), || {
        child.try_wait().unwrap().is_some()
    });
    if ended.is_err() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().unwrap();
    assert!(
        ended.is_ok(),
        "{command:?} stays up: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The program ends with `code` and its message holds all of `texts`; none is a panic. What
/// it said.
fn refused(command: Command, code: i32, texts: &[&str]) -> String {
    let what = format!("{command:?}");
    let start = Instant::now();
    let output = run(command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{:?} {:?} {stderr}", output.status.code(), start.elapsed());
    assert_eq!(output.status.code(), Some(code), "{what}: {stderr}");
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    for text in texts {
        assert!(
            stderr.contains(text),
            "{what}: the message lacks {text:?}: {stderr}"
        );
    }
    stderr
}

struct Input {
    binaries: Binaries,
    dir: tempfile::TempDir,
}

impl Input {
    fn new() -> Self {
        Self {
            binaries: Binaries::build().unwrap(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command<S: AsRef<std::ffi::OsStr>>(&self, program: &str, args: &[S]) -> Command {
        let mut command = self.binaries.command(program);
        command.args(args).env("TMPDIR", self.dir.path());
        command
    }

    fn coordinator(&self, args: &[&str]) -> Command {
        let mut command = self.command("coordinator", &["--listen", "127.0.0.1:0"]);
        command
            .args(["--admin", "none", "--data-dir"])
            .arg(self.path("coordinator"))
            .args(args);
        command
    }

    fn node(&self, join: &str, data: &str, args: &[&str]) -> Command {
        let mut command = self.command("cache-node", &["--join", join]);
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "none",
            "--disk-capacity",
            "64MiB",
        ]);
        command
            .args(["--memory", "64MiB", "--data-dir"])
            .arg(self.path(data))
            .args(args);
        command
    }
}

#[test]
fn wrong_flags_and_settings_are_usage_errors() {
    let input = Input::new();
    let config = |text: &str| {
        let path = input.path("config.toml");
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let table: [(&str, &[&str], &[&str]); 7] = [
        (
            "coordinator",
            &["--block-size", "3MiB"],
            &["block size", "power of two"],
        ),
        ("coordinator", &["--no-such-flag"], &["--no-such-flag"]),
        (
            "cache-node",
            &["--join", "localhost:7000", "--memory", "12 elephants"],
            &["12 elephants"],
        ),
        (
            "cache-node",
            &["--join", "localhost:7000", "--disk-capacity", "-1"],
            &["-1"],
        ),
        ("cache-node", &[], &["--join"]),
        ("millpond", &["no-such-command"], &["no-such-command"]),
        ("millpond", &["mount"], &["DIR"]),
    ];
    for (program, args, texts) in table {
        refused(input.command(program, args), 2, texts);
    }
    let file = config("[storage]\n\ndata_dri = \"/x\"\n");
    refused(input.coordinator(&["--config", &file]), 2, &["config.toml"]);
    let file = config("block_sise = \"4MiB\"\n");
    refused(
        input.coordinator(&["--config", &file]),
        2,
        &["block_sise", "block_size", "config.toml"],
    );
    let file = config("memroy = \"1GiB\"\n");
    let node = input.node("localhost:1", "node", &["--config", &file]);
    refused(node, 2, &["memroy", "memory", "config.toml"]);
    let file = config("this is not TOML");
    refused(input.coordinator(&["--config", &file]), 2, &["config.toml"]);
    let missing = input.path("missing.toml").display().to_string();
    refused(
        input.coordinator(&["--config", &missing]),
        2,
        &["missing.toml"],
    );
}

#[test]
fn a_taken_port_is_named() {
    let input = Input::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    refused(
        input.command("coordinator", &["--listen", &addr, "--admin", "none"]),
        1,
        &[&addr],
    );
    let mut command = input.coordinator(&[]);
    command.args(["--admin", &addr]);
    // The last of two equal flags, or a usage error: then this test says so.
    let output = run(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{stderr}");
}

#[test]
fn one_data_directory_serves_one_process_and_one_cluster() {
    let input = Input::new();
    let log = |name: &str| input.path(&format!("{name}.log"));
    let first = Process::start("first", input.coordinator(&[]), &log("first"), UP).unwrap();
    let dir = input.path("coordinator").display().to_string();
    refused(input.coordinator(&[]), 1, &[&dir]);

    let join = first.ready("listen").to_owned();
    let mut node =
        Process::start("node", input.node(&join, "node", &[]), &log("node"), UP).unwrap();
    let dir = input.path("node").display().to_string();
    refused(input.node(&join, "node", &[]), 1, &[&dir]);
    node.stop_if_running(STOPS_WITHIN).unwrap();

    let mut other = input.command(
        "coordinator",
        &["--listen", "127.0.0.1:0", "--admin", "none"],
    );
    other.arg("--data-dir").arg(input.path("other"));
    let other = Process::start("other", other, &log("other"), UP).unwrap();
    let said = refused(
        input.node(other.ready("listen"), "node", &[]),
        1,
        &[&dir, "cluster"],
    );
    assert!(!said.contains("serving blocks"), "{said}");
    assert!(!said.contains("ERROR"), "{said}");
}

#[test]
fn a_node_waits_for_its_coordinator_and_says_so_once() {
    let input = Input::new();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let log_path = input.path("node.log");
    let log = fs::File::create(&log_path).unwrap();
    let mut command = input.node(&free, "node", &[]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let text = || fs::read_to_string(&log_path).unwrap();
    wait_until(UP, || text().contains(&free)).unwrap_or_else(|_| panic!("{}", text()));
    // Several tries later it has said nothing more, and is still there.
    let tries = Instant::now();
    let _ = wait_until(Duration::from_secs(3), || {
        child.try_wait().unwrap().is_some()
    });
    assert!(
        tries.elapsed() >= Duration::from_secs(3),
        "it gave up: {}",
        text()
    );
    let said = text()
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains("ERROR"))
        .count();
    assert!(said <= 1, "{said} lines: {}", text());

    // When the coordinator comes up, the node joins.
    let mut coordinator = input.command("coordinator", &["--listen", &free, "--admin", "none"]);
    coordinator.arg("--data-dir").arg(input.path("coordinator"));
    let coordinator = Process::start(
        "coordinator",
        coordinator,
        &input.path("coordinator.log"),
        UP,
    )
    .unwrap();
    let joined = || {
        let mut status = input.command("millpond", &["status", "-o", "json", "--coordinator"]);
        status.arg(coordinator.ready("listen"));
        String::from_utf8(run(status).stdout)
            .unwrap()
            .contains("active")
    };
    let waited = wait_until(UP, joined);
    let _ = child.kill();
    let _ = child.wait();
    waited.unwrap_or_else(|_| panic!("{}", text()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_mounts_are_refused_with_the_reason() {
    let s3 = S3Fixture::start().await;
    s3.put("lake", "file", "content");
    let cluster = small();
    let source = tempfile::tempdir().unwrap();
    let uri = format!("file://{}", source.path().display());
    let none = BTreeMap::new();
    cluster.add_ufs("/data", &uri, &none).unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let millpond = |args: &[&str]| {
        let mut command = Binaries::build().unwrap().command("millpond");
        command.args(args);
        command
    };
    let coordinator = cluster.coordinator_addr().to_owned();
    let mounts = |args: &[&str]| {
        let mut command = millpond(&["mounts"]);
        command.args(args).args(["--coordinator", &coordinator]);
        command
    };
    refused(mounts(&["add", "/data", &uri]), 1, &["/data"]);
    refused(mounts(&["rm", "/nil"]), 1, &["/nil"]);
    refused(mounts(&["show", "/nil"]), 1, &["/nil"]);
    let missing = format!("file://{}/missing", source.path().display());
    refused(mounts(&["add", "/missing", &missing]), 1, &["missing"]);
    let options = |change: &[(&str, &str)]| {
        let mut options = s3.options();
        for (key, value) in change {
            options.insert((*key).to_owned(), (*value).to_owned());
        }
        options
            .into_iter()
            .flat_map(|(k, v)| ["--option".to_owned(), format!("{k}={v}")])
    };
    let add = |uri: &str, change: &[(&str, &str)]| {
        let mut command = mounts(&["add", "/s3", uri]);
        command.args(options(change));
        command
    };
    refused(add("s3://no-such-bucket", &[]), 1, &["no-such-bucket"]);
    refused(
        add("s3://lake", &[("secret_access_key", "wrong")]),
        1,
        &["/lake/", "check secret_access_key"],
    );
    refused(
        add("s3://lake", &[("endpoint", &format!("http://{free}"))]),
        1,
        &[&free, "tried for"],
    );
    refused(
        add("s3://lake", &[("endpiont", "x")]),
        2,
        &["endpiont", "endpoint"],
    );
    refused(add("gopher://lake", &[]), 2, &["gopher"]);
    let listed = cluster
        .coordinated(&["mounts", "ls", "-o", "json"])
        .unwrap();
    assert!(
        !listed.contains("/s3") && !listed.contains("/missing"),
        "{listed}"
    );
    refused(
        millpond(&["mounts", "ls", "--coordinator", &free]),
        1,
        &[&free],
    );
    refused(millpond(&["status", "--coordinator", &free]), 1, &[&free]);
    cluster.shutdown().unwrap();
    s3.shutdown().await;
}

#[test]
fn wrong_mount_points_are_refused_with_the_reason() {
    if !fuse_or_skip("wrong_mount_points_are_refused_with_the_reason") {
        return;
    }
    let input = Input::new();
    let source = input.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    let uri = format!("file://{}", source.display());
    let mount = |at: &Path| {
        let mut command = input.command("millpond", &["mount", &uri]);
        command.arg(at);
        command
    };
    refused(mount(&input.path("missing")), 1, &["missing"]);
    fs::write(input.path("a-file"), "").unwrap();
    refused(mount(&input.path("a-file")), 1, &["a-file", "directory"]);
    fs::create_dir(input.path("full")).unwrap();
    fs::write(input.path("full").join("x"), "").unwrap();
    refused(mount(&input.path("full")), 1, &["full", "empty"]);
    assert!(!is_mounted(&input.path("full")));

    let at = input.path("mnt");
    let log = input.path("log");
    let mut mounted = Mount::standalone(&input.binaries, &uri, &at, &log, &[]).unwrap();
    refused(mount(&at), 1, &["mnt", "mounted"]);
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "content");
    mounted.stop().unwrap();
    refused(
        input.command("millpond", &["umount", at.to_str().unwrap()]),
        1,
        &["mnt"],
    );
}

#[test]
fn signals_leave_no_mount_process_or_file() {
    if !fuse_or_skip("signals_leave_no_mount_process_or_file") {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut cluster = small();
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("file"), vec![b'x'; 3 << 20]).unwrap();
        let uri = format!("file://{}", source.path().display());
        cluster.add_ufs("/data", &uri, &BTreeMap::new()).unwrap();
        let mount = cluster.add_mount(&[]).unwrap();
        let at = cluster.mount(mount).path().to_owned();
        assert_eq!(fs::read(at.join("data/file")).unwrap().len(), 3 << 20);

        let process = cluster.mount(mount).process();
        process.signal(signal).unwrap();
        assert!(
            process.wait_exit(STOPS_WITHIN).unwrap().success(),
            "{signal}: {}",
            process.log()
        );
        assert!(!is_mounted(&at));
        for process in cluster.nodes() {
            process.signal(signal).unwrap();
            assert!(
                process.wait_exit(STOPS_WITHIN).unwrap().success(),
                "{}",
                process.log()
            );
        }
        let coordinator = cluster.coordinator();
        coordinator.signal(signal).unwrap();
        assert!(
            coordinator.wait_exit(STOPS_WITHIN).unwrap().success(),
            "{}",
            coordinator.log()
        );
        assert_eq!(temporary_files(cluster.dir()), Vec::<PathBuf>::new());
    }
}

#[test]
fn umount_ends_the_mount_and_its_process() {
    if !fuse_or_skip("umount_ends_the_mount_and_its_process") {
        return;
    }
    let input = Input::new();
    let source = input.path("source");
    fs::create_dir(&source).unwrap();
    let uri = format!("file://{}", source.display());
    let at = input.path("mnt");
    let log = input.path("log");
    let mut mount = Mount::standalone(&input.binaries, &uri, &at, &log, &[]).unwrap();
    assert!(is_mounted(&at));
    let output = run(input.command("millpond", &["umount", at.to_str().unwrap()]));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!is_mounted(&at));
    assert!(mount.process().wait_exit(STOPS_WITHIN).unwrap().success());
}

#[test]
fn an_interrupted_dev_leaves_nothing_behind() {
    if !fuse_or_skip("an_interrupted_dev_leaves_nothing_behind") {
        return;
    }
    let input = Input::new();
    let at = input.path("mnt");
    fs::create_dir(&at).unwrap();
    let source = input.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), vec![b'x'; 1 << 20]).unwrap();
    let uri = format!("file://{}", source.display());
    let temp = input.path("tmp");
    fs::create_dir(&temp).unwrap();
    let mut command = input.command("millpond", &["dev", "--ufs", &uri, "--mount"]);
    command.arg(&at).env("TMPDIR", &temp);
    let log = fs::File::create(input.path("dev.log")).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let text = || fs::read_to_string(input.path("dev.log")).unwrap();
    let up = wait_until(UP, || is_mounted(&at) && at.join("data/file").exists());
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
    let ended = wait_until(STOPS_WITHIN, || child.try_wait().unwrap().is_some());
    let _ = child.kill();
    let _ = child.wait();
    let left_mounted = is_mounted(&at);
    millpond_bench::process_cluster::unmount_lazily(&at);
    assert!(up.is_ok(), "it did not mount: {}", text());
    assert!(ended.is_ok(), "it did not end: {}", text());
    assert!(!left_mounted, "{}", text());
    let left: Vec<_> = fs::read_dir(&temp)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "{}", text());
    assert!(source.join("file").exists());
}

/// Files below `dir` whose names say that they were to be renamed or removed.
fn temporary_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(temporary_files(&path));
        } else if dir.ends_with("tmp")
            || name.contains("tmp")
            || name.contains("partial")
            || name.contains("aside")
        {
            found.push(path);
        }
    }
    found
}
