//! The root directory, and everything that is opened below it.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use millpond_proto::ErrorKind;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Op, UfsError};
use crate::local::join;

/// The open root directory. Its calls block.
#[derive(Debug)]
pub(super) struct Root {
    uri: String,
    fd: OwnedFd,
    /// Directories about whose names a warning was given; bounded.
    warned: Mutex<HashSet<String>>,
}

impl Root {
    pub(super) fn open(uri: String, path: &str) -> Result<Self, UfsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
            let error = failure(errno, Op::Open, uri.clone());
            match errno {
                Errno::NOENT => error.with_hint("create the directory, or check the path"),
                _ => error,
            }
        })?;
        Ok(Self {
            uri,
            fd,
            warned: Mutex::default(),
        })
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    pub(super) fn uri_of(&self, path: &str) -> String {
        join(&self.uri, path)
    }

    /// Opens `path` below the root; never anything outside it.
    pub(super) fn open_below(
        &self,
        op: Op,
        path: &str,
        flags: OFlags,
    ) -> Result<OwnedFd, UfsError> {
        let at = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.fd, at, flags, Mode::empty(), resolve) {
                Ok(fd) => return Ok(fd),
                // A rename raced with the resolution of a `..`: the kernel could not tell
                // whether it stays below.
                Err(Errno::AGAIN | Errno::INTR) if tries < MAX_RACES => tries += 1,
                Err(errno) => return Err(failure(errno, op, self.uri_of(path))),
            }
        }
    }

    /// The target of the link at `path`; `Denied` if following it would leave the root, since
    /// whoever gets the target follows it in a namespace of its own.
    pub(super) fn read_link(&self, path: &str) -> Result<String, UfsError> {
        let error =
            |kind, cause: &str| Err(UfsError::new(kind, Op::ReadLink, self.uri_of(path), cause));
        let fd = self.open_below(Op::ReadLink, path, OFlags::PATH | OFlags::NOFOLLOW)?;
        match rustix::fs::readlinkat(&fd, "", Vec::new()) {
            Ok(target) => match target.into_string() {
                Ok(target) => {
                    self.check_link(path)?;
                    Ok(target)
                }
                Err(_) => error(ErrorKind::Unsupported, "the target is not UTF-8"),
            },
            // What the kernel says of a descriptor that is not a link.
            Err(Errno::NOENT | Errno::INVAL) => {
                error(ErrorKind::Invalid, "it is not a symbolic link")
            }
            Err(errno) => Err(failure(errno, Op::ReadLink, self.uri_of(path))),
        }
    }

    /// Lets the kernel follow the link at `path`, other links on the way included. One that
    /// leads nowhere leads nowhere outside either.
    fn check_link(&self, path: &str) -> Result<(), UfsError> {
        match self.open_below(Op::ReadLink, path, OFlags::PATH) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Says once per directory that it has names that cannot be shown.
    pub(super) fn warn_of_names(&self, dir: &str, hidden: usize) {
        let mut warned = self.warned.lock();
        if warned.len() < MAX_WARNINGS && warned.insert(dir.to_owned()) {
            tracing::warn!(
                ufs = self.uri,
                dir,
                hidden,
                "names that are not UTF-8 are hidden"
            );
        }
    }
}

/// The error that `errno` means.
pub(super) fn failure(errno: Errno, op: Op, uri: String) -> UfsError {
    let (kind, cause) = match errno {
        Errno::NOENT => (ErrorKind::NotFound, "it does not exist"),
        Errno::NOTDIR => (
            ErrorKind::NotFound,
            "it, or something on the way to it, is not a directory",
        ),
        Errno::XDEV => (
            ErrorKind::Denied,
            "a symbolic link leads out of the root directory",
        ),
        Errno::LOOP => (
            ErrorKind::Denied,
            "symbolic links on the way form a loop, or are too many",
        ),
        Errno::ACCESS | Errno::PERM => (
            ErrorKind::Denied,
            "this process has no permission to read it",
        ),
        Errno::NAMETOOLONG => (ErrorKind::NotFound, "no name can be that long"),
        Errno::STALE => (ErrorKind::Stale, "the file handle is stale"),
        Errno::MFILE | Errno::NFILE => (ErrorKind::Busy, "too many files are open"),
        Errno::NOSYS => (
            ErrorKind::Unsupported,
            "the kernel, or a sandbox around this process, does not know openat2 (Linux 5.6)",
        ),
        Errno::IO => (ErrorKind::Unavailable, "the device reported an error"),
        other => return UfsError::new(ErrorKind::Unavailable, op, uri, other.to_string()),
    };
    UfsError::new(kind, op, uri, cause)
}

const MAX_RACES: usize = 16;
const MAX_WARNINGS: usize = 1024;
