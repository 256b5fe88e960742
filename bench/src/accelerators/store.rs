//! Samples in a directory, or behind the client library.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use millpond_client::FileSystem;
use rustix::fs::{Advice, fadvise};
use std::num::NonZeroU64;
use tokio::runtime::Handle;

use super::model::Place;
use crate::read::dataset::Dataset;
use crate::read::kernel;
use crate::read::layout::FileInfo;
use crate::record::KernelCache;

/// Bytes at the end of each sample that are compared as it is read. All bytes are compared
/// before the runs.
const CHECKED: usize = 64;

/// Where samples are read from.
#[derive(Debug)]
pub(super) enum Store {
    /// A directory, on whatever file system.
    Dir(PathBuf),
    /// The namespace of a cluster, by a client in this process.
    Library {
        filesystem: FileSystem,
        root: String,
        runtime: Handle,
    },
}

impl Store {
    /// Reads all of a sample into `buffer`, and leaves no pages of it to the kernel.
    pub(super) fn read(&self, data: &Dataset, place: Place, buffer: &mut Vec<u8>) -> Result<()> {
        let info = &data.files()[place.file];
        buffer.resize(place.len, 0);
        match self {
            Self::Dir(root) => {
                let path = root.join(&info.path);
                let cannot = || format!("reading {}", path.display());
                let file = File::open(&path).with_context(cannot)?;
                file.read_exact_at(buffer, place.offset)
                    .with_context(cannot)?;
                let len = NonZeroU64::new(place.len as u64);
                fadvise(&file, place.offset, len, Advice::DontNeed).with_context(cannot)?;
            }
            Self::Library {
                filesystem,
                root,
                runtime,
            } => {
                let path = format!("{root}/{}", info.path);
                let len = u32::try_from(place.len)?;
                let read = runtime.block_on(async {
                    filesystem.open(&path).await?.read(place.offset, len).await
                });
                let bytes = read.with_context(|| format!("reading {path}"))?;
                ensure!(bytes.len() == place.len, "{path} is shorter than it was");
                buffer.copy_from_slice(&bytes);
            }
        }
        let tail = place.len.saturating_sub(CHECKED);
        let wrong = data.mismatches(place.file, place.offset + tail as u64, &buffer[tail..]);
        ensure!(wrong == 0, "{wrong} bytes of {} are wrong", info.path);
        Ok(())
    }

    /// Reads and compares every byte; how many there are, and how many are wrong.
    pub(super) fn verify(&self, data: &Dataset) -> Result<(u64, u64)> {
        let (mut bytes, mut wrong) = (0, 0);
        let mut buffer = Vec::new();
        for (file, info) in data.files().iter().enumerate() {
            let mut offset = 0;
            while offset < info.size {
                let len = (info.size - offset).min(PIECE) as usize;
                self.read(data, Place { file, offset, len }, &mut buffer)?;
                wrong += data.mismatches(file, offset, &buffer);
                offset += len as u64;
            }
            bytes += info.size;
        }
        Ok((bytes, wrong))
    }

    /// Has the kernel drop its pages of all files; nothing to drop behind the library.
    pub(super) fn drop_pages(&self, files: &[FileInfo]) -> Result<Option<KernelCache>> {
        match self {
            Self::Dir(root) => kernel::drop_pages(root, files).map(Some),
            Self::Library { .. } => Ok(None),
        }
    }
}

/// Bytes that are verified at once.
const PIECE: u64 = 4 << 20;
