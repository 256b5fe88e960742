//! SIGINT, SIGTERM and SIGHUP.

use tokio::signal::unix::{Signal, SignalKind, signal as listen};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Exit code after a second signal: the shell's code for SIGINT.
const IMPATIENT: i32 = 130;

/// Waits for SIGINT, SIGTERM or SIGHUP. From then on a further one ends the process at once with
/// exit code 130, for the user who does not want to wait for an orderly end.
///
/// The handlers are installed by the first poll; use [`token`] to install them at once.
///
/// # Cancel safety
/// A dropped wait loses nothing but a signal that arrived while nobody waited.
pub async fn signal() {
    let mut signals = Signals::install();
    let name = signals.next().await;
    tracing::info!(
        signal = name,
        "shutting down; repeat the signal to stop at once"
    );
    signals.exit_on_next();
}

/// A token that the first SIGINT, SIGTERM or SIGHUP cancels; the second ends the process at once.
/// The handlers are in place when this returns.
pub fn token() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    let mut signals = Signals::install();
    // The task lives as long as the process: it is the process's signal handler.
    TaskTracker::new().spawn(async move {
        let name = signals.next().await;
        tracing::info!(
            signal = name,
            "shutting down; repeat the signal to stop at once"
        );
        cancel.cancel();
        signals.next().await;
        std::process::exit(IMPATIENT);
    });
    token
}

struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    /// A handler that cannot be installed leaves the signal's default, which ends the process.
    fn install() -> Self {
        Self {
            interrupt: listen(SignalKind::interrupt()).ok(),
            terminate: listen(SignalKind::terminate()).ok(),
            hangup: (!hangup_is_ignored())
                .then(|| listen(SignalKind::hangup()).ok())
                .flatten(),
        }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            () = received(&mut self.interrupt) => "SIGINT",
            () = received(&mut self.terminate) => "SIGTERM",
            () = received(&mut self.hangup) => "SIGHUP",
        }
    }

    fn exit_on_next(mut self) {
        // As above: the process's signal handler, which ends with it.
        TaskTracker::new().spawn(async move {
            self.next().await;
            std::process::exit(IMPATIENT);
        });
    }
}

/// Whether this process was started to outlive its terminal, as by nohup(1).
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, SignalKind::hangup())
}

/// Whether `SigIgn` of a `/proc/PID/status` has this signal (proc(5)).
fn ignores(status: &str, signal: SignalKind) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set >> (signal.as_raw_value() - 1) & 1 == 1)
}

async fn received(signal: &mut Option<Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    #[tokio::test]
    async fn sigterm_cancels_the_token_and_ends_the_wait() {
        let token = token();
        assert!(!token.is_cancelled());
        let waiter = TaskTracker::new().spawn(signal());
        // The waiter's handler is installed by its first poll.
        tokio::task::yield_now().await;
        kill(Pid::this(), Signal::SIGTERM).unwrap();
        token.cancelled().await;
        waiter.await.unwrap();
    }

    #[test]
    fn the_kernel_tells_what_is_ignored() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000004001\n";
        assert!(ignores(status, SignalKind::hangup()));
        assert!(ignores(status, SignalKind::terminate()));
        assert!(!ignores(status, SignalKind::interrupt()));
        assert!(!ignores("", SignalKind::hangup()));
    }
}
