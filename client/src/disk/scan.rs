//! Finds the files of an earlier process.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use millpond_disk::DiskError;
use millpond_proto::FileId;

use super::layout::{DATA, Layout, MAP};

/// A cached file with its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: FileId,
    /// Bytes that the two take on disk.
    pub(super) room: u64,
    opened: SystemTime,
}

/// All cached files, the one opened longest ago first. Their content is looked at when they
/// are used. One without a map, or a map alone, is what a crash left: it is removed.
pub(super) fn scan(layout: &Layout) -> Result<Vec<Found>, DiskError> {
    let mut found = layout.dir().scan(|fan| scan_fan(layout, fan))?;
    found.sort_unstable_by_key(|f| (f.opened, f.id));
    Ok(found)
}

/// The two files of one id.
#[derive(Default)]
struct Pair {
    data: Option<Metadata>,
    map: Option<Metadata>,
}

fn scan_fan(layout: &Layout, path: &Path) -> io::Result<Vec<Found>> {
    let mut pairs: HashMap<FileId, Pair> = HashMap::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let path = entry.path();
        match kind_of(layout, &path) {
            Some((id, DATA)) => pairs.entry(id).or_default().data = Some(entry.metadata()?),
            Some((id, _)) => pairs.entry(id).or_default().map = Some(entry.metadata()?),
            None => tracing::warn!(path = %path.display(), "not a cached file, left alone"),
        }
    }
    let mut found = Vec::with_capacity(pairs.len());
    for (id, pair) in pairs {
        match (pair.data, pair.map) {
            (Some(data), Some(map)) => found.push(Found {
                id,
                room: (data.blocks() + map.blocks()) * 512,
                opened: map.modified()?,
            }),
            (Some(_), None) => fs::remove_file(layout.data(id))?,
            (None, Some(_)) => fs::remove_file(layout.map(id))?,
            (None, None) => {}
        }
    }
    Ok(found)
}

/// Which file of which id has this path.
fn kind_of(layout: &Layout, path: &PathBuf) -> Option<(FileId, &'static str)> {
    let id = path.file_stem()?.to_str()?.parse().ok()?;
    if *path == layout.data(id) {
        Some((id, DATA))
    } else if *path == layout.map(id) {
        Some((id, MAP))
    } else {
        None
    }
}
