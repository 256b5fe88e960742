//! Giving a block's file away: an open descriptor, with what its reader verifies pages by.

use std::fs::File;

use millpond_proto::BlockId;

use super::DiskTier;

/// The open file of a block. It can be read for as long as it is open, also when the block was
/// dropped meanwhile: its room on the disk is free only after that.
#[derive(Debug)]
pub struct SharedFile {
    /// Open for reading.
    pub file: File,
    /// Where the block starts in it.
    pub start: u64,
    /// Length of the block in bytes.
    pub len: u32,
    /// One CRC32C per page of the block. The pages themselves were not read.
    pub checksums: Vec<u32>,
}

impl DiskTier {
    /// The file of a block, as a use of it. None if the block is not held, the disk does not
    /// answer in time, or the file turned out to be damaged where its checksums are (it is then
    /// dropped and counted).
    ///
    /// # Cancel safety
    /// Nothing is lost; what began is finished in the background.
    pub async fn share(&self, id: &BlockId) -> Option<SharedFile> {
        self.in_time(id, |blocks, id| blocks.share(id)).await
    }
}
