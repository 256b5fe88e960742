//! The coordinator as its callers see it.
//!
//! [`ControlClient`] makes single calls, trying every coordinator it was told of;
//! [`ViewWatch`] follows the cluster view for the life of a process and starts from the
//! last one on disk when no coordinator answers.

mod channel;
mod client;
mod routing;
mod token;
mod types;
mod view_file;
mod watch;

pub use channel::Access;
pub use client::{ControlClient, ControlConfig};
pub use routing::Routing;
pub use token::JoinToken;
pub use types::{
    Certified, ClusterStatus, CoordinatorInfo, JoinRequest, Joined, NodeStatus, TokenInfo,
};
pub use watch::{ViewWatch, WatchConfig};
