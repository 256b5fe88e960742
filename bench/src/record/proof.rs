//! What makes a figure believable.

use serde::{Deserialize, Serialize};

/// What was checked in the run itself. What was not checked is `None`, not "fine".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Bytes that were compared with what they should be, in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_bytes: Option<u64>,
    /// Bytes or files that differed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatches: Option<u64>,
    /// Requests to the UFS, by the whole cluster, while it was measured; zero proves "warm".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ufs_requests: Option<u64>,
    /// Bytes from the UFS, by the whole cluster, while it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ufs_bytes: Option<u64>,
    /// What became of the kernel's pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_cache: Option<KernelCache>,
}

/// The kernel's pages of the files that are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum KernelCache {
    /// They were meant to be there, and this many bytes were before the last run.
    Kept {
        /// Resident bytes.
        resident: u64,
    },
    /// They were dropped before each run; the last time these bytes were there before and
    /// after.
    Dropped {
        /// Resident bytes before the drop.
        before: u64,
        /// Resident bytes after it: zero unless the drop failed.
        after: u64,
    },
    /// They could not be dropped.
    CouldNotDrop {
        /// Why.
        why: String,
    },
}
