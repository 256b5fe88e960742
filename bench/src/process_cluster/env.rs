//! The environment variables that steer tests.

use std::ffi::OsString;

use millpond_process::config::ENV_PREFIX;

/// The variable's value; none if it is unset or empty.
#[allow(
    clippy::disallowed_methods,
    reason = "test switches are not configuration of a process"
)]
pub(crate) fn switch(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Variables that cargo sets for the test that it runs. A cargo started by the test must not
/// inherit them: build scripts that watch them would run again, and all that depends on them.
pub(crate) fn of_test_runner() -> impl Iterator<Item = OsString> {
    const PREFIXES: [&str; 4] = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
    ];
    std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let text = name.to_string_lossy();
        PREFIXES.iter().any(|prefix| text.starts_with(prefix))
    })
}

/// Settings meant for other processes of ours, which a child must not inherit; the log level
/// is for all of them.
pub(crate) fn settings_of_ours() -> impl Iterator<Item = OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with(ENV_PREFIX) && name != "MILLPOND_LOG"
    })
}
