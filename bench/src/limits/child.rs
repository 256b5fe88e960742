//! What must run in a process of its own, so that it has a scheduler's fate and a CPU clock of
//! its own as Millpond's processes have: this very program in another role, told on its stdin
//! what to be. It ends when its stdin does, so it never outlives who started it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millpond_process::run;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

use super::{null_fuse, quinn, streams};
use crate::process_cluster::{this_program, wait_until};

/// The first argument of `millpond-bench` that makes it the child of another.
pub const AS_LIMIT: &str = "as-limit";

/// How long a child may take to come up, on a loaded machine in a debug build.
const READY: Duration = Duration::from_secs(60);
/// How long a child may take to end by itself.
const ENDS: Duration = Duration::from_secs(10);
/// Lines of its stderr that are kept for the message when it fails.
const SAID: usize = 20;

/// What a child can be.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Role {
    /// A FUSE file system of bytes from memory, or of one local file passed through.
    Fuse(null_fuse::Serving),
    /// Blocks over plain quinn.
    Quinn(quinn::Serving),
    /// Blocks over TCP and Unix sockets.
    Streams(streams::Serving),
}

/// A running child. It is asked to end, and killed if it does not, when dropped.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    ready: BTreeMap<String, String>,
}

impl Child {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// When it ends before, with what it said.
    pub(super) fn start(role: &Role) -> Result<Self> {
        let program = program()?;
        let mut process = Command::new(&program)
            .arg(AS_LIMIT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let said = collect(process.stderr.take());
        let mut child = Self {
            process,
            stdin,
            ready: BTreeMap::new(),
        };
        let stdin = child.stdin.as_mut().context("stdin is a pipe")?;
        // A child that ended at once says why below.
        let _ = writeln!(stdin, "{}", serde_json::to_string(role)?);
        match first_line(stdout).recv_timeout(READY) {
            Ok(line) => child.ready = fields(&line),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("no sign of life from a child of this program within {READY:?}")
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                child.end();
                let said: Vec<String> = said.lock().iter().cloned().collect();
                bail!("{}", said.join("; "));
            }
        }
        Ok(child)
    }

    /// A field of its ready line.
    ///
    /// # Errors
    /// When the line has none of that name.
    pub(super) fn ready(&self, field: &str) -> Result<&str> {
        let value = self.ready.get(field);
        let value = value.with_context(|| format!("the ready line has no {field}"))?;
        Ok(value)
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn end(&mut self) {
        drop(self.stdin.take());
        let ended = || self.process.try_wait().is_ok_and(|status| status.is_some());
        if wait_until(ENDS, ended).is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a child does: become what stdin says, until stdin ends or SIGTERM comes.
pub fn main() -> ExitCode {
    run::main(serve())
}

async fn serve() -> Result<()> {
    // A terminal's Ctrl-C goes to all processes of a command; this one is wanted until the one
    // that started it is done.
    let _ignored = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
    let stdin = pipe::Receiver::from_owned_fd(stdin).context("stdin should be a pipe")?;
    let mut stdin = tokio::io::BufReader::new(stdin);
    let mut line = String::new();
    stdin.read_line(&mut line).await?;
    let role: Role = serde_json::from_str(&line).context("cannot understand what to be")?;
    let stop = async move {
        let mut rest = Vec::new();
        tokio::select! {
            _ = stdin.read_to_end(&mut rest) => {}
            _ = terminate.recv() => {}
        }
    };
    match role {
        Role::Fuse(serving) => null_fuse::serve(serving, stop).await,
        Role::Quinn(serving) => quinn::serve(serving, stop).await,
        Role::Streams(serving) => streams::serve(serving, stop).await,
    }
}

/// This program, also where a test of it asks, which lies beside it.
fn program() -> Result<PathBuf> {
    const NAME: &str = "millpond-bench";
    if let Some(exe) = this_program()? {
        return Ok(exe);
    }
    let exe = std::env::current_exe().context("cannot find this program")?;
    let mut dirs = exe.ancestors().skip(1).take(2).map(|dir| dir.join(NAME));
    dirs.find(|path| path.is_file())
        .with_context(|| format!("there is no {NAME} beside {}", exe.display()))
}

/// The first line that begins with `ready `; disconnected when there is none.
fn first_line(stdout: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (found, line) = mpsc::sync_channel(1);
    // It ends with the child, at the end of its stdout.
    std::thread::spawn(move || {
        let lines = stdout
            .into_iter()
            .flat_map(|out| BufReader::new(out).lines());
        for line in lines.map_while(Result::ok) {
            if line.starts_with("ready") {
                // Later ones, if any, find the channel full or closed.
                let _ = found.try_send(line);
            }
        }
    });
    line
}

fn collect(stderr: Option<impl Read + Send + 'static>) -> Arc<Mutex<VecDeque<String>>> {
    let said = Arc::new(Mutex::new(VecDeque::new()));
    let saying = Arc::clone(&said);
    std::thread::spawn(move || {
        let lines = stderr
            .into_iter()
            .flat_map(|err| BufReader::new(err).lines());
        for line in lines.map_while(Result::ok) {
            let mut said = saying.lock();
            if said.len() == SAID {
                said.pop_front();
            }
            said.push_back(line.trim_start_matches("error: ").to_owned());
        }
    });
    said
}

fn fields(line: &str) -> BTreeMap<String, String> {
    line.trim_end()
        .split(' ')
        .skip(1)
        .filter_map(|field| field.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace("%20", " ")))
        .collect()
}

/// A path as it travels to a child.
pub(super) fn text(path: &Path) -> Result<String> {
    let text = path.to_str();
    let text = text.with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}
