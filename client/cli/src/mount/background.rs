//! `--background`: the mount goes on in processes of their own session: one that supervises,
//! and one that is the mount.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::supervisor::terminate;

/// Starts the mount in another process and returns when it is up, or with its error.
/// Its log goes to a file in `state_dir`, because nobody reads its stderr any more.
pub(super) async fn start(dir: &Path, state_dir: &Path) -> anyhow::Result<()> {
    let (mut log, log_path) = open_log(state_dir)?;
    let begin = log.seek(SeekFrom::End(0)).context("cannot use the log")?;
    let program = std::env::current_exe().context("cannot find the millpond program itself")?;
    let mut child = Command::new(program)
        .args(arguments_for(Role::Supervisor, std::env::args_os().skip(1)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().context("cannot use the log")?)
        .spawn()
        .context("cannot start the background process")?;
    let stdout = child.stdout.take().context("the child has no stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let ready = tokio::select! {
        line = lines.next_line() => line.context("cannot read from the background process")?,
        () = millpond_process::shutdown::signal() => {
            terminate(&child);
            let _ = tokio::time::timeout(STOPS_WITHIN, child.wait()).await;
            bail!("interrupted; the background process was stopped");
        }
    };
    if let Some(line) = ready {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
        tracing::info!(log = %log_path.display(), "the mount goes on in the background");
        return Ok(());
    }
    let status = child.wait().await.context("lost the background process")?;
    let said = said_since(&mut log, begin).unwrap_or_default();
    // What the foreground would have printed, and how it would have ended.
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(said.as_bytes());
    match status.code() {
        Some(code) if !said.is_empty() => std::process::exit(code.max(1)),
        _ => bail!(
            "the background process ended ({status}) before {} was mounted; see {}",
            dir.display(),
            log_path.display()
        ),
    }
}

/// Leaves the terminal's session, so that its end does not end the mount.
pub(super) fn detach() {
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "already the leader of a session");
    }
}

fn open_log(state_dir: &Path) -> anyhow::Result<(File, PathBuf)> {
    std::fs::create_dir_all(state_dir)
        .with_context(|| format!("cannot create the state directory {}", state_dir.display()))?;
    let path = state_dir.join("mount.log");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .open(&path)
        .with_context(|| format!("cannot open the log {}", path.display()))?;
    Ok((log, path))
}

/// What a process that is started here is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Starts the mount, and starts it again.
    Supervisor,
    /// Is the mount.
    Mount,
    /// Is the mount, in place of one whose process has ended.
    Again,
}

/// The command line of this process, changed to that of one with another role.
pub(super) fn arguments_for(role: Role, given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (from, to) = match role {
        Role::Supervisor => ("--background", "--detached"),
        Role::Mount => ("--detached", "--supervised"),
        Role::Again => ("--detached", "--supervised-again"),
    };
    let change = |argument| {
        if argument == from {
            to.into()
        } else {
            argument
        }
    };
    given.map(change).collect()
}

/// How long an interrupted start may take to end in order.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// What was logged after `begin`; the last 64 KiB of it.
fn said_since(log: &mut File, begin: u64) -> std::io::Result<String> {
    let end = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(begin.max(end.saturating_sub(64 << 10))))?;
    let mut said = Vec::new();
    log.read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processes_get_the_same_flags() {
        let given = ["mount", "s3://b", "/m", "--background", "--uid", "7"];
        let given = given.into_iter().map(OsString::from);
        let supervisor = arguments_for(Role::Supervisor, given);
        assert_eq!(
            supervisor,
            ["mount", "s3://b", "/m", "--detached", "--uid", "7"]
        );
        assert_eq!(
            arguments_for(Role::Mount, supervisor.into_iter()),
            ["mount", "s3://b", "/m", "--supervised", "--uid", "7"]
        );
    }
}
