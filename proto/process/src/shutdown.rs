//! SIGINT and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal as listen};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Exit code after a second signal: the shell's code for SIGINT.
const IMPATIENT: i32 = 130;

/// Waits for SIGINT or SIGTERM. From then on a further one ends the process at once with
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

/// A token that the first SIGINT or SIGTERM cancels; the second ends the process at once.
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
}

impl Signals {
    /// A handler that cannot be installed leaves the signal's default, which ends the process.
    fn install() -> Self {
        Self {
            interrupt: listen(SignalKind::interrupt()).ok(),
            terminate: listen(SignalKind::terminate()).ok(),
        }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            () = received(&mut self.interrupt) => "SIGINT",
            () = received(&mut self.terminate) => "SIGTERM",
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
}
