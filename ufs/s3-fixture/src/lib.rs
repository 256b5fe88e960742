//! An S3 server for tests: real HTTP, real SigV4, real XML, started in milliseconds in the
//! test's own process.
//!
//! The objects live in memory in a backend of our own ([`Backend`]); a large object may be
//! sparse or generated ([`Content`]), so that a test can serve many GiB without holding
//! them. Every request is counted ([`Counters`]) and can be delayed, held, failed, cut or
//! answered wrongly ([`Faults`]).
//!
//! ```no_run
//! # async fn example() {
//! use millpond_s3_fixture::S3Fixture;
//!
//! let s3 = S3Fixture::start().await;
//! s3.create_bucket("data-lake");
//! s3.put("data-lake", "dir/file", "content");
//! s3.faults().fail_next(2, 503);
//! // … use `s3.endpoint()` or `s3.options()` …
//! assert_eq!(s3.counters().gets, 0);
//! s3.shutdown().await;
//! # }
//! ```
//!
//! Bucket names have at least three letters, as in S3: a shorter one is refused before any
//! handler runs.

mod backend;
mod content;
mod counters;
mod faults;
mod fixture;
mod listing;
mod respond;
mod server;
mod service;

pub use backend::{Backend, BackendError, MIN_PART, Object, OpenUpload, Precondition};
pub use content::{Content, pattern};
pub use counters::{Counters, Fetch};
pub use faults::{Faults, Gate, Op, When};
pub use fixture::{FixtureConfig, S3Fixture};
pub use listing::{ListRequest, ListedPage};
