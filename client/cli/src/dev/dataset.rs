//! The sample dataset: a few large files and many small ones, the same bytes every time.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// The recipe of a dataset: equal recipes give equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    /// Everything below is drawn from it.
    pub(crate) seed: u64,
    /// Number of large files.
    pub(crate) large_files: u32,
    /// Bytes of each.
    pub(crate) large_size: u64,
    /// Number of small files.
    pub(crate) small_files: u32,
    /// Bytes of the largest small file; sizes are spread evenly from 1 to it.
    pub(crate) small_max: u64,
}

/// One file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SampleFile {
    /// Relative to the dataset's root.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: u64,
}

/// Files in one directory of small ones.
const PER_DIRECTORY: u32 = 100;

/// Where a dataset notes what it holds, beside its files.
const MANIFEST: &str = "manifest.json";

impl Recipe {
    /// About `size` bytes: three quarters in three large files, the rest in small ones of
    /// 64 KiB on average, 2000 of them at 512 MiB.
    pub(crate) fn of_size(size: u64) -> Self {
        let small_max = 128 << 10;
        Self {
            seed: 0x6d69_6c6c_706f_6e64,
            large_files: 3,
            large_size: (size / 4).max(1),
            small_files: (size as u128 * 2000 / (512 << 20)).clamp(20, 200_000) as u32,
            small_max,
        }
    }

    /// All files in order of their paths.
    pub(crate) fn files(&self) -> Vec<SampleFile> {
        let large = (0..self.large_files).map(|i| SampleFile {
            path: format!("large/part-{i:03}.bin"),
            size: self.large_size,
        });
        let small = (0..self.small_files).map(|i| SampleFile {
            path: format!("small/{:03}/item-{i:06}.dat", i / PER_DIRECTORY),
            size: 1 + mix(self.seed ^ u64::from(i)) % self.small_max,
        });
        large.chain(small).collect()
    }

    /// Makes sure that `root/files` holds the dataset; returns that directory, and whether
    /// anything had to be written. `progress` is told each number of bytes as they are
    /// settled; it answers whether to go on.
    ///
    /// # Errors
    /// When the disk does not take it, or `progress` says stop.
    pub(crate) fn make(
        &self,
        root: &Path,
        mut progress: impl FnMut(u64) -> bool,
    ) -> anyhow::Result<(PathBuf, bool)> {
        let data = root.join("files");
        let noted = Manifest::read(root).filter(|m| m.recipe == *self);
        let mut manifest = Manifest {
            recipe: *self,
            mtimes: Vec::new(),
        };
        let mut written = false;
        for (index, file) in self.files().iter().enumerate() {
            let path = data.join(&file.path);
            let expected = noted.as_ref().and_then(|m| m.mtimes.get(index).copied());
            let mtime = match expected.filter(|_| intact(&path, file.size) == expected) {
                Some(mtime) => mtime,
                None => {
                    written = true;
                    self.write(index as u64, file, &path)?
                }
            };
            manifest.mtimes.push(mtime);
            if !progress(file.size) {
                bail!("interrupted");
            }
        }
        if written {
            manifest.write(root)?;
        }
        Ok((data, written))
    }

    /// Writes one file; returns its modification time.
    fn write(&self, index: u64, file: &SampleFile, path: &Path) -> anyhow::Result<u64> {
        let cannot = || format!("cannot write the sample dataset's {}", path.display());
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(cannot)?;
        }
        let mut out =
            BufWriter::with_capacity(1 << 20, fs::File::create(path).with_context(cannot)?);
        let stream = mix(self
            .seed
            .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let mut left = file.size;
        let mut word = 0;
        while left > 0 {
            let bytes = mix(stream.wrapping_add(word)).to_le_bytes();
            let take = left.min(8) as usize;
            out.write_all(&bytes[..take]).with_context(cannot)?;
            left -= take as u64;
            word += 1;
        }
        out.flush().with_context(cannot)?;
        drop(out);
        intact(path, file.size).with_context(cannot)
    }
}

/// The modification time in nanoseconds of the file at `path` if it is there with `size` bytes.
fn intact(path: &Path, size: u64) -> Option<u64> {
    let metadata = fs::metadata(path)
        .ok()
        .filter(|m| m.is_file() && m.len() == size)?;
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// What was written when, so that a dataset that is there can be used again and a changed
/// file is noticed.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    recipe: Recipe,
    mtimes: Vec<u64>,
}

impl Manifest {
    /// None if there is none, or it is not readable.
    fn read(root: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(root.join(MANIFEST)).ok()?).ok()
    }

    fn write(&self, root: &Path) -> anyhow::Result<()> {
        let path = root.join(MANIFEST);
        let cannot = || format!("cannot write {}", path.display());
        fs::write(&path, serde_json::to_vec(self)?).with_context(cannot)
    }
}

/// SplitMix64's output function (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014): a fixed bijection, so the dataset never changes with a library.
fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Recipe {
        Recipe {
            seed: 7,
            large_files: 1,
            large_size: 100_003,
            small_files: 5,
            small_max: 50,
        }
    }

    fn bytes(root: &Path, recipe: &Recipe) -> Vec<Vec<u8>> {
        let read = |file: SampleFile| fs::read(root.join("files").join(file.path)).unwrap();
        recipe.files().into_iter().map(read).collect()
    }

    #[test]
    fn the_default_has_the_promised_shape() {
        let recipe = Recipe::of_size(512 << 20);
        let files = recipe.files();
        assert_eq!((recipe.large_files, recipe.large_size), (3, 128 << 20));
        assert_eq!(files.len(), 2003);
        let total: u64 = files.iter().map(|f| f.size).sum();
        assert!((480 << 20..544 << 20).contains(&total), "{total}");
        assert!(files.iter().all(|f| f.size > 0));
    }

    #[test]
    fn equal_recipes_give_equal_bytes() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&a, &b] {
            assert!(tiny().make(dir.path(), |_| true).unwrap().1);
        }
        assert_eq!(bytes(a.path(), &tiny()), bytes(b.path(), &tiny()));
        let other = Recipe { seed: 8, ..tiny() };
        let c = tempfile::tempdir().unwrap();
        other.make(c.path(), |_| true).unwrap();
        assert_ne!(bytes(a.path(), &tiny())[0], bytes(c.path(), &other)[0]);
        // Golden: the first word of the first file, so that the recipe never drifts.
        let first: [u8; 8] = bytes(a.path(), &tiny())[0][..8].try_into().unwrap();
        assert_eq!(u64::from_le_bytes(first), mix(mix(7)));
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn an_intact_dataset_is_not_written_again_and_a_damaged_one_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let (data, _) = tiny().make(dir.path(), |_| true).unwrap();
        assert!(!tiny().make(dir.path(), |_| true).unwrap().1);
        let before = bytes(dir.path(), &tiny());
        fs::write(data.join("small/000/item-000003.dat"), b"other").unwrap();
        fs::remove_file(data.join("large/part-000.bin")).unwrap();
        assert!(tiny().make(dir.path(), |_| true).unwrap().1);
        assert_eq!(bytes(dir.path(), &tiny()), before);
    }

    #[test]
    fn making_stops_when_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tiny().make(dir.path(), |_| false).is_err());
    }
}
