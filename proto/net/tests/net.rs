//! Both ends of every protocol over loopback, with real certificates.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on should fail; one prints a measurement"
)]

mod net {
    mod blocks;
    mod control;
    mod faults;
    mod limits;
    mod local;
    mod support;
}
