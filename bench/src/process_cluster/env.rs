//! The environment variables that steer tests.

/// The variable's value; none if it is unset or empty.
#[allow(
    clippy::disallowed_methods,
    reason = "test switches are not configuration of a process"
)]
pub(crate) fn switch(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
