//! What is read: a directory through the kernel, or a namespace through the client library.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use millpond_client::{FileHandle, FileKind, FileSystem};
use tokio::runtime::Handle;

use super::layout::{FileInfo, Layout, Piece};
use crate::limits::pages::Mapping;

/// The most files that one reader keeps open.
const OPEN_FILES: usize = 128;

/// Where the bytes come from.
pub(crate) enum Source {
    Dir(PathBuf),
    Library(Library),
}

/// A namespace, or a part of one, behind a client of our own.
#[derive(Clone)]
pub(crate) struct Library {
    pub(super) filesystem: FileSystem,
    /// Absolute; all paths of files are below it.
    pub(super) root: String,
    pub(super) runtime: Handle,
}

/// Reads pieces of a layout's files, for one thread.
pub(super) trait Reader: Send {
    /// The bytes of a piece; fewer if the file has become shorter.
    fn read(&mut self, piece: Piece) -> Result<&[u8]>;
}

impl Source {
    /// All files, sorted by path.
    pub(crate) fn files(&self) -> Result<Arc<[FileInfo]>> {
        let mut files = match self {
            Self::Dir(root) => {
                let mut files = Vec::new();
                walk(root, "", &mut files)?;
                files
            }
            Self::Library(library) => library.runtime.block_on(library.list())?,
        };
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files.into())
    }

    /// A reader of its own for one thread. Only files of a directory can be mapped.
    pub(super) fn reader(&self, layout: &Layout, mmap: bool) -> Box<dyn Reader> {
        let files = Arc::clone(&layout.files);
        let buffer = || vec![0; layout.block() as usize];
        match self {
            Self::Dir(root) if mmap => Box::new(MapReader {
                open: OpenFiles::new(root, files),
                buffer: buffer(),
            }),
            Self::Dir(root) => Box::new(DirReader {
                open: OpenFiles::new(root, files),
                buffer: buffer(),
            }),
            Self::Library(library) => Box::new(LibraryReader {
                library: library.clone(),
                files,
                open: HashMap::new(),
                buffer: buffer(),
            }),
        }
    }

    /// The directory, if it is one.
    pub(super) fn dir(&self) -> Option<&Path> {
        match self {
            Self::Dir(dir) => Some(dir),
            Self::Library(_) => None,
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(dir) => f.debug_tuple("Dir").field(dir).finish(),
            Self::Library(library) => f.debug_tuple("Library").field(&library.root).finish(),
        }
    }
}

impl Library {
    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.root.trim_end_matches('/'))
    }

    async fn list(&self) -> Result<Vec<FileInfo>> {
        let mut files = Vec::new();
        let mut dirs = vec![String::new()];
        while let Some(dir) = dirs.pop() {
            let at = self.at(&dir);
            let mut pages = self.filesystem.list(&at);
            let cannot = || format!("listing {at}");
            while let Some(page) = pages.try_next().await.with_context(cannot)? {
                for entry in page {
                    let path = match &*dir {
                        "" => entry.name.to_string(),
                        dir => format!("{dir}/{}", entry.name),
                    };
                    match entry.attr.kind {
                        FileKind::Directory => dirs.push(path),
                        FileKind::File => files.push(FileInfo {
                            path,
                            size: entry.attr.size,
                        }),
                        FileKind::Symlink => {}
                    }
                }
            }
        }
        Ok(files)
    }
}

fn walk(dir: &Path, prefix: &str, files: &mut Vec<FileInfo>) -> Result<()> {
    let cannot = || format!("cannot list {}", dir.display());
    for entry in fs::read_dir(dir).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let Ok(name) = entry.file_name().into_string() else {
            // Not a name that any of our stores could hold.
            continue;
        };
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().with_context(cannot)?;
        if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files)?;
        } else if kind.is_file() {
            let size = entry.metadata().with_context(cannot)?.len();
            files.push(FileInfo { path, size });
        }
    }
    Ok(())
}

/// Files of a directory that one thread has open, in the form `F`.
struct OpenFiles<F> {
    root: PathBuf,
    files: Arc<[FileInfo]>,
    open: HashMap<usize, F>,
}

impl<F> OpenFiles<F> {
    fn new(root: &Path, files: Arc<[FileInfo]>) -> Self {
        Self {
            root: root.to_owned(),
            files,
            open: HashMap::new(),
        }
    }

    fn get(&mut self, index: usize, make: impl FnOnce(File, u64) -> Result<F>) -> Result<&F> {
        if !self.open.contains_key(&index) {
            if self.open.len() >= OPEN_FILES {
                self.open.clear();
            }
            let info = &self.files[index];
            let path = self.root.join(&info.path);
            let opened = File::open(&path).map_err(Into::into);
            let opened = opened.and_then(|file| make(file, info.size));
            let opened = opened.with_context(|| format!("opening {}", path.display()))?;
            self.open.insert(index, opened);
        }
        Ok(&self.open[&index])
    }
}

struct DirReader {
    open: OpenFiles<File>,
    buffer: Vec<u8>,
}

impl Reader for DirReader {
    fn read(&mut self, piece: Piece) -> Result<&[u8]> {
        let file = self.open.get(piece.file, |file, _| Ok(file))?;
        let mut filled = 0;
        while filled < piece.len {
            let at = piece.offset + filled as u64;
            match file.read_at(&mut self.buffer[filled..piece.len], at)? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(&self.buffer[..filled])
    }
}

struct MapReader {
    open: OpenFiles<Mapping>,
    buffer: Vec<u8>,
}

impl Reader for MapReader {
    fn read(&mut self, piece: Piece) -> Result<&[u8]> {
        let mapping = self.open.get(piece.file, |file, size| {
            // Beyond its end a mapping has nothing but SIGBUS.
            let size = usize::try_from(size.min(file.metadata()?.len()))?;
            Ok(Mapping::new(&file, size)?)
        })?;
        let into = &mut self.buffer[..piece.len];
        mapping.copy(usize::try_from(piece.offset)?, into);
        Ok(into)
    }
}

struct LibraryReader {
    library: Library,
    files: Arc<[FileInfo]>,
    open: HashMap<usize, Arc<FileHandle>>,
    buffer: Vec<u8>,
}

impl Reader for LibraryReader {
    fn read(&mut self, piece: Piece) -> Result<&[u8]> {
        let runtime = &self.library.runtime;
        if !self.open.contains_key(&piece.file) {
            if self.open.len() >= OPEN_FILES {
                self.open.clear();
            }
            let path = self.library.at(&self.files[piece.file].path);
            let opened = runtime.block_on(self.library.filesystem.open(&path));
            let handle = opened.with_context(|| format!("opening {path}"))?;
            self.open.insert(piece.file, handle);
        }
        let handle = &self.open[&piece.file];
        let len = u32::try_from(piece.len)?;
        let data = match handle.try_read(piece.offset, len) {
            Some(data) => data,
            None => runtime.block_on(handle.read(piece.offset, len))?,
        };
        // The library lends its memory. Bytes that nobody looks at would cost nothing, so they
        // go where those of a file would.
        let into = &mut self.buffer[..data.len()];
        into.copy_from_slice(&data);
        Ok(into)
    }
}
