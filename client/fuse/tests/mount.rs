//! Real mounts over local directories, the memory store and an S3 server in this process.
//!
//! Skipped with a line that says so where `/dev/fuse` cannot be used, unless
//! `MILLPOND_REQUIRE_FUSE=1`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]
#![allow(clippy::panic, reason = "a test that cannot go on should fail")]

#[path = "mount/caching.rs"]
mod caching;
#[path = "mount/control.rs"]
mod control;
#[path = "mount/fio.rs"]
mod fio;
#[path = "mount/fsx.rs"]
mod fsx;
#[path = "mount/lifecycle.rs"]
mod lifecycle;
#[path = "mount/listing.rs"]
mod listing;
#[path = "mount/metadata.rs"]
mod metadata;
#[path = "mount/model.rs"]
mod model;
#[path = "mount/passthrough.rs"]
mod passthrough;
#[path = "mount/read_only.rs"]
mod read_only;
#[path = "mount/reading.rs"]
mod reading;
#[path = "mount/refresh.rs"]
mod refresh;
#[path = "mount/support.rs"]
mod support;
#[path = "mount/writing.rs"]
mod writing;
