//! One process: started, watched, stopped, killed, restarted.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::env;
use super::wait::{pause, wait_until};

/// How many lines of a log are shown when a test fails.
const LOG_TAIL: usize = 120;

/// A child process that prints a ready line. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    spawned: Spawned,
    ready: BTreeMap<String, String>,
}

/// How to start it again.
#[derive(Debug, Clone)]
struct Spawned {
    program: PathBuf,
    args: Vec<std::ffi::OsString>,
    log: PathBuf,
    ready_within: Duration,
}

impl Process {
    /// Starts `command`, its stderr and stdout appended to `log`, and waits for its ready
    /// line.
    ///
    /// # Errors
    /// When it ends or the time passes before that line; with the end of its log.
    pub fn start(name: &str, command: Command, log: &Path, ready_within: Duration) -> Result<Self> {
        let spawned = Spawned {
            program: command.get_program().into(),
            args: command.get_args().map(Into::into).collect(),
            log: log.to_owned(),
            ready_within,
        };
        let (child, ready) = spawned.spawn(name)?;
        Ok(Self {
            name: name.to_owned(),
            child,
            spawned,
            ready,
        })
    }

    /// A field of the ready line.
    ///
    /// # Panics
    /// When the line has no such field.
    pub fn ready(&self, field: &str) -> &str {
        self.ready
            .get(field)
            .unwrap_or_else(|| no_field(&self.name, field, &self.ready))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The text of its log.
    pub fn log(&self) -> String {
        std::fs::read(&self.spawned.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// SIGKILL, and waits for the end. Nothing if it has ended.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP: it hangs until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Sends any signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Sends SIGTERM, if it runs, and waits for a clean end.
    ///
    /// # Errors
    /// When it does not end within `within`, or not with exit code 0.
    pub fn stop_if_running(&mut self, within: Duration) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.signal(Signal::SIGTERM)?;
        let status = self.wait_exit(within)?;
        ensure!(
            status.success(),
            "{} ended with {status} after SIGTERM{}",
            self.name,
            self.tail()
        );
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let mut status = None;
        let waited = wait_until(within, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        waited.with_context(|| format!("{} does not end{}", self.name, self.tail()))?;
        status.ok_or_else(|| anyhow!("no exit status of {}", self.name))
    }

    /// Kills it, if it runs, and starts it again with the same flags, data directory and
    /// addresses.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9();
        for (flag, field) in [("--listen", "listen"), ("--admin", "admin")] {
            if let (Some(at), Some(addr)) = (
                self.spawned.args.iter().position(|arg| arg == flag),
                self.ready.get(field),
            ) {
                self.spawned.args[at + 1] = addr.into();
            }
        }
        (self.child, self.ready) = self.spawned.spawn(&self.name)?;
        Ok(())
    }

    pub(super) fn print_log(&self) {
        let _ = writeln!(std::io::stderr(), "{}", self.tail());
    }

    fn tail(&self) -> String {
        tail(&self.name, &self.spawned.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

impl Spawned {
    fn spawn(&self, name: &str) -> Result<(Child, BTreeMap<String, String>)> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let mut command = Command::new(&self.program);
        for name in env::settings_of_ours() {
            command.env_remove(name);
        }
        let mut child = command
            .args(&self.args)
            // Its end is the sign for the process that nobody is left to stop it.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        match wait_ready(&mut child, stdout, log, self.ready_within) {
            Ok(ready) => Ok((child, ready)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.context(format!("{name} did not start{}", tail(name, &self.log))))
            }
        }
    }
}

/// The fields of the first line that begins with `ready `.
fn wait_ready(
    child: &mut Child,
    stdout: ChildStdout,
    log: File,
    within: Duration,
) -> Result<BTreeMap<String, String>> {
    let (found, ready) = mpsc::sync_channel(1);
    // It ends with the process, at the end of its stdout.
    std::thread::spawn(move || copy_stdout(stdout, log, &found));
    match ready.recv_timeout(within) {
        Ok(line) => Ok(parse_ready(&line)),
        Err(mpsc::RecvTimeoutError::Timeout) => bail!("no ready line within {within:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let status = child.wait()?;
            bail!("it ended before it was ready: {status}")
        }
    }
}

fn copy_stdout(stdout: ChildStdout, mut log: File, found: &mpsc::SyncSender<String>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let _ = writeln!(log, "{line}");
        if line.starts_with("ready ") {
            // Later ones, if any, find the channel full or closed.
            let _ = found.try_send(line);
        }
    }
}

fn parse_ready(line: &str) -> BTreeMap<String, String> {
    line.trim_end()
        .split(' ')
        .skip(1)
        .filter_map(|field| field.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn tail(name: &str, log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_TAIL)..];
    format!(
        "\n--- log of {name} ({} lines)\n{}\n---",
        lines.len(),
        shown.join("\n")
    )
}

#[allow(clippy::panic, reason = "only tests use it, and the test cannot go on")]
fn no_field(name: &str, field: &str, ready: &BTreeMap<String, String>) -> ! {
    panic!("the ready line of {name} has no {field}: {ready:?}")
}

/// Runs a command to its end and gives all its output.
///
/// # Errors
/// When it does not end within `within`; it is killed then.
pub(crate) fn run(mut command: Command, within: Duration) -> Result<Output> {
    for name in env::settings_of_ours() {
        command.env_remove(name);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + within;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        pause();
    };
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let Some(status) = status else {
        let text = String::from_utf8_lossy(&stderr);
        bail!("{command:?} did not end within {within:?}; stderr: {text}");
    };
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_ready_line_is_found_after_others() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let script = "echo hello; echo warn >&2; echo ready listen=1.2.3.4:5 node=node-1; sleep 60";
        let process = Process::start("x", shell(script), &log, Duration::from_secs(10)).unwrap();
        assert_eq!(process.ready("listen"), "1.2.3.4:5");
        assert_eq!(process.ready("node"), "node-1");
        assert!(process.log().contains("warn"));
    }

    #[test]
    fn a_process_that_ends_or_stays_silent_is_an_error_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let start = |script| Process::start("x", shell(script), &log, Duration::from_millis(300));
        let ended = format!("{:#}", start("echo why >&2; exit 3").unwrap_err());
        assert!(
            ended.contains("why") && ended.contains("exit status: 3"),
            "{ended}"
        );
        let silent = format!("{:#}", start("exec sleep 60").unwrap_err());
        assert!(silent.contains("no ready line"), "{silent}");
    }

    #[test]
    fn a_restart_keeps_the_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let script = "[ $1 = 0 ] && echo ready listen=7 || echo ready listen=$1; exec sleep 60";
        let mut command = shell(script);
        command.args(["--listen", "0"]);
        let mut process = Process::start("x", command, &log, Duration::from_secs(10)).unwrap();
        assert_eq!(process.ready("listen"), "7");
        process.restart().unwrap();
        assert_eq!(process.ready("listen"), "7");
        assert_eq!(process.spawned.args.last().unwrap(), "7");
    }

    #[test]
    fn run_gives_output_and_status_and_kills_what_hangs() {
        let output = run(
            shell("echo out; echo err >&2; exit 2"),
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(
            (&output.stdout[..], &output.stderr[..]),
            (&b"out\n"[..], &b"err\n"[..])
        );
        let hung = run(shell("exec sleep 60"), Duration::from_millis(100)).unwrap_err();
        assert!(hung.to_string().contains("did not end"), "{hung}");
    }
}
