//! The real binary: kills, restarts, and what bad input gets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on should fail"
)]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use common::{PATIENCE, connect, mount, status};
use millpond_process::ready::field;
use millpond_proto::wire::pb::WatchRequest;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// A coordinator process; killed when dropped.
struct Process {
    child: Child,
    listen: SocketAddr,
    admin: String,
    ready: String,
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command
        .arg("--data-dir")
        .arg(dir)
        .args(["--listen", "127.0.0.1:0"])
        .args(args)
        .env_remove("MILLPOND_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Process {
    async fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = command(dir, args);
        if !args.contains(&"--admin") {
            command.args(["--admin", "none"]);
        }
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let ready = line
            .unwrap()
            .unwrap()
            .expect("the process ended before it was ready");
        let value = |key| field(&ready, key).unwrap().to_owned();
        Self {
            child,
            listen: value("listen").parse().unwrap(),
            admin: value("admin"),
            ready,
        }
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Runs to the end, which must come soon.
async fn output(mut command: Command) -> (Option<i32>, String) {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("the process did not end").unwrap();
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8(text).unwrap())
}

/// Adds mounts until the coordinator is gone; returns what was acknowledged.
async fn add_until_killed(addr: SocketAddr, round: u32) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut client = connect(addr).await;
    for n in 0.. {
        let path = format!("/r{round}/m{n}");
        match client.add_mount(mount(&path, &[("n", "1")])).await {
            Ok(_) => acknowledged.push(path),
            Err(_) => break,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kill_9_at_any_point() {
    let dir = tempfile::tempdir().unwrap();
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    let mut cluster = None;
    for round in 0..8 {
        // Some starts never get as far as to serve, the very first among them.
        if round % 2 == 0 {
            let mut early = command(dir.path(), &["--admin", "none"]).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
            early.kill().await.unwrap();
        }
        let process = Process::start(dir.path(), &[]).await;
        let id = field(&process.ready, "cluster").unwrap().to_owned();
        // The early start of round 0 may have been killed before it had an id.
        assert_eq!(
            *cluster.get_or_insert_with(|| id.clone()),
            id,
            "the cluster has kept its id"
        );

        let mut client = connect(process.listen).await;
        let (view, _) = status(&mut client).await;
        let present: BTreeSet<_> = view.mounts.iter().map(|m| m.path.to_string()).collect();
        let lost: Vec<_> = acknowledged.difference(&present).collect();
        assert!(lost.is_empty(), "round {round}, seed {seed}: lost {lost:?}");
        let unasked = present.len() - acknowledged.len();
        assert!(
            unasked <= round as usize,
            "at most one unanswered change per kill"
        );
        let ids: BTreeSet<_> = view.mounts.iter().map(|m| m.id.0).collect();
        assert_eq!(ids.len(), present.len(), "mount ids are unique");

        let adding =
            tokio_util::task::TaskTracker::new().spawn(add_until_killed(process.listen, round));
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..500))).await;
        process.kill().await;
        let added = adding.await.unwrap();
        eprintln!("round {round}: {} acknowledged", added.len());
        acknowledged.extend(added);
    }
    assert!(
        acknowledged.len() > 8,
        "the rounds were too short to mean anything"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_coordinator_with_the_same_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path(), &[]).await;
    let pid = first.child.id().unwrap();
    let (code, text) = output(command(dir.path(), &["--admin", "none"])).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("in use by another coordinator"), "{text}");
    assert!(text.contains(&format!("pid {pid}")), "{text}");
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    // The first is not disturbed.
    status(&mut connect(first.listen).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_named_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("raft.redb");
    std::fs::write(&file, "this is no database").unwrap();
    let (code, text) = output(command(dir.path(), &["--admin", "none"])).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(file.to_str().unwrap()), "{text}");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "this is no database"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        let other = if flag == "--listen" {
            "--admin"
        } else {
            "--listen"
        };
        command
            .args([flag, &addr, other, "127.0.0.1:0", "--data-dir"])
            .arg(dir.path());
        let (code, text) = output(command).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(&addr) && text.contains(flag), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_configuration_is_named_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("coordinator.toml");
    std::fs::write(&file, "heartbeat_intervall = \"2s\"\n").unwrap();
    let config = file.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 5] = [
        (
            &["--config", config],
            &["heartbeat_intervall", "heartbeat_interval`", config],
        ),
        (&["--config", "/does/not/exist"], &["/does/not/exist"]),
        (&["--block-size", "3MiB"], &["3145728", "power of two"]),
        (&["--block-size", "4 elephants"], &["elephants"]),
        (&["--death-timeout", "1s"], &["death_timeout", "heartbeat"]),
    ];
    for (args, expected) in cases {
        let (code, text) = output(command(&dir.path().join("data"), args)).await;
        assert_eq!(code, Some(2), "{args:?}: {text}");
        for part in expected {
            assert!(text.contains(part), "{args:?}: {part:?} not in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_block_size_is_fixed_by_the_first_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path(), &["--block-size", "1MiB"]).await;
    let (view, _) = status(&mut connect(first.listen).await).await;
    assert_eq!(view.block_size.bytes(), 1 << 20);
    first.kill().await;

    let (code, text) = output(command(
        dir.path(),
        &["--admin", "none", "--block-size", "4MiB"],
    ))
    .await;
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("1 MiB") && text.contains("fixed at bootstrap"),
        "{text}"
    );

    // Without the flag, or with the same size, it goes on.
    Process::start(dir.path(), &[]).await.kill().await;
    Process::start(dir.path(), &["--block-size", "1MiB"])
        .await
        .kill()
        .await;
}

async fn get(addr: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_health_are_served_and_sigterm_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), &["--admin", "127.0.0.1:0"]).await;
    assert!(
        get(&process.admin, "/healthz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        get(&process.admin, "/readyz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let mut client = connect(process.listen).await;
    client.add_mount(mount("/a", &[])).await.unwrap();
    let mut watch = client.watch(WatchRequest {}).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());

    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = get(&process.admin, "/metrics").await;
        let expected = [
            "millpond_coordinator_mounts 1",
            "millpond_coordinator_epoch 0",
            "millpond_coordinator_raft_leader 1",
            "millpond_coordinator_watchers 1",
            "millpond_coordinator_rpcs_total{rpc=\"add_mount\",outcome=\"ok\"} 1",
            "millpond_coordinator_members{state=\"dead\"} 0",
        ];
        let missing = expected.iter().find(|line| !metrics.contains(**line));
        let Some(line) = missing else { break };
        assert!(Instant::now() < deadline, "{line} not in {metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let pid = process.child.id().unwrap().to_string();
    let signalled = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status();
    assert!(signalled.unwrap().success());
    let ended = tokio::time::timeout(PATIENCE, process.child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
    assert!(!matches!(watch.message().await, Ok(Some(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_configuration_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--print-config",
        "--heartbeat-interval",
        "250ms",
        "--open-join",
    ];
    let (code, printed) = output(command(dir.path(), &args)).await;
    assert_eq!(code, Some(0), "{printed}");
    for line in [
        "heartbeat_interval = \"250ms\"",
        "open_join = true",
        "[log]",
    ] {
        assert!(printed.contains(line), "{line} not in {printed}");
    }
    let file = dir.path().join("c.toml");
    std::fs::write(&file, &printed).unwrap();
    let args = ["--print-config", "--config", file.to_str().unwrap()];
    let (code, again) = output(command(dir.path(), &args)).await;
    assert_eq!((code, again), (Some(0), printed));
}
