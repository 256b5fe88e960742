//! A measurement that worked and found what should not be: exit code 3.

use std::process::ExitCode;

use millpond_process::run;
use thiserror::Error;

/// The exit code of a goal that is missed and of a regression.
pub const MISSED: u8 = 3;

/// What was measured is not what was demanded. Nothing went wrong, so it is neither a usage
/// error (2) nor a failure (1).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Missed(String);

impl Missed {
    /// `message` names what was missed.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// [`run::main`], with exit code [`MISSED`] when the error is or comes from [`Missed`].
pub fn main(future: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let mut missed = false;
    let code = run::main(async {
        match future.await {
            Err(error) if is_missed(&error) => {
                missed = true;
                run::report(&error);
                Ok(())
            }
            result => result,
        }
    });
    if missed { ExitCode::from(MISSED) } else { code }
}

fn is_missed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Missed>())
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};
    use millpond_process::UsageError;

    use super::*;

    #[test]
    fn what_was_missed_has_an_exit_code_of_its_own() {
        let missed = || anyhow::Error::new(Missed::new("expected by this test"));
        for (result, code) in [
            (Ok(()), 0),
            (Err(missed()), 3),
            (Err(missed()).context("checking"), 3),
            (Err(anyhow!("expected by this test")), 1),
            (Err(UsageError::new("expected by this test").into()), 2),
        ] {
            assert_eq!(main(async { result }), ExitCode::from(code), "{code}");
        }
    }
}
