//! What is read: a directory through the kernel, or a UFS through the client library.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::TryStreamExt;
use millpond_client::{ClientConfig, FileHandle, FileKind, FileSystem};
use millpond_process::shared_registry;
use tokio::runtime::Handle;

use super::args::ReadArgs;
use super::layout::{FileInfo, Layout, Piece};

/// The most files that one reader keeps open.
const OPEN_FILES: usize = 128;

/// Where the bytes come from.
#[derive(Debug)]
pub(super) enum Source {
    Dir(PathBuf),
    Client(ClientSource),
}

/// A UFS behind a client of our own.
#[derive(Debug)]
pub(super) struct ClientSource {
    uri: String,
    options: BTreeMap<String, String>,
    memory: u64,
    runtime: Handle,
    filesystem: FileSystem,
}

/// Reads pieces of a layout's files, for one thread.
pub(super) trait Reader: Send {
    /// The bytes of a piece; fewer if the file has become shorter.
    fn read(&mut self, piece: Piece) -> Result<&[u8]>;
}

impl Source {
    pub(super) fn open(args: &ReadArgs) -> Result<Self> {
        if let Some(dir) = &args.dir {
            return Ok(Self::Dir(dir.clone()));
        }
        let (uri, options) = (args.target(), args.ufs_options());
        let (memory, runtime) = (args.memory.bytes(), Handle::current());
        let filesystem = runtime.block_on(connect(&uri, &options, memory))?;
        Ok(Self::Client(ClientSource {
            uri,
            options,
            memory,
            runtime,
            filesystem,
        }))
    }

    /// All files, sorted by path.
    pub(super) fn files(&self) -> Result<Vec<FileInfo>> {
        let mut files = match self {
            Self::Dir(root) => {
                let mut files = Vec::new();
                walk(root, "", &mut files)?;
                files
            }
            Self::Client(client) => client.runtime.block_on(list(&client.filesystem))?,
        };
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    pub(super) fn reader(&self, layout: &Layout) -> Result<Box<dyn Reader>> {
        let files = Arc::clone(&layout.files);
        Ok(match self {
            Self::Dir(root) => Box::new(DirReader {
                root: root.clone(),
                files,
                open: HashMap::new(),
                buffer: vec![0; layout.block() as usize],
            }),
            Self::Client(client) => Box::new(ClientReader {
                filesystem: client.filesystem.clone(),
                runtime: client.runtime.clone(),
                files,
                open: HashMap::new(),
                data: Bytes::new(),
            }),
        })
    }

    /// Replaces a client by one with empty caches. Nothing for a directory.
    pub(super) fn renew(&mut self) -> Result<()> {
        if let Self::Client(client) = self {
            client.runtime.block_on(client.filesystem.shutdown());
            let connecting = connect(&client.uri, &client.options, client.memory);
            client.filesystem = client.runtime.block_on(connecting)?;
        }
        Ok(())
    }

    pub(super) fn close(self) {
        if let Self::Client(client) = self {
            client.runtime.block_on(client.filesystem.shutdown());
        }
    }
}

async fn connect(uri: &str, options: &BTreeMap<String, String>, memory: u64) -> Result<FileSystem> {
    let config = ClientConfig {
        memory,
        ..ClientConfig::default()
    };
    let registry = shared_registry();
    FileSystem::standalone(uri, options.clone(), config, &registry)
        .await
        .with_context(|| format!("cannot open {uri}"))
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

async fn list(filesystem: &FileSystem) -> Result<Vec<FileInfo>> {
    let mut files = Vec::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        let at = if dir.is_empty() {
            "/".to_owned()
        } else {
            dir.clone()
        };
        let mut pages = filesystem.list(&at);
        while let Some(page) = pages
            .try_next()
            .await
            .with_context(|| format!("listing {at}"))?
        {
            for entry in page {
                let path = format!("{dir}/{}", entry.name);
                match entry.attr.kind {
                    FileKind::Directory => dirs.push(path),
                    FileKind::File => {
                        let path = path.trim_start_matches('/').to_owned();
                        files.push(FileInfo {
                            path,
                            size: entry.attr.size,
                        });
                    }
                    FileKind::Symlink => {}
                }
            }
        }
    }
    Ok(files)
}

struct DirReader {
    root: PathBuf,
    files: Arc<[FileInfo]>,
    open: HashMap<usize, File>,
    buffer: Vec<u8>,
}

impl Reader for DirReader {
    fn read(&mut self, piece: Piece) -> Result<&[u8]> {
        if !self.open.contains_key(&piece.file) {
            if self.open.len() >= OPEN_FILES {
                self.open.clear();
            }
            let path = self.root.join(&self.files[piece.file].path);
            let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            self.open.insert(piece.file, file);
        }
        let file = &self.open[&piece.file];
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

struct ClientReader {
    filesystem: FileSystem,
    runtime: Handle,
    files: Arc<[FileInfo]>,
    open: HashMap<usize, Arc<FileHandle>>,
    data: Bytes,
}

impl Reader for ClientReader {
    fn read(&mut self, piece: Piece) -> Result<&[u8]> {
        if !self.open.contains_key(&piece.file) {
            if self.open.len() >= OPEN_FILES {
                self.open.clear();
            }
            let path = format!("/{}", self.files[piece.file].path);
            let handle = self
                .runtime
                .block_on(self.filesystem.open(&path))
                .with_context(|| format!("opening {path}"))?;
            self.open.insert(piece.file, handle);
        }
        let handle = &self.open[&piece.file];
        let len = u32::try_from(piece.len)?;
        self.data = match handle.try_read(piece.offset, len) {
            Some(data) => data,
            None => self.runtime.block_on(handle.read(piece.offset, len))?,
        };
        Ok(&self.data)
    }
}
