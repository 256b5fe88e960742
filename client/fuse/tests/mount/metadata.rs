//! stat, xattr, links, statfs, inode numbers.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::{Rig, errno, local, memory, skip, wait_for};

#[test]
fn a_local_directory_keeps_modes_owners_and_times() {
    let (dir, uri) = local();
    let source = dir.path().join("script");
    std::fs::write(&source, "#!/bin/true").unwrap();
    std::fs::set_permissions(&source, PermissionsExt::from_mode(0o750)).unwrap();
    let Some(rig) = Rig::new(&uri) else { return };
    let (real, seen) = (
        std::fs::metadata(&source).unwrap(),
        std::fs::metadata(rig.path("script")).unwrap(),
    );
    assert_eq!(seen.mode(), real.mode());
    assert_eq!((seen.uid(), seen.gid()), (real.uid(), real.gid()));
    assert_eq!(seen.modified().unwrap(), real.modified().unwrap());
    assert_eq!((seen.len(), seen.blocks(), seen.nlink()), (11, 1, 1));
    assert_eq!(errno(std::fs::metadata(rig.path("other"))), libc::ENOENT);
    let below = rig.path("script/x");
    assert_eq!(errno(std::fs::metadata(below)), libc::ENOTDIR);
}

#[test]
fn an_object_store_gets_modes_and_owners_from_the_options() {
    let (store, uri) = memory();
    store.put("d/f", "x");
    let adjust = |options: &mut millpond_fuse::MountOptions| {
        options.uid = 1234;
        options.gid = 2345;
        options.file_mode = 0o666;
        options.dir_mode = 0o777;
        options.umask = 0o027;
        options.allow_other = true;
    };
    let Some(rig) = Rig::with(&uri, Default::default(), adjust) else {
        return;
    };
    let file = std::fs::metadata(rig.path("d/f")).unwrap();
    assert_eq!(file.mode() & 0o7777, 0o640);
    assert_eq!((file.uid(), file.gid()), (1234, 2345));
    assert!(file.modified().unwrap() <= SystemTime::now());
    let dir = std::fs::metadata(rig.path("d")).unwrap();
    assert_eq!(dir.mode() & 0o7777, 0o750);
    assert!(dir.is_dir());
}

#[test]
fn a_file_that_comes_and_goes_is_seen_within_the_ttl() {
    let (store, uri) = memory();
    store.put("other", "");
    let Some(rig) = Rig::new(&uri) else { return };
    let path = rig.path("new");
    assert_eq!(errno(std::fs::metadata(&path)), libc::ENOENT);
    store.put("new", "x");
    wait_for("the new file", || path.exists());
    store.delete("new");
    wait_for("the file to be gone", || !path.exists());
    // A file where a directory was.
    store.put("new/below", "x");
    wait_for("the directory", || path.is_dir());
    store.delete("new/below");
    store.put("new", "y");
    wait_for("the file again", || path.is_file());
    assert_eq!(std::fs::read(&path).unwrap(), b"y");
}

#[test]
fn links_are_shown_and_not_followed_by_us() {
    let (dir, uri) = local();
    std::fs::write(dir.path().join("target"), "here").unwrap();
    std::os::unix::fs::symlink("target", dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("broken")).unwrap();
    let Some(rig) = Rig::new(&uri) else { return };
    let link = rig.path("link");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("target"));
    assert_eq!(std::fs::read(&link).unwrap(), b"here");
    let broken = rig.path("broken");
    assert_eq!(std::fs::read_link(&broken).unwrap(), Path::new("nowhere"));
    assert_eq!(errno(std::fs::read(&broken)), libc::ENOENT);
    let target = rig.path("target");
    assert_eq!(errno(std::fs::read_link(&target)), libc::EINVAL);
}

fn xattr(path: &Path, name: &str) -> Result<String, i32> {
    let mut value = [0; 512];
    match rustix::fs::getxattr(path, name, &mut value) {
        Ok(len) => Ok(String::from_utf8(value[..len].to_vec()).unwrap()),
        Err(error) => Err(error.raw_os_error()),
    }
}

#[test]
fn extended_attributes_tell_version_and_source() {
    let (store, uri) = memory();
    let version = store.put("d/f", "x");
    let Some(rig) = Rig::new(&uri) else { return };
    let file = rig.path("d/f");
    assert_eq!(
        xattr(&file, "user.millpond.version"),
        Ok(version.to_string())
    );
    assert_eq!(
        xattr(&file, "user.millpond.source"),
        Ok(format!("{uri}/d/f"))
    );
    assert_eq!(xattr(&file, "user.other"), Err(libc::ENODATA));
    // So that `ls -l` asks once and not for each entry.
    for name in ["system.posix_acl_access", "security.selinux"] {
        assert_eq!(xattr(&file, name), Err(libc::EOPNOTSUPP), "{name}");
    }
    assert_eq!(
        xattr(&rig.path("d"), "user.millpond.version"),
        Err(libc::ENODATA)
    );

    let mut list = [0; 256];
    let len = rustix::fs::listxattr(&file, &mut list).unwrap();
    assert_eq!(
        &list[..len],
        b"user.millpond.version\0user.millpond.source\0"
    );
    assert_eq!(rustix::fs::listxattr_query(&file), Ok(len));
    let mut small = [0; 4];
    let short = rustix::fs::getxattr(&file, "user.millpond.source", &mut small);
    assert_eq!(short, Err(rustix::io::Errno::RANGE));
}

#[test]
fn statfs_says_that_nothing_can_be_written() {
    let (store, uri) = memory();
    store.put("f", "x");
    let Some(rig) = Rig::new(&uri) else { return };
    let figures = rustix::fs::statvfs(rig.dir()).unwrap();
    assert_eq!((figures.f_bfree, figures.f_bavail), (0, 0));
    assert_eq!(figures.f_namemax, 255);
    assert!(
        figures
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::RDONLY)
    );
}

#[test]
fn what_the_kernel_forgets_we_forget_and_numbers_stay() {
    const FILES: usize = 500;
    let (store, uri) = memory();
    for n in 0..FILES {
        store.put(&format!("d/{n}"), "");
    }
    let Some(rig) = Rig::new(&uri) else { return };
    let ino = |n: usize| {
        std::fs::metadata(rig.path(&format!("d/{n}")))
            .unwrap()
            .ino()
    };
    let before: Vec<u64> = (0..FILES).map(ino).collect();
    assert!(rig.mounted().stats().inodes > FILES);
    if let Err(error) = std::fs::write("/proc/sys/vm/drop_caches", "2") {
        return skip(&format!("cannot make the kernel forget: {error}"));
    }
    wait_for("the inode table to shrink", || {
        // The kernel forgets an inode when its name has run out, too.
        std::thread::park_timeout(Duration::from_millis(50));
        let _ = std::fs::write("/proc/sys/vm/drop_caches", "2");
        rig.mounted().stats().inodes < 10
    });
    let after: Vec<u64> = (0..FILES).map(ino).collect();
    assert_eq!(before, after);
}
