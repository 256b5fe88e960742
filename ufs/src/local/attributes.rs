//! Modes, owners, times and extended attributes of inodes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::SystemTime;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::error::{Op, UfsError};
use crate::local::failure::change_failure;
use crate::local::inode;
use crate::local::place::{Place, path_of};
use crate::local::root::Root;
use crate::metadata::Metadata;
use crate::write::{AttributeChange, Attributes};

/// All attributes of what is at `path`.
pub(super) fn read(root: &Root, path: &str) -> Result<Attributes, UfsError> {
    let op = Op::GetAttributes;
    let fail = |errno| change_failure(errno, op, root.uri_of(path));
    let fd = root.open_below(op, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = rustix::fs::fstat(&fd).map_err(fail)?;
    let metadata = inode::metadata(&stat).ok_or_else(|| fail(Errno::NOENT))?;
    // Links have none that this process could read.
    let xattrs = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => BTreeMap::new(),
        _ => xattrs(fd.as_fd()).map_err(fail)?,
    };
    Ok(Attributes {
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime,
        atime: metadata.atime,
        xattrs,
    })
}

/// Changes what is at `path`, a link itself. What is to be said of it then, unless the version
/// cannot be trusted yet.
pub(super) fn change(
    root: &Root,
    path: &str,
    change: &AttributeChange,
) -> Result<Option<Metadata>, UfsError> {
    let op = Op::SetAttributes;
    let fail = |errno| change_failure(errno, op, root.uri_of(path));
    let fd = root.open_below(op, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = rustix::fs::fstat(&fd).map_err(fail)?;
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let at = path_of(fd.as_fd());
    // Before the mode: a change of the owner takes bits away from it.
    chown(fd.as_fd(), &stat, change.uid, change.gid).map_err(fail)?;
    if let Some(mode) = change.mode.filter(|_| !is_link) {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::chmodat(CWD, at.as_str(), mode, AtFlags::empty()).map_err(fail)?;
    }
    for (name, value) in &change.xattrs {
        if is_link {
            return Err(fail(Errno::PERM));
        }
        match value {
            Some(value) => {
                rustix::fs::setxattr(at.as_str(), name.as_str(), value, XattrFlags::empty())
            }
            None => rustix::fs::removexattr(at.as_str(), name.as_str()),
        }
        .map_err(fail)?;
    }
    // Last: the others are changes too.
    if let Some(times) = times(change.atime, change.mtime) {
        rustix::fs::utimensat(&fd, "", &times, AtFlags::EMPTY_PATH).map_err(fail)?;
    }
    let stat = rustix::fs::fstat(&fd).map_err(fail)?;
    Ok(root.own(&stat, inode::mtime(&stat)))
}

/// Gives a new file what it is to have, and for the rest what the file has that it replaces.
/// What is asked for and cannot be given is an error; what cannot be kept is not.
pub(super) fn give(
    fd: BorrowedFd<'_>,
    attributes: &Attributes,
    old: Option<(&Stat, BorrowedFd<'_>)>,
) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(fd)?;
    let mut owner_kept = true;
    if let Some((old, _)) = old {
        owner_kept = chown(fd, &stat, Some(old.st_uid), Some(old.st_gid)).is_ok();
    }
    if attributes.uid.is_some() || attributes.gid.is_some() {
        let stat = rustix::fs::fstat(fd)?;
        chown(fd, &stat, attributes.uid, attributes.gid)?;
    }
    if let Some((_, old)) = old {
        for (name, value) in xattrs(old).unwrap_or_default() {
            // Capabilities go when a file is written.
            if name != "security.capability" && !attributes.xattrs.contains_key(&name) {
                let _ = rustix::fs::fsetxattr(fd, name.as_str(), &value, XattrFlags::empty());
            }
        }
    }
    for (name, value) in &attributes.xattrs {
        rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty())?;
    }
    let kept = old.map(|(old, _)| match owner_kept {
        true => old.st_mode & 0o7777,
        // Nobody is given rights that another owner had.
        false => old.st_mode & 0o0777,
    });
    if let Some(mode) = attributes.mode.or(kept) {
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777))?;
    }
    Ok(())
}

