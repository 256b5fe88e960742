//! The root directory, and everything that is opened below it.

use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;

use millpond_proto::{ErrorKind, FileVersion};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, StatVfsMountFlags};
use rustix::io::Errno;

use crate::error::{Op, UfsError};
use crate::local::failure::failure;
use crate::local::inode;
use crate::local::join;
use crate::metadata::Metadata;
use crate::write::Space;

/// The open root directory. Its calls block.
#[derive(Debug)]
pub(super) struct Root {
    uri: String,
    fd: OwnedFd,
    /// Directories about whose names a warning was given; bounded.
    warned: Mutex<HashSet<String>>,
    /// Versions that this process made last; bounded.
    own: Mutex<VecDeque<FileVersion>>,
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
            own: Mutex::default(),
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

    /// The target of the link at `path`, wherever it leads: whoever gets it follows it in a
    /// namespace of its own, as with any network file system, and this one never does outside
    /// the root.
    pub(super) fn read_link(&self, path: &str) -> Result<String, UfsError> {
        let error =
            |kind, cause: &str| Err(UfsError::new(kind, Op::ReadLink, self.uri_of(path), cause));
        let fd = self.open_below(Op::ReadLink, path, OFlags::PATH | OFlags::NOFOLLOW)?;
        match rustix::fs::readlinkat(&fd, "", Vec::new()) {
            Ok(target) => match target.into_string() {
                Ok(target) => Ok(target),
                Err(_) => error(ErrorKind::Unsupported, "the target is not UTF-8"),
            },
            // What the kernel says of a descriptor that is not a link.
            Err(Errno::NOENT | Errno::INVAL) => {
                error(ErrorKind::Invalid, "it is not a symbolic link")
            }
            Err(errno) => Err(failure(errno, Op::ReadLink, self.uri_of(path))),
        }
    }

    /// The room of the file system that it lies on.
    pub(super) fn space(&self) -> Result<Space, UfsError> {
        let stat = rustix::fs::fstatvfs(&self.fd)
            .map_err(|errno| failure(errno, Op::Stat, self.uri.clone()))?;
        Ok(Space {
            bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            files: stat.f_files,
            files_free: stat.f_favail,
        })
    }

    /// Whether anything can be written here at all.
    pub(super) fn is_writable(&self) -> bool {
        let flags = rustix::fs::fstatvfs(&self.fd).map(|stat| stat.f_flag);
        !flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::RDONLY))
    }

    /// What is to be said of a file that this process has just put into its place or changed,
    /// whose modification time was to be `mtime`. None if its version cannot be trusted: if the
    /// time is one that the kernel may give a later change too, or not the one that was set.
    pub(super) fn own(&self, stat: &Stat, mtime: i64) -> Option<Metadata> {
        if inode::mtime(stat) != mtime || !inode::differs_from_clock(stat) {
            return None;
        }
        let mut own = self.own.lock();
        if own.len() == MAX_OWN {
            own.pop_front();
        }
        own.push_back(inode::version(stat));
        inode::metadata(stat)
    }

    /// Whether `version` was given by [`own`](Self::own) lately, so that it can be trusted.
    pub(super) fn is_own(&self, version: &FileVersion) -> bool {
        self.own.lock().contains(version)
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

const MAX_RACES: usize = 16;
const MAX_WARNINGS: usize = 1024;

/// More than a process can make while their times are fresh.
const MAX_OWN: usize = 256;
