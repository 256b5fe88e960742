//! Mounting and unmounting, in order and out of it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use millpond_fuse::unmount::{Force, UnmountError, unmount};
use millpond_fuse::{MountError, MountOptions, MountedFs, Unmounted, mountinfo};

use crate::support::{Rig, errno, memory, wait_for};

fn is_mounted(dir: &Path) -> bool {
    mountinfo::mount_at(dir).unwrap().is_some()
}

fn rig() -> Option<Rig> {
    let (store, uri) = memory();
    store.put("f", "content");
    Rig::new(&uri)
}

#[test]
fn unmount_leaves_an_empty_directory() {
    let Some(mut rig) = rig() else { return };
    assert!(is_mounted(rig.dir()));
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"content");
    let mounted = rig.mounted.take().unwrap();
    let how = rig.runtime.block_on(mounted.unmount()).unwrap();
    assert_eq!(how, Unmounted::Clean);
    assert!(!is_mounted(rig.dir()));
    assert_eq!(std::fs::read_dir(rig.dir()).unwrap().count(), 0);
}

#[test]
fn drop_unmounts() {
    let Some(mut rig) = rig() else { return };
    drop(rig.mounted.take());
    wait_for("the mount to go", || !is_mounted(rig.dir()));
}

#[test]
fn a_busy_mount_goes_out_of_sight_and_its_reader_goes_on() {
    let Some(mut rig) = rig() else { return };
    let mut file = File::open(rig.path("f")).unwrap();
    let mounted = rig.mounted.take().unwrap();
    let error = unmount(rig.dir(), Force::Clean).unwrap_err();
    assert!(matches!(error, UnmountError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("--lazy"), "{error}");
    let how = rig.runtime.block_on(mounted.unmount()).unwrap();
    assert_eq!(how, Unmounted::Lazy);
    assert!(!is_mounted(rig.dir()));
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
}

#[test]
fn a_mount_taken_away_from_outside_ends() {
    let Some(mut rig) = rig() else { return };
    unmount(rig.dir(), Force::Clean).unwrap();
    let mounted = rig.mounted.take().unwrap();
    rig.runtime.block_on(async {
        let ended = tokio::time::timeout(Duration::from_secs(10), mounted.ended());
        ended.await.unwrap();
        assert_eq!(mounted.unmount().await.unwrap(), Unmounted::Before);
    });
    let error = unmount(rig.dir(), Force::Clean).unwrap_err();
    assert!(matches!(error, UnmountError::NotMounted { .. }), "{error}");
}

#[test]
fn force_ends_a_mount_in_use() {
    let Some(rig) = rig() else { return };
    let file = File::open(rig.path("f")).unwrap();
    unmount(rig.dir(), Force::Abort).unwrap();
    assert!(!is_mounted(rig.dir()));
    assert_ne!(errno(file.metadata()), 0);
}

#[test]
fn a_mount_point_in_use_is_refused_and_stays() {
    let Some(rig) = rig() else { return };
    let handle = rig.runtime.handle().clone();
    let options = MountOptions::default();
    let error = MountedFs::mount(rig.fs.clone(), handle, rig.dir(), &options).unwrap_err();
    let message = error.to_string();
    assert!(
        matches!(error, MountError::AlreadyMounted { .. }),
        "{message}"
    );
    assert!(message.contains("millpond:test"), "{message}");
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"content");
}

#[test]
fn settings_without_sense_are_refused() {
    let Some(rig) = rig() else { return };
    let options = MountOptions {
        file_mode: 0o100_644,
        ..MountOptions::default()
    };
    let handle = rig.runtime.handle().clone();
    let error = MountedFs::mount(rig.fs.clone(), handle, rig.dir(), &options).unwrap_err();
    assert!(error.to_string().contains("file mode"), "{error}");
}

#[test]
fn readahead_is_raised_where_permitted() {
    let Some(rig) = rig() else { return };
    let entry = mountinfo::mount_at(rig.dir()).unwrap().unwrap();
    let (major, minor) = entry.device;
    let file = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    match std::fs::OpenOptions::new().write(true).open(&file) {
        Ok(_) => assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), "4096"),
        Err(error) => crate::support::skip(&format!("{file}: {error}")),
    }
}