/// Gives a new directory or link at `place` what it is to have.
pub(super) fn give_at(place: &Place, attributes: &Attributes) -> Result<(), UfsError> {
    if *attributes == Attributes::default() {
        return Ok(());
    }
    let fail = |errno| place.fail(errno);
    let fd = place.open(OFlags::PATH)?;
    let stat = rustix::fs::fstat(&fd).map_err(fail)?;
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let at = path_of(fd.as_fd());
    chown(fd.as_fd(), &stat, attributes.uid, attributes.gid).map_err(fail)?;
    if let Some(mode) = attributes.mode.filter(|_| !is_link) {
        // What a set-group-id directory hands down stays.
        let mode = mode & 0o7777 | stat.st_mode & 0o2000;
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::chmodat(CWD, at.as_str(), mode, AtFlags::empty()).map_err(fail)?;
    }
    for (name, value) in attributes.xattrs.iter().filter(|_| !is_link) {
        rustix::fs::setxattr(at.as_str(), name.as_str(), value, XattrFlags::empty())
            .map_err(fail)?;
    }
    if let Some(times) = times(attributes.atime, attributes.mtime) {
        rustix::fs::utimensat(&fd, "", &times, AtFlags::EMPTY_PATH).map_err(fail)?;
    }
    Ok(())
}

/// Sets the times that are given.
pub(super) fn stamp(
    fd: BorrowedFd<'_>,
    atime: Option<SystemTime>,
    mtime: SystemTime,
) -> Result<(), Errno> {
    match times(atime, Some(mtime)) {
        Some(times) => rustix::fs::futimens(fd, &times),
        None => Ok(()),
    }
}

/// Changes the owner where it is another: only root may do so, but anybody may leave it.
fn chown(fd: BorrowedFd<'_>, stat: &Stat, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    let uid = uid.filter(|uid| *uid != stat.st_uid).map(Uid::from_raw);
    let gid = gid.filter(|gid| *gid != stat.st_gid).map(Gid::from_raw);
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)
}

fn xattrs(fd: BorrowedFd<'_>) -> Result<BTreeMap<String, Bytes>, Errno> {
    let at = path_of(fd);
    let mut names = Vec::with_capacity(MAX_XATTRS);
    match rustix::fs::listxattr(at.as_str(), spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(errno) => return Err(errno),
    }
    let mut xattrs = BTreeMap::new();
    for name in names.split(|byte| *byte == 0) {
        let Some(name) = std::str::from_utf8(name)
            .ok()
            .filter(|name| !name.is_empty())
        else {
            continue;
        };
        let mut value = Vec::with_capacity(MAX_XATTRS);
        // One that is gone, or that is not for this process, is left out.
        if rustix::fs::getxattr(at.as_str(), name, spare_capacity(&mut value)).is_ok() {
            value.shrink_to_fit();
            xattrs.insert(name.to_owned(), value.into());
        }
    }
    Ok(xattrs)
}

fn times(atime: Option<SystemTime>, mtime: Option<SystemTime>) -> Option<Timestamps> {
    if atime.is_none() && mtime.is_none() {
        return None;
    }
    let time = |time: Option<SystemTime>| match time {
        Some(time) => timespec(time),
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    Some(Timestamps {
        last_access: time(atime),
        last_modification: time(mtime),
    })
}

fn timespec(time: SystemTime) -> Timespec {
    let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
    };
    let seconds = nanos.div_euclid(1_000_000_000);
    Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: nanos.rem_euclid(1_000_000_000) as _,
    }
}

/// The most that Linux gives of a value, and of all names.
const MAX_XATTRS: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_before_the_epoch_are_whole_too() {
        let time = SystemTime::UNIX_EPOCH - Duration::new(1, 5);
        let spec = timespec(time);
        assert_eq!((spec.tv_sec, spec.tv_nsec), (-2, 999_999_995));
    }
}
