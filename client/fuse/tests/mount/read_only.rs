//! Everything that would change something is refused, by the kernel and by us.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use rustix::fs::{Mode, XattrFlags};

use crate::support::{Rig, errno, memory, skip};

fn all_writes(dir: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let file = dir.join("f");
    let new = dir.join("new");
    let open = |options: &mut OpenOptions, path: &Path| options.open(path).map(drop);
    let os = |result: rustix::io::Result<()>| result.map_err(io::Error::from);
    let fifo = rustix::fs::FileType::Fifo;
    let mode = Mode::from_raw_mode(0o600);
    let cwd = rustix::fs::CWD;
    vec![
        ("create", File::create_new(&new).map(drop)),
        (
            "open for writing",
            open(OpenOptions::new().write(true), &file),
        ),
        (
            "open for appending",
            open(OpenOptions::new().append(true), &file),
        ),
        (
            "open for both",
            open(OpenOptions::new().read(true).write(true), &file),
        ),
        (
            "open and truncate",
            open(OpenOptions::new().write(true).truncate(true), &file),
        ),
        (
            "truncate",
            nix::unistd::truncate(&file, 0).map_err(io::Error::from),
        ),
        ("mkdir", std::fs::create_dir(&new)),
        ("unlink", std::fs::remove_file(&file)),
        ("rmdir", std::fs::remove_dir(dir.join("d"))),
        ("rename", std::fs::rename(&file, &new)),
        ("symlink", std::os::unix::fs::symlink("f", &new)),
        ("link", std::fs::hard_link(&file, &new)),
        ("mknod", os(rustix::fs::mknodat(cwd, &new, fifo, mode, 0))),
        (
            "chmod",
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)),
        ),
        ("chown", std::os::unix::fs::chown(&file, Some(1), Some(1))),
        ("utimes", times(&file)),
        (
            "setxattr",
            os(rustix::fs::setxattr(
                &file,
                "user.x",
                b"1",
                XattrFlags::empty(),
            )),
        ),
        (
            "removexattr",
            os(rustix::fs::removexattr(&file, "user.millpond.source")),
        ),
    ]
}

fn times(path: &Path) -> io::Result<()> {
    let now = rustix::fs::Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: now,
        last_modification: now,
    };
    let flags = rustix::fs::AtFlags::empty();
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).map_err(io::Error::from)
}

#[test]
fn every_write_answers_erofs() {
    let (store, uri) = memory();
    store.put("f", "content");
    store.put("d/x", "");
    let Some(rig) = Rig::new(&uri) else { return };
    for (what, result) in all_writes(rig.dir()) {
        assert_eq!(errno(result), libc::EROFS, "{what}");
    }
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"content");
    let access = rustix::fs::access(rig.path("f"), rustix::fs::Access::WRITE_OK);
    assert_eq!(access, Err(rustix::io::Errno::ROFS));
    assert!(rustix::fs::access(rig.path("f"), rustix::fs::Access::READ_OK).is_ok());
}

#[test]
fn every_write_answers_erofs_also_when_remounted_writable() {
    let (store, uri) = memory();
    store.put("f", "content");
    store.put("d/x", "");
    let Some(rig) = Rig::new(&uri) else { return };
    let none = None::<&str>;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if let Err(error) = mount(none, rig.dir(), none, flags, none) {
        return skip(&format!("cannot remount: {error}"));
    }
    for (what, result) in all_writes(rig.dir()) {
        assert_eq!(errno(result), libc::EROFS, "{what}");
    }
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"content");
}
