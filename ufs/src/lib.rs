//! The under-store: how any Millpond process reaches the store that holds the user's files.
//!
//! [`open()`] turns a URI and its options into an `Arc<dyn `[`Ufs`]`>`: one trait over S3 and what speaks its protocol, Google Cloud Storage, Azure Blob, a local
//! directory, memory, and HTTP(S). Only this package names `object_store` and `reqwest`.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@open`] | [`open()`]: URI and options in, driver with its layers out |
//! | [`ufs`] | the [`Ufs`] trait, [`read_to_bytes`], [`probe`] |
//! | [`mod@write`] | what writing needs: conditions, attributes, uploads in parts, abilities |
//! | [`metadata`] | [`FileKind`], [`Metadata`], [`Entry`] |
//! | [`error`] | [`UfsError`]: what was being done, to what, why it failed, what to do |
//! | [`options`] | every option of every scheme, with help text |
//! | [`uri`] | [`UfsUri`]: the accepted forms |
//! | [`name`] | which keys are files, which are hidden, and why |
//! | [`context`], [`environment`] | what the process hands in |
//! | [`metrics`] | what is counted |
//! | [`memory`], `local`, `object`, `http` | the drivers |
//! | `digest` | the checksums that stores send with whole objects |
//! | `layer` | decorators: metrics, concurrency limit, deadline, and the shape of another store |
//!
//! # Keys and names
//!
//! Object stores have keys, not files. The rules, the same for every object store and for
//! the memory store, each held by the conformance suite:
//!
//! | in the store | through Millpond |
//! |---|---|
//! | `a/b` | a file `b` in a directory `a`, which needs no object of its own |
//! | `a/` (a marker, whatever its size) | the directory `a`, possibly empty; its bytes are not readable |
//! | `a` beside `a/b` or `a/` | the directory `a`; the object `a` is hidden |
//! | any UTF-8 name without control characters: spaces, `%`, `#`, `?`, `\`, `%2F`, … | itself, byte for byte; nothing is encoded or decoded |
//! | a name of `.` or `..`, an empty one (`/a`, `a//b`), one with an ASCII control character, one over 255 bytes | hidden; counted and warned about once per mount |
//!
//! What a path is costs one request, a listing of the first names that begin with its key,
//! and rarely two (see `object/around.rs`); on Azure, whose client hides the key itself from
//! such a listing, a HEAD and a listing at once.
//!
//! A directory is listed in the byte order of its keys, in which a directory sorts as if
//! its name ended in `/`. A file that a later page could turn out to be hidden by a
//! directory is held back until that is known, so it may come after its neighbours.
//!
//! The root of a bucket mount always exists while the bucket does, whether or not any key
//! begins with its prefix. A read of an object that was deleted is `NotFound`, of one that
//! was replaced `Stale`.
//!
//! # Versions
//!
//! The version of an object is its ETag wherever the store gives one, because a listing
//! gives the ETag and never a version id: one validator, whichever way the metadata came,
//! or the same bytes would be cached twice. Only without an ETag is it the version id, and
//! only without both the modification time. Every read carries the version (`If-Match`,
//! version id or `If-Unmodified-Since`) and checks the answer against it again, since not
//! every store honours the condition.
//!
//! A local directory has [`FileVersion::Local`](millpond_proto::FileVersion::Local), checked
//! on the open descriptor before bytes are handed out; see the `local` module for what that
//! can and cannot see.

pub mod context;
mod digest;
pub mod environment;
pub mod error;
mod http;
mod layer;
mod local;
pub mod memory;
pub mod metadata;
pub mod metrics;
pub mod name;
mod object;
pub mod open;
pub mod options;
mod redact;
pub mod ufs;
pub mod uri;
pub mod write;

pub use context::UfsContext;
pub use environment::Environment;
pub use error::{Op, UfsError};
pub use metadata::{Entry, FileKind, Metadata};
pub use metrics::UfsMetrics;
pub use open::open;
pub use options::{OptionSpec, known_options};
pub use ufs::{Ufs, probe, read_to_bytes};
pub use uri::{Scheme, UfsUri};
pub use write::{
    Abilities, AttributeChange, Attributes, Condition, PartRules, RenameMode, Space, Unfinished,
    Upload,
};
