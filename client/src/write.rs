//! Writing the contents of files.
//!
//! A file that is being written in this client is a [`Draft`](draft::Draft): what was written
//! lies in a staging file (or in memory, while it is little), the rest shows through from the
//! version that the store has. Flushing a draft makes it the store's new version, in one step.
//!
//! | module | holds |
//! |---|---|
//! | `draft`, `writer` | one file being written; a handle on it |
//! | `drafts`, `overlay` | the drafts of a client by path; how they show in look-ups and listings |
//! | `content` | which byte is where: pure |
//! | `staged`, `staging` | the bytes that were written; the directory and the budget for them |
//! | `parts`, `sending` | how uploads are cut: pure; what goes up while it is written |
//! | `rescue` | what could not be sent |
//! | `turns` | drafts stand still while their names change |
//! | `commit` | a draft becomes a version of its file |
//!
//! # Invariants
//! - What a draft reads is exactly what was written to it, over one version of the file.
//! - The store shows the whole old file or the whole new one; a call that reports success has
//!   made the new one visible.

mod api;
mod commit;
mod content;
mod draft;
mod drafts;
pub(crate) mod overlay;
mod parts;
mod rescue;
mod sending;
mod staged;
mod staging;
#[cfg(test)]
mod tests;
mod turns;
mod writer;

pub use draft::Draft;
pub(crate) use drafts::Drafts;
pub(crate) use staging::Staging;
pub(crate) use turns::Turns;
pub use writer::Writer;
