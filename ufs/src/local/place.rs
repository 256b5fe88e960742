//! A name in a directory that is open, where something is to be changed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Op, UfsError};
use crate::local::failure::{change_failure, failure};
use crate::local::root::Root;

/// Where a path leads but for its last name: what is done here cannot leave the root, whatever
/// happens to the tree meanwhile.
#[derive(Debug)]
pub(super) struct Place {
    dir: OwnedFd,
    name: String,
    op: Op,
    uri: String,
}

impl Place {
    /// That of `path`, which is not the root.
    pub(super) fn of(root: &Root, op: Op, path: &str) -> Result<Self, UfsError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(Self {
            dir: root.open_below(op, parent, OFlags::PATH | OFlags::DIRECTORY)?,
            name: name.to_owned(),
            op,
            uri: root.uri_of(path),
        })
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// What is at the place, a link itself.
    pub(super) fn stat(&self) -> Result<Option<Stat>, UfsError> {
        match rustix::fs::statat(&self.dir, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.fail(errno)),
        }
    }

    /// [`stat`](Self::stat) of something that is there.
    pub(super) fn existing(&self) -> Result<Stat, UfsError> {
        self.stat()?.ok_or_else(|| self.fail(Errno::NOENT))
    }

    /// Opens what is at the place, a link itself.
    pub(super) fn open(&self, flags: OFlags) -> Result<OwnedFd, UfsError> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, self.name.as_str(), flags, Mode::empty())
            .map_err(|errno| failure(errno, self.op, self.uri.clone()))
    }

    /// Makes the names of the directory last. One that this process may write to and not read
    /// cannot be told to.
    pub(super) fn sync(&self) -> Result<(), UfsError> {
        match self.open_dir() {
            Ok(dir) => rustix::fs::fsync(&dir).or_else(|errno| match errno {
                // Some file systems have nothing to do for directories.
                Errno::INVAL | Errno::ROFS | Errno::BADF => Ok(()),
                errno => Err(self.fail(errno)),
            }),
            Err(Errno::ACCESS) => Ok(()),
            Err(errno) => Err(self.fail(errno)),
        }
    }

    /// Keeps other Millpond processes from putting a file into its place in this directory, as
    /// long as the descriptor lives; none where the directory cannot be locked.
    pub(super) fn lock(&self) -> Option<OwnedFd> {
        let dir = self.open_dir().ok()?;
        rustix::fs::flock(&dir, FlockOperation::LockExclusive).ok()?;
        Some(dir)
    }

    pub(super) fn fail(&self, errno: Errno) -> UfsError {
        change_failure(errno, self.op, self.uri.clone())
    }

    fn open_dir(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, ".", flags, Mode::empty())
    }
}

/// Whether `stat` is that of a directory.
pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// A path by which the system calls that take no descriptor reach what `fd` has open, whatever
/// it is, without following it if it is a link.
pub(super) fn path_of(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
