//! Finds the blocks of an earlier process.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use millpond_disk::DiskError;
use millpond_proto::BlockId;
use tracing::warn;

use super::format;
use super::layout::Layout;
use crate::policy::Policy;

/// A block file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: BlockId,
    /// Length of the block in bytes.
    pub(super) len: u32,
    /// Bytes that the file takes on disk.
    pub(super) size: u64,
    pub(super) policy: Policy,
    written: SystemTime,
}

/// All block files, those written first in front. Their content is verified when it is
/// read. A file whose length no block has is removed.
pub(super) fn scan(layout: &Layout) -> Result<Vec<Found>, DiskError> {
    let mut found = layout.dir().scan(|fan| scan_fan(layout, fan))?;
    found.sort_unstable_by_key(|f| (f.written, f.id));
    Ok(found)
}

/// The blocks that have a file below this directory of the fan.
pub(super) fn ids(fan: &Path) -> io::Result<Vec<BlockId>> {
    let mut ids = Vec::new();
    for dir in list(fan)? {
        ids.extend(list(&dir)?.iter().filter_map(|file| block_id(file)));
    }
    Ok(ids)
}

fn scan_fan(layout: &Layout, path: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for dir in list(path)? {
        for file in list(&dir)? {
            let Some(id) = block_id(&file) else {
                warn!(path = %file.display(), "not a block file, left alone");
                continue;
            };
            let metadata = fs::metadata(&file)?;
            let len = format::block_len(metadata.len());
            match len {
                Some(len) if layout.block(&id) == file => found.push(Found {
                    id,
                    len,
                    size: format::footprint(len as usize),
                    policy: format::policy(&metadata),
                    written: metadata.modified()?,
                }),
                _ => {
                    warn!(block = %id, "damaged block file removed");
                    fs::remove_file(&file)?;
                }
            }
        }
    }
    Ok(found)
}

fn block_id(file: &Path) -> Option<BlockId> {
    file.file_name()?.to_str()?.parse().ok()
}

/// The entries of a directory; none if it does not exist.
fn list(path: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
