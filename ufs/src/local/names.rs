//! Making, moving and removing names.

use std::os::fd::AsFd;

use millpond_proto::{ErrorKind, Refusal};
use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;

use crate::error::{Op, UfsError};
use crate::local::attributes;
use crate::local::inode;
use crate::local::place::Place;
use crate::local::root::Root;
use crate::write::{Attributes, RenameMode};

/// Moves what is at `from` to `to` in one step, a directory with all that is in it.
pub(super) fn rename(root: &Root, from: &str, to: &str, mode: RenameMode) -> Result<(), UfsError> {
    let op = Op::Rename;
    let (old, new) = (Place::of(root, op, from)?, Place::of(root, op, to)?);
    check_shown(&old, op)?;
    let flags = match mode {
        RenameMode::Replace => RenameFlags::empty(),
        RenameMode::NoReplace => RenameFlags::NOREPLACE,
        RenameMode::Exchange => RenameFlags::EXCHANGE,
    };
    let renamed = rustix::fs::renameat_with(old.dir(), old.name(), new.dir(), new.name(), flags);
    renamed.map_err(|errno| match errno {
        // What some file systems say of a directory that has something in it.
        Errno::EXIST if mode == RenameMode::Replace => new.fail(Errno::NOTEMPTY),
        Errno::INVAL
            if to
                .strip_prefix(from)
                .is_some_and(|rest| rest.starts_with('/')) =>
        {
            let cause = "a directory cannot come to lie below itself";
            UfsError::new(ErrorKind::Invalid, op, old.uri(), cause)
        }
        Errno::INVAL if mode != RenameMode::Replace => {
            let cause = "the file system has no such rename";
            UfsError::new(ErrorKind::Unsupported, op, old.uri(), cause)
        }
        Errno::NOENT => old.fail(errno),
        errno => new.fail(errno),
    })?;
    new.sync()?;
    old.sync()
}

/// Removes the file or link at `path`.
pub(super) fn remove(root: &Root, path: &str) -> Result<(), UfsError> {
    let place = Place::of(root, Op::Remove, path)?;
    check_shown(&place, Op::Remove)?;
    rustix::fs::unlinkat(place.dir(), place.name(), AtFlags::empty())
        .map_err(|errno| place.fail(errno))
}

/// Makes an empty directory at `path`.
pub(super) fn create_dir(root: &Root, path: &str, given: &Attributes) -> Result<(), UfsError> {
    let place = Place::of(root, Op::CreateDir, path)?;
    // Closed to others until it has its owner and mode.
    let mode = match given.mode {
        Some(_) => Mode::RWXU,
        None => Mode::from_raw_mode(0o777),
    };
    rustix::fs::mkdirat(place.dir(), place.name(), mode).map_err(|errno| place.fail(errno))?;
    undone(
        attributes::give_at(&place, given),
        &place,
        AtFlags::REMOVEDIR,
    )
}

/// Removes the empty directory at `path`. A file that is being written into it is in the way,
/// though it is not listed.
pub(super) fn remove_dir(root: &Root, path: &str) -> Result<(), UfsError> {
    let place = Place::of(root, Op::RemoveDir, path)?;
    rustix::fs::unlinkat(place.dir(), place.name(), AtFlags::REMOVEDIR).map_err(|errno| match errno
    {
        Errno::EXIST => place.fail(Errno::NOTEMPTY),
        errno => place.fail(errno),
    })
}

/// Makes a link at `path` that points to `target`.
pub(super) fn symlink(
    root: &Root,
    path: &str,
    target: &str,
    given: &Attributes,
) -> Result<(), UfsError> {
    let place = Place::of(root, Op::Link, path)?;
    rustix::fs::symlinkat(target, place.dir(), place.name()).map_err(|errno| place.fail(errno))?;
    undone(attributes::give_at(&place, given), &place, AtFlags::empty())
}

/// Makes `to` another name of the file at `from`.
pub(super) fn hard_link(root: &Root, from: &str, to: &str) -> Result<(), UfsError> {
    let op = Op::Link;
    let (old, new) = (Place::of(root, op, from)?, Place::of(root, op, to)?);
    check_shown(&old, op)?;
    let stat = old.existing()?;
    if crate::local::place::is_directory(&stat) {
        let cause = "a directory has one name";
        let refused = UfsError::refused(Refusal::NotPermitted, op, old.uri(), cause);
        return Err(refused);
    }
    let linked = rustix::fs::linkat(
        old.dir(),
        old.name(),
        new.dir(),
        new.name(),
        AtFlags::empty(),
    );
    linked.map_err(|errno| match errno {
        Errno::NOENT => old.fail(errno),
        errno => new.fail(errno),
    })?;
    new.sync()
}

/// That what is at `place` is something that is shown, if anything is there.
fn check_shown(place: &Place, op: Op) -> Result<(), UfsError> {
    match place.stat()? {
        Some(stat) if inode::metadata(&stat).is_none() => {
            let cause = "it is a device, socket or pipe, which are left alone";
            Err(UfsError::refused(
                Refusal::NotPermitted,
                op,
                place.uri(),
                cause,
            ))
        }
        _ => Ok(()),
    }
}

/// Takes back what was made at `place` if it could not be given its attributes; otherwise makes
/// it last.
fn undone(given: Result<(), UfsError>, place: &Place, flags: AtFlags) -> Result<(), UfsError> {
    match given {
        Ok(()) => place.sync(),
        Err(error) => {
            let _ = rustix::fs::unlinkat(place.dir().as_fd(), place.name(), flags);
            Err(error)
        }
    }
}
