//! What every tier promises, over real directories.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail"
)]

mod store {
    mod conformance;
    mod crash;
    mod directory;
    mod faults;
    mod losses;
    mod model;
    mod scrub;
    mod sharing;
    mod sick;
    mod support;
}
