//! The process behind `--background`: it starts the mount in a child and, when that is killed
//! or crashes, makes the mount again.
//!
//! While there is no new process, calls below the mount point fail with "transport endpoint
//! is not connected"; only for the few milliseconds in which the new mount takes the place of
//! the dead one does the directory look empty. Who had files open there has to open them
//! again.

use std::io::Write as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use millpond_fuse::dead;
use millpond_process::shutdown;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::background::{Role, arguments_for};

/// Keeps a mount at `dir` until it is taken away or a signal comes.
pub(super) async fn run(dir: &Path) -> anyhow::Result<()> {
    let stop = shutdown::token();
    let mut pauses = Pauses::default();
    let mut role = Role::Mount;
    loop {
        let started = Instant::now();
        let (status, was_ready) = run_once(&stop, role).await?;
        if status.success() {
            return Ok(());
        }
        if role == Role::Mount && !was_ready {
            // What is wrong was said, and the user is told by who reads our end.
            std::process::exit(status.code().unwrap_or(1).max(1));
        }
        role = Role::Again;
        if stop.is_cancelled() {
            bail!("the mount's process ended badly ({status})");
        }
        if dead::dead_mount(dir)?.is_none() {
            bail!("the mount's process ended ({status}), and nothing is mounted any more");
        }
        let pause = pauses.after(started.elapsed());
        tracing::error!(
            %status,
            mount = %dir.display(),
            again_in_ms = pause.as_millis() as u64,
            "the mount's process ended; starting it again"
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {
                dead::clear(dir)?;
                return Ok(());
            }
        }
        if dead::dead_mount(dir)?.is_none() {
            tracing::info!(mount = %dir.display(), "the mount was taken away; not starting it again");
            return Ok(());
        }
    }
}

/// Runs the mount until its process ends: how it ended, and whether the mount was ever up.
async fn run_once(stop: &CancellationToken, role: Role) -> anyhow::Result<(ExitStatus, bool)> {
    let program = std::env::current_exe().context("cannot find the millpond program itself")?;
    let mut child = Command::new(program)
        .args(arguments_for(role, std::env::args_os().skip(1)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the mount's process")?;
    let stdout = child.stdout.take().context("the child has no stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let mut was_ready = false;
    let mut stopping = false;
    loop {
        tokio::select! {
            line = lines.next_line(), if !was_ready => {
                let Some(line) = line.context("cannot read from the mount's process")? else {
                    // It ends before the mount is up.
                    return Ok((wait(&mut child, stop, stopping).await?, false));
                };
                was_ready = true;
                if role == Role::Mount {
                    tell(&line);
                }
            }
            status = child.wait() => return Ok((status.context("lost the mount's process")?, was_ready)),
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                terminate(&child);
            }
        }
    }
}

async fn wait(
    child: &mut Child,
    stop: &CancellationToken,
    mut stopping: bool,
) -> anyhow::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status.context("lost the mount's process"),
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                terminate(child);
            }
        }
    }
}

/// Asks a process to end in order.
pub(super) fn terminate(child: &Child) {
    // No id: it has ended.
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
    }
}

/// Passes on the line that says that the mount is up. Nobody may be left to read it.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// How long to wait before the next start: longer after each process that did not live long.
#[derive(Debug, Default)]
struct Pauses {
    short_lives: u32,
}

impl Pauses {
    fn after(&mut self, life: Duration) -> Duration {
        if life >= LONG_LIFE {
            self.short_lives = 0;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.short_lives.min(16));
        self.short_lives = self.short_lives.saturating_add(1);
        pause.min(LONGEST_PAUSE)
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A process that lived as long ended for a new reason.
const LONG_LIFE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_keeps_ending_is_started_less_and_less_often() {
        let mut pauses = Pauses::default();
        let short = Duration::from_secs(1);
        assert_eq!(pauses.after(short), FIRST_PAUSE);
        assert_eq!(pauses.after(short), 2 * FIRST_PAUSE);
        assert_eq!(pauses.after(LONG_LIFE), FIRST_PAUSE);
        let mut last = FIRST_PAUSE;
        for _ in 0..100 {
            let next = pauses.after(short);
            assert!(next >= last && next <= LONGEST_PAUSE, "{next:?}");
            last = next;
        }
        assert_eq!(last, LONGEST_PAUSE);
    }
}
