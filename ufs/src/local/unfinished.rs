//! A file that is being written: beside its place, under a reserved name, until it is whole.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use millpond_proto::{ErrorKind, Refusal};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::error::{Op, UfsError};
use crate::local::attributes;
use crate::local::inode;
use crate::local::place::{Place, is_directory};
use crate::local::root::Root;
use crate::metadata::{FileKind, Metadata};
use crate::name::UNFINISHED;
use crate::write::{Attributes, Condition};

/// A file that is being written. Its calls block.
#[derive(Debug)]
pub(super) struct UnfinishedFile {
    place: Place,
    fd: OwnedFd,
    /// The reserved name, and the part of it that tells uploads apart.
    name: String,
    id: String,
    op: Op,
}

impl UnfinishedFile {
    /// For the file at `path`.
    pub(super) fn create(root: &Root, op: Op, path: &str) -> Result<Self, UfsError> {
        let place = Place::of(root, op, path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        loop {
            let id = format!("{:016x}", rand::random::<u64>());
            let name = reserved_name(place.name(), &id);
            // Those bits that the mask of the process and the directory's defaults let through
            // are what a new file has that nobody asks a mode of.
            let mode = Mode::from_raw_mode(0o666);
            match rustix::fs::openat(place.dir(), name.as_str(), flags, mode) {
                Ok(fd) => {
                    return Ok(Self {
                        place,
                        fd,
                        name,
                        id,
                        op,
                    });
                }
                Err(Errno::EXIST | Errno::INTR) => {}
                Err(errno) => return Err(place.fail(errno)),
            }
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn uri(&self) -> &str {
        self.place.uri()
    }

    pub(super) fn fail(&self, errno: Errno) -> UfsError {
        self.place.fail(errno)
    }

    pub(super) fn error(&self, kind: ErrorKind, cause: impl Into<String>) -> UfsError {
        UfsError::new(kind, self.op, self.place.uri(), cause)
    }

    pub(super) fn write(&self, mut offset: u64, mut data: &[u8]) -> Result<(), UfsError> {
        while !data.is_empty() {
            match rustix::io::pwrite(&self.fd, data, offset) {
                Ok(0) => return Err(self.fail(Errno::IO)),
                Ok(written) => {
                    data = &data[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.fail(errno)),
            }
        }
        Ok(())
    }

    /// That it has `size` bytes, and no more than these.
    pub(super) fn cut(&self, size: u64) -> Result<(), UfsError> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|errno| self.fail(errno))?;
        let has = u64::try_from(stat.st_size).unwrap_or(0);
        if has < size {
            let cause = format!("the parts have {has} bytes, not {size}");
            return Err(self.error(ErrorKind::Invalid, cause));
        }
        if has > size {
            rustix::fs::ftruncate(&self.fd, size).map_err(|errno| self.fail(errno))?;
        }
        Ok(())
    }

    /// Puts the file into its place, whole and lasting, if `condition` holds. What `stat` would
    /// say of it, once its version can be trusted: none if that takes a while.
    pub(super) fn finish(
        &self,
        root: &Root,
        given: &Attributes,
        condition: &Condition,
    ) -> Result<Option<Metadata>, UfsError> {
        let fail = |errno| self.place.fail(errno);
        let old = self.place.stat()?;
        self.check(old.as_ref(), condition)?;
        let kept = old.as_ref().filter(is_file);
        let kept_fd = kept.and_then(|_| self.place.open(OFlags::PATH).ok());
        let kept = kept.zip(kept_fd.as_ref().map(AsFd::as_fd));
        attributes::give(self.fd.as_fd(), given, kept).map_err(fail)?;
        // A time that the kernel's coarse clock does not give: a change that it stamps later has
        // another, so that the version can be trusted at once.
        let mtime = given.mtime.unwrap_or_else(SystemTime::now);
        attributes::stamp(self.fd.as_fd(), given.atime, mtime).map_err(fail)?;
        let stamped = rustix::fs::fstat(&self.fd).map_err(fail)?;
        rustix::fs::fsync(&self.fd).map_err(fail)?;
        self.move_into_place(condition)?;
        self.place.sync()?;
        let stat = rustix::fs::fstat(&self.fd).map_err(fail)?;
        Ok(root.own(&stat, inode::mtime(&stamped)))
    }

    fn move_into_place(&self, condition: &Condition) -> Result<(), UfsError> {
        let _lock = self.place.lock();
        let flags = match condition {
            Condition::Absent => RenameFlags::NOREPLACE,
            Condition::Any | Condition::Version(_) => RenameFlags::empty(),
        };
        if matches!(condition, Condition::Version(_)) {
            self.check(self.place.stat()?.as_ref(), condition)?;
        }
        let (dir, from, to) = (self.place.dir(), self.name.as_str(), self.place.name());
        match rustix::fs::renameat_with(dir, from, dir, to, flags) {
            Ok(()) => Ok(()),
            // The file system has no such rename; a link is never made over something.
            Err(Errno::INVAL) if *condition == Condition::Absent => {
                rustix::fs::linkat(dir, from, dir, to, AtFlags::empty())
                    .map_err(|errno| self.fail(errno))?;
                self.remove()
            }
            Err(errno) => Err(self.fail(errno)),
        }
    }

    /// Whether the file may be put where `old` is.
    fn check(&self, old: Option<&Stat>, condition: &Condition) -> Result<(), UfsError> {
        let refused = |refusal, cause: &str| {
            Err(UfsError::refused(refusal, self.op, self.place.uri(), cause))
        };
        if *condition == Condition::Absent && old.is_some() {
            return refused(Refusal::Exists, "there is something of that name");
        }
        if old.is_some_and(is_directory) {
            return refused(Refusal::IsADirectory, "it is a directory");
        }
        if old.is_some_and(|old| inode::metadata(old).is_none()) {
            let cause = "it is a device, socket or pipe, which are left alone";
            return refused(Refusal::NotPermitted, cause);
        }
        match condition {
            Condition::Version(version) if old.map(inode::version).as_ref() != Some(version) => {
                Err(self.error(ErrorKind::Stale, "the file was replaced"))
            }
            _ => Ok(()),
        }
    }

    /// Removes the file. One that is gone, or in its place, is no error.
    pub(super) fn remove(&self) -> Result<(), UfsError> {
        remove(&self.place, &self.name)
    }
}

/// A file that goes with this, unless it is kept.
#[derive(Debug)]
pub(super) struct Passing(Option<Arc<UnfinishedFile>>);

impl Passing {
    pub(super) fn new(file: &Arc<UnfinishedFile>) -> Self {
        Self(Some(Arc::clone(file)))
    }

    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(file) = &self.0
            && let Err(error) = file.remove()
        {
            tracing::warn!(%error, "an unfinished file stays behind");
        }
    }
}

/// Removes what the upload `id` to `path` has written.
pub(super) fn abort(root: &Root, path: &str, id: &str) -> Result<(), UfsError> {
    if !is_id(id) {
        return Ok(());
    }
    let place = Place::of(root, Op::Upload, path)?;
    let name = reserved_name(place.name(), id);
    remove(&place, &name)
}

/// The id of the upload that wrote a file of this reserved name, and the name that it was for;
/// one that was too long to be kept whole is cut.
pub(super) fn parse(name: &str) -> Option<(&str, &str)> {
    let (id, name) = name.strip_prefix(UNFINISHED)?.split_once('-')?;
    (is_id(id) && !name.is_empty()).then_some((id, name))
}

fn reserved_name(name: &str, id: &str) -> String {
    let mut end = name.len().min(MAX_KEPT);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{UNFINISHED}{id}-{}", &name[..end])
}

fn remove(place: &Place, name: &str) -> Result<(), UfsError> {
    match rustix::fs::unlinkat(place.dir(), name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(place.fail(errno)),
    }
}

fn is_id(id: &str) -> bool {
    id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_file(stat: &&Stat) -> bool {
    inode::metadata(stat).is_some_and(|metadata| metadata.kind == FileKind::File)
}

/// How much of a name a reserved one keeps, so that it is no longer than 255 bytes itself.
const MAX_KEPT: usize = 255 - UNFINISHED.len() - 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_tell_what_they_are_for_and_are_never_too_long() {
        let id = "0123456789abcdef";
        for name in [
            "f".to_owned(),
            "a-b-c".to_owned(),
            "é".repeat(127),
            "x".repeat(255),
        ] {
            let reserved = reserved_name(&name, id);
            assert!(reserved.len() <= 255, "{} bytes", reserved.len());
            let (parsed, kept) = parse(&reserved).expect("its own");
            assert_eq!(parsed, id);
            assert!(name.starts_with(kept));
            assert_eq!(reserved_name(kept, id), reserved, "it can be found again");
        }
        assert_eq!(parse("f"), None);
        assert_eq!(parse(".millpond-unfinished-../../x-f"), None);
    }
}
