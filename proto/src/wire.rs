//! What goes over the network: the control-plane service (protobuf, gRPC) and the
//! data-plane frames (QUIC; a Unix socket on the same host).
//!
//! Generated types stay in [`pb`] and in the RPC handlers; everything else uses the domain
//! types of this crate, converted in `convert.rs`.

mod convert;
pub mod frame;
pub mod local;
pub mod query;
pub mod status;

/// Generated from `control.proto`.
#[allow(missing_docs, missing_debug_implementations, reason = "generated code")]
#[allow(
    clippy::all,
    clippy::or_fun_call,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
#[allow(clippy::allow_attributes_without_reason, reason = "generated code")]
#[allow(
    clippy::clone_on_ref_ptr,
    clippy::use_self,
    elided_lifetimes_in_paths,
    reason = "generated code"
)]
pub mod pb {
    tonic::include_proto!("millpond.v1");
}

pub use convert::BadMessage;
