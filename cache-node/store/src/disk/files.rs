//! The file operations of the disk tier. A test may make each of them fail or wait.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fs::Advice;

/// An operation on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileOp {
    /// Opening one to read it.
    Open,
    /// Reading from it.
    Read,
    /// Making a new one.
    Create,
    /// Writing to it.
    Write,
    /// Forcing it to the medium.
    Sync,
    /// Giving it another name.
    Rename,
    /// Removing it.
    Remove,
    /// Making a directory.
    MakeDir,
}

impl FileOp {
    /// Whether a file system that is read-only refuses it.
    pub const fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Read)
    }
}

/// What goes wrong with files, for tests.
pub trait Faults: fmt::Debug + Send + Sync + 'static {
    /// Called on the thread of each operation before it: it may wait, as a sick disk does.
    ///
    /// # Errors
    /// The operation's, which is then not done.
    fn before(&self, op: FileOp, path: &Path) -> io::Result<()>;
}

/// The file operations.
#[derive(Debug, Default)]
pub(super) struct Files {
    faults: Option<Arc<dyn Faults>>,
}

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile<'a> {
    files: &'a Files,
    path: &'a Path,
    file: File,
}

impl Files {
    pub(super) const fn new(faults: Option<Arc<dyn Faults>>) -> Self {
        Self { faults }
    }

    pub(super) fn open<'a>(&'a self, path: &'a Path) -> io::Result<OpenFile<'a>> {
        self.before(FileOp::Open, path)?;
        let file = File::open(path)?;
        Ok(self.opened(path, file))
    }

    /// A new file with these permissions.
    pub(super) fn create<'a>(&'a self, path: &'a Path, mode: u32) -> io::Result<OpenFile<'a>> {
        self.before(FileOp::Create, path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        let file = options.open(path)?;
        Ok(self.opened(path, file))
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(FileOp::Rename, to)?;
        fs::rename(from, to)
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(FileOp::Remove, path)?;
        fs::remove_file(path)
    }

    /// Whether there is no such file, for sure.
    pub(super) fn is_gone(path: &Path) -> bool {
        matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    pub(super) fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.before(FileOp::MakeDir, path)?;
        fs::create_dir(path)
    }

    const fn opened<'a>(&'a self, path: &'a Path, file: File) -> OpenFile<'a> {
        OpenFile {
            files: self,
            path,
            file,
        }
    }

    fn before(&self, op: FileOp, path: &Path) -> io::Result<()> {
        match &self.faults {
            None => Ok(()),
            Some(faults) => faults.before(op, path),
        }
    }
}

impl OpenFile<'_> {
    /// Reads exactly `len` bytes at `offset` into a buffer that is not cleared first; none if
    /// the file ends before.
    pub(super) fn read(&self, offset: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
        self.files.before(FileOp::Read, self.path)?;
        let mut buffer = Vec::with_capacity(len);
        while buffer.len() < len {
            let at = offset + buffer.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut buffer), at) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The allocator may give more room than was asked for.
        buffer.truncate(len);
        Ok(Some(buffer))
    }

    /// The file itself, to be given away.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.files.before(FileOp::Write, self.path)?;
        self.file.write_all(bytes)
    }

    /// Forces the file to the medium.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.files.before(FileOp::Sync, self.path)?;
        self.file.sync_all()
    }

    /// Whether the kernel has the file's first bytes in memory; as far as it says.
    pub(super) fn is_in_memory(&self) -> bool {
        let mut byte = [0];
        let mut parts = [io::IoSliceMut::new(&mut byte)];
        let nowait = rustix::io::ReadWriteFlags::NOWAIT;
        rustix::io::preadv2(&self.file, &mut parts, 0, nowait).is_ok()
    }

    /// Asks the kernel to forget the file, so that what is read next is read from the medium.
    /// What was not written there yet stays.
    pub(super) fn forget(&self) {
        // Advice: nothing is lost if it is not taken.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
    }
}
