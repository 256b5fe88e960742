//! The `cache-node` binary as its operator meets it: what bad input gets, and what happens
//! while no coordinator answers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail"
)]

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nobody listens on TCP port 1 of the loopback address.
const NOBODY: &str = "127.0.0.1:1";

const PATIENCE: Duration = Duration::from_secs(60);

/// A running node; killed when the test ends, whatever way.
struct Node {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Node {
    fn start(data_dir: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cache-node"))
            .args(["--listen", "127.0.0.1:0", "--admin", "none"])
            .args(["--memory", "64MiB", "--disk-capacity", "64MiB"])
            .arg("--data-dir")
            .arg(data_dir)
            .args(more)
            .env_remove("MILLPOND_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Reads stderr until `count` lines contain `text`, or until it ends.
    fn wait_for(&mut self, text: &str, count: usize) -> bool {
        let end = Instant::now() + PATIENCE;
        while self.said(text) < count {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{text:?} was not said {count} times: {:#?}", self.seen)
                }
            }
        }
        true
    }

    fn said(&self, text: &str) -> usize {
        self.seen.iter().filter(|line| line.contains(text)).count()
    }

    /// Waits for the end of the process; its code and everything it said.
    fn end(mut self) -> (ExitStatus, String) {
        self.wait_for("text that is never said", usize::MAX);
        let status = self.child.wait().unwrap();
        (status, self.seen.join("\n"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_unreachable_coordinator_is_tried_for_ever_and_mentioned_once() {
    let dir = tempfile::tempdir().unwrap();
    let more = [
        "--join",
        NOBODY,
        "--log-level",
        "info,millpond_cache_node=debug",
    ];
    let mut node = Node::start(dir.path(), &more);
    assert!(node.wait_for("still no coordinator", 3), "{:#?}", node.seen);
    assert_eq!(node.said("cannot join yet"), 1, "{:#?}", node.seen);
    assert!(node.said(NOBODY) > 0);
    kill(Pid::from_raw(node.child.id() as i32), Signal::SIGTERM).unwrap();
    let (status, text) = node.end();
    assert_eq!(status.code(), Some(0), "{text}");
}

#[test]
fn two_nodes_with_one_data_directory_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Node::start(dir.path(), &["--join", NOBODY]);
    first.wait_for("cannot join yet", 1);
    let pid = first.child.id();
    let (status, text) = Node::start(dir.path(), &["--join", NOBODY]).end();
    assert_eq!(status.code(), Some(1), "{text}");
    let expected = format!("is in use by another cache-node (pid {pid})");
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let join = ["--join", NOBODY, "--config"];
    let file = dir.path().join("node.toml");
    std::fs::write(&file, "weight = 100\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache-node"));
    command
        .args(join)
        .arg(&file)
        .args(["--listen", &addr, "--admin", "none"]);
    command
        .args(["--memory", "64MiB"])
        .arg("--data-dir")
        .arg(dir.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&addr) && text.contains("--listen"), "{text}");
}

#[test]
fn a_disk_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let below = file.join("blocks");
    let disk = ["--join", NOBODY, "--disk", below.to_str().unwrap()];
    let (status, text) = Node::start(&dir.path().join("data"), &disk).end();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains(below.to_str().unwrap()), "{text}");
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_to_change() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = dir.path().join("wrong.toml");
    std::fs::write(&unknown, "memroy = \"1GiB\"\n").unwrap();
    let unknown = unknown.to_str().unwrap();
    for (args, says) in [
        (&["--weight", "5"][..], "--join"),
        (&["--join", NOBODY, "--weight", "0"], "weight"),
        (&["--join", "host:port"], "HOST:PORT"),
        (&["--join", NOBODY, "--config", unknown], "`memory`"),
        (&["--join", NOBODY, "--advertise", "nowhere"], "--advertise"),
    ] {
        let (status, text) = Node::start(dir.path(), args).end();
        assert_eq!(status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
}
