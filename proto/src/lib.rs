//! The words that two Millpond processes share.
//!
//! Everything here is pure (no clock, no I/O, no runtime) except [`wire`], which holds
//! the protobuf service and the QUIC frame codec behind the feature of the same name.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | [`FileId`], [`BlockId`], [`NodeId`], [`MountId`], [`ClusterId`], [`Epoch`] |
//! | [`version`] | [`FileVersion`]: which bytes of an object are meant |
//! | [`block`] | [`BlockSize`] and the arithmetic from byte ranges to block spans |
//! | [`checksum`] | CRC32C per 64 KiB page |
//! | [`ring`] | [`Ring`]: which nodes own a block |
//! | [`mount`] | [`MountTable`]: which UFS a path belongs to |
//! | [`metadata`] | [`Trust`]: how long attributes are believed |
//! | [`profile`] | [`Profile`]: what a mount's data are used for |
//! | [`change`] | [`ChangeLog`]: paths that are no longer as they were said to be |
//! | [`cluster`] | [`ClusterView`]: members, epoch and mounts as one immutable value |
//! | [`error`] | [`ErrorKind`]: what the caller should do about a failure |

pub mod block;
pub mod change;
pub mod checksum;
pub mod cluster;
pub mod error;
pub mod id;
pub mod metadata;
pub mod mount;
pub mod profile;
pub mod refusal;
pub mod ring;
pub mod version;
#[cfg(feature = "wire")]
pub mod wire;

pub use block::{BlockSize, BlockSpan};
pub use change::{Change, ChangeLog};
pub use cluster::{ClusterView, Member, MemberState, NodeStats};
pub use error::ErrorKind;
pub use id::{BlockId, ClusterId, Epoch, FileId, MountId, NodeId};
pub use metadata::{MetadataMode, MetadataOptions, Trust};
pub use mount::{Mount, MountPath, MountTable};
pub use profile::Profile;
pub use refusal::Refusal;
pub use ring::Ring;
pub use version::FileVersion;
