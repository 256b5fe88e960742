//! The other coordinators: how they are reached, and how they reach this one.
//!
//! All coordinators of a group share a secret. An authority derived from it signs a certificate
//! for each at its start, with a key of its own, and they show these to each other: so what goes
//! between them (the log, with the credentials of mounts in it) is private, and nobody else can
//! take part. Nodes and clients use the same port.
//!
//! | module | holds |
//! |---|---|
//! | `listener` | one port for TLS between coordinators and for everybody else |
//! | `peers` | calls to other coordinators |
//! | `server` | calls from them |

mod listener;
mod peers;
mod server;

pub use listener::{Caller, Incoming};
pub(crate) use peers::forward;
pub use peers::{PeerError, Peers};
pub use server::GroupService;
