//! The body of every `main`: runtime, error printing, exit code.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{BadSize, ConfigError};
use crate::crypto::init_crypto;
use crate::error::{ProcessError, UsageError};

/// How long tasks that ignored the shutdown may hold up the process's end.
const LINGER: Duration = Duration::from_secs(2);

/// Settings of the runtime.
#[derive(Debug, Default, Clone, Copy)]
pub struct RunOptions {
    /// Worker threads; the number of CPUs if none, at least 2 either way, so that one busy
    /// task never stalls heartbeats.
    pub worker_threads: Option<usize>,
}

/// Runs `future` on a multi-threaded runtime with default [`RunOptions`].
///
/// Prints an error with its causes on stderr. Exit code 0 for success, 2 when the error is or
/// comes from a [`UsageError`] or [`ConfigError`], 1 for every other.
pub fn main<E: Into<anyhow::Error>>(future: impl Future<Output = Result<(), E>>) -> ExitCode {
    main_with(RunOptions::default(), future)
}

/// Like [`main`], with `options`.
pub fn main_with<E: Into<anyhow::Error>>(
    options: RunOptions,
    future: impl Future<Output = Result<(), E>>,
) -> ExitCode {
    init_crypto();
    match block_on(options, future) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

fn block_on<E: Into<anyhow::Error>>(
    options: RunOptions,
    future: impl Future<Output = Result<(), E>>,
) -> anyhow::Result<()> {
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.worker_threads.unwrap_or(cpus).max(2))
        .enable_all()
        .build()
        .map_err(ProcessError::Runtime)?;
    let result = runtime.block_on(Box::pin(future));
    runtime.shutdown_timeout(LINGER);
    result.map_err(Into::into)
}

/// Prints `error` and its causes on stderr: the one place that does.
pub fn report(error: &anyhow::Error) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "error: {}", chain(error));
}

/// 2 for wrong input of the user, else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let usage = error.chain().any(|cause| {
        cause.is::<UsageError>() || cause.is::<ConfigError>() || cause.is::<BadSize>()
    });
    if usage { 2 } else { 1 }
}

/// `error: caused by: caused by`, without causes that the message before already quotes.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !last.contains(&cause) {
            text.push_str(": caused by ");
            text.push_str(&cause);
            last = cause;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn usage_errors_exit_with_2_however_deep() {
        let usage = anyhow::Error::new(UsageError::new("no")).context("while parsing");
        assert_eq!(exit_code(&usage), 2);
        let size = "12 elephants".parse::<crate::Size>().unwrap_err();
        assert_eq!(exit_code(&anyhow::Error::new(size)), 2);
        assert_eq!(exit_code(&anyhow!("disk on fire")), 1);
    }

    #[test]
    fn causes_are_printed_once() {
        let error = Err::<(), _>(anyhow!("connection refused"))
            .context("cannot ask 127.0.0.1:1: connection refused")
            .context("cannot list mounts")
            .unwrap_err();
        assert_eq!(
            chain(&error),
            "cannot list mounts: caused by cannot ask 127.0.0.1:1: connection refused"
        );
    }

    #[test]
    fn the_future_runs_on_a_runtime() {
        let done = main(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            anyhow::Ok(())
        });
        assert_eq!(done, ExitCode::SUCCESS);
        let failed = main(async { Err::<(), _>(UsageError::new("expected by this test")) });
        assert_eq!(failed, ExitCode::from(2));
    }
}
