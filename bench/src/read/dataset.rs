//! Files whose bytes follow from a seed, so that any of them can be checked.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::layout::FileInfo;
use crate::limits::content::Content;

/// Bytes that are generated at once.
const CHUNK: usize = 1 << 20;

/// A directory of such files.
#[derive(Debug, Clone)]
pub(crate) struct Dataset {
    dir: PathBuf,
    files: Arc<[FileInfo]>,
    seed: u64,
}

impl Dataset {
    /// Writes the files below `dir`, which is made with all directories in it, to the disk.
    ///
    /// # Errors
    /// When that has no room for them.
    pub(crate) fn write(dir: &Path, files: Arc<[FileInfo]>, seed: u64) -> Result<Self> {
        let dataset = Self {
            dir: dir.to_owned(),
            files,
            seed,
        };
        let mut made: Option<PathBuf> = None;
        for index in 0..dataset.files.len() {
            let path = dir.join(&dataset.files[index].path);
            let cannot = || format!("cannot write {}", path.display());
            let parent = path.parent().map(Path::to_owned);
            if let Some(parent) = &parent
                && made != Some(parent.clone())
            {
                fs::create_dir_all(parent).with_context(cannot)?;
            }
            made = parent;
            dataset.write_file(index, &path).with_context(cannot)?;
        }
        Ok(dataset)
    }

    fn write_file(&self, index: usize, path: &Path) -> io::Result<()> {
        let (mut file, content) = (File::create(path)?, self.content(index));
        let size = self.files[index].size;
        let mut chunk = vec![0; CHUNK.min(size as usize)];
        let mut at = 0;
        while at < size {
            let len = (size - at).min(CHUNK as u64) as usize;
            content.fill(at, &mut chunk[..len]);
            file.write_all(&chunk[..len])?;
            at += len as u64;
        }
        // Pages that are not on the disk cannot be dropped.
        file.sync_data()
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its files.
    pub(crate) const fn files(&self) -> &Arc<[FileInfo]> {
        &self.files
    }

    /// How many of these bytes of file `index` from `offset` on are wrong.
    pub(crate) fn mismatches(&self, index: usize, offset: u64, found: &[u8]) -> u64 {
        self.content(index).mismatches(offset, found)
    }

    fn content(&self, index: usize) -> Content {
        // Of files without a byte no byte is asked for.
        let period = self.files[index].size.max(1);
        Content::new(self.seed.wrapping_add(index as u64), period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_right_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("a/b/one", 3_000_001u64), ("a/none", 0), ("two", 7)];
        let files: Arc<[FileInfo]> = files
            .map(|(path, size)| FileInfo {
                path: path.to_owned(),
                size,
            })
            .into();
        let dataset = Dataset::write(dir.path(), files, 5).unwrap();
        for (index, info) in dataset.files().iter().enumerate() {
            let mut bytes = fs::read(dataset.dir().join(&info.path)).unwrap();
            assert_eq!(bytes.len() as u64, info.size);
            assert_eq!(dataset.mismatches(index, 0, &bytes), 0);
            if let Some(byte) = bytes.last_mut() {
                *byte ^= 1;
                assert_eq!(dataset.mismatches(index, 0, &bytes), 1);
            }
        }
        let one = fs::read(dataset.dir().join("a/b/one")).unwrap();
        assert_eq!(dataset.mismatches(0, 1_000_003, &one[1_000_003..]), 0);
        assert!(dataset.mismatches(2, 0, &one[..7]) > 0);
    }
}
