//! The truth that reads are compared with: the source files, reached without Millpond's tier.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bytes::{Buf, Bytes};
use futures::TryStreamExt;
use futures::stream::StreamExt;
use millpond_proto::FileVersion;
use millpond_ufs::{FileKind, Ufs};
use tokio::runtime::Handle;

/// Where the dataset really lies.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A directory on this machine, read as plain files.
    Directory(PathBuf),
    /// Any store, read directly.
    Store(Arc<dyn Ufs>),
}

/// One file to read and compare.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    /// Relative to the source's root.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Known for files of a store.
    version: Option<FileVersion>,
}

impl SourceFile {
    /// A file of a local directory.
    pub(crate) fn local(path: String, size: u64) -> Self {
        Self {
            path,
            size,
            version: None,
        }
    }
}

/// Opens the store at `uri` and lists all files below it.
///
/// # Errors
/// When the store cannot be opened or listed; when it holds no file.
pub(crate) async fn open_store(
    uri: &str,
    options: &BTreeMap<String, String>,
) -> anyhow::Result<(Source, Vec<SourceFile>)> {
    let ufs = millpond_ufs::open(uri, options, crate::connect::ufs_context()).await;
    let ufs = ufs.map_err(crate::connect::ufs_usage)?;
    let mut files = Vec::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        let mut pages = ufs.list(&dir);
        while let Some(page) = pages.try_next().await? {
            for entry in page {
                let path = join(&dir, &entry.name);
                match entry.metadata.kind {
                    FileKind::Directory => dirs.push(path),
                    FileKind::Symlink => {}
                    FileKind::File => {
                        let mut metadata = entry.metadata;
                        if metadata.version.is_none() {
                            metadata = ufs.stat(&path).await?;
                        }
                        files.push(SourceFile {
                            path,
                            size: metadata.size,
                            version: metadata.version,
                        });
                    }
                }
            }
        }
    }
    anyhow::ensure!(!files.is_empty(), "{} holds no file to read", ufs.uri());
    Ok((Source::Store(ufs), files))
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}

impl Source {
    /// Opens `file` for a comparison from its start to its end. Blocks; `runtime` serves the
    /// store.
    pub(crate) fn open(&self, file: &SourceFile, runtime: &Handle) -> anyhow::Result<Truth> {
        match self {
            Self::Directory(root) => {
                let path = root.join(&file.path);
                let cannot = || format!("cannot open the source {}", path.display());
                Ok(Truth::File(File::open(&path).with_context(cannot)?))
            }
            Self::Store(ufs) => {
                let version = file
                    .version
                    .as_ref()
                    .context("the store gives no version")?;
                let read = ufs.read(&file.path, version, 0..file.size);
                let stream = runtime.block_on(read)?;
                Ok(Truth::Stream {
                    stream: stream.boxed(),
                    left: Bytes::new(),
                    runtime: runtime.clone(),
                })
            }
        }
    }
}

/// The true bytes of one file.
pub(crate) enum Truth {
    /// A local file.
    File(File),
    /// A direct read from a store, in order.
    Stream {
        stream: millpond_ufs::ufs::ByteStream,
        left: Bytes,
        runtime: Handle,
    },
}

impl Truth {
    /// Where `data`, read at `offset`, first differs from the truth; none if it does not.
    /// Called for pieces in order. Blocks.
    pub(crate) fn difference(
        &mut self,
        offset: u64,
        data: &[u8],
        scratch: &mut Vec<u8>,
    ) -> anyhow::Result<Option<u64>> {
        match self {
            Self::File(file) => {
                scratch.resize(data.len(), 0);
                file.read_exact_at(scratch, offset)
                    .context("cannot read the source")?;
                Ok(first_difference(scratch, data).map(|at| offset + at))
            }
            Self::Stream {
                stream,
                left,
                runtime,
            } => {
                let mut at = 0;
                while at < data.len() {
                    if left.is_empty() {
                        let next = runtime.block_on(stream.try_next())?;
                        *left = next.context("the source ended early")?;
                        continue;
                    }
                    let take = left.len().min(data.len() - at);
                    if let Some(found) = first_difference(&left[..take], &data[at..at + take]) {
                        return Ok(Some(offset + at as u64 + found));
                    }
                    left.advance(take);
                    at += take;
                }
                Ok(None)
            }
        }
    }
}

/// The index of the first byte in which two slices of one length differ.
fn first_difference(a: &[u8], b: &[u8]) -> Option<u64> {
    // Slices compare by memcmp; only a difference is worth a search.
    if a == b {
        return None;
    }
    a.iter()
        .zip(b)
        .position(|(a, b)| a != b)
        .map(|at| at as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found_where_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"0123456789").unwrap();
        let mut truth = Truth::File(File::open(file.path()).unwrap());
        let mut scratch = Vec::new();
        assert_eq!(truth.difference(2, b"2345", &mut scratch).unwrap(), None);
        assert_eq!(truth.difference(2, b"23x5", &mut scratch).unwrap(), Some(4));
        assert!(truth.difference(8, b"8901", &mut scratch).is_err());
    }

    #[test]
    fn a_stream_is_compared_across_its_pieces() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let pieces = ["01", "", "2345", "6789"].map(|s| Ok(Bytes::from_static(s.as_bytes())));
        let mut truth = Truth::Stream {
            stream: futures::stream::iter(pieces).boxed(),
            left: Bytes::new(),
            runtime: runtime.handle().clone(),
        };
        let mut scratch = Vec::new();
        assert_eq!(truth.difference(0, b"012", &mut scratch).unwrap(), None);
        assert_eq!(truth.difference(3, b"34x6", &mut scratch).unwrap(), Some(5));
    }
}
