//! How Millpond's processes reach each other: QUIC for blocks, on one host a Unix socket that
//! passes descriptors of their files, gRPC for the control plane,
//! one cluster certificate authority for both ends' identities.
//!
//! | module | holds |
//! |---|---|
//! | [`tls`] | [`Identity`](tls::Identity): who a process is; mutual TLS 1.3 settings |
//! | [`ca`] | [`ClusterCa`](ca::ClusterCa): signs identities, used by the coordinator |
//! | [`quic`] | tuned quinn endpoints |
//! | [`block_client`] | asks peers for blocks |
//! | [`block_server`] | answers block requests |
//! | [`control`] | calls the coordinator and follows the cluster view |
//! | [`metrics`] | what the two block ends count |

pub mod block_client;
pub mod block_server;
pub mod ca;
pub mod control;
mod error;
mod file;
mod local;
pub mod metrics;
pub mod quic;
pub mod tls;

pub use error::NetError;
