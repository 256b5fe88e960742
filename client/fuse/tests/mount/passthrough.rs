//! Files that the kernel reads itself, from the local disk tier.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use millpond_fuse::{MountOptions, Passthrough};
use tempfile::TempDir;

use crate::reading::map::Map;
use crate::support::{Rig, errno, memory, pattern, skip, wait_for};

const MIB: usize = 1 << 20;

/// A mount with a local disk tier; `None` where the kernel cannot pass files through.
fn rig(uri: &str) -> Option<(Rig, TempDir)> {
    let (rig, cache) = rig_with(uri, |_| {})?;
    // The kernel says what it can with its first request.
    let _ = std::fs::metadata(rig.dir());
    if rig.mounted().stats().passthrough != Passthrough::Available {
        skip("no FUSE passthrough");
        return None;
    }
    Some((rig, cache))
}

fn rig_with(uri: &str, adjust: impl FnOnce(&mut MountOptions)) -> Option<(Rig, TempDir)> {
    let cache = tempfile::tempdir().unwrap();
    let disk = Some((cache.path().to_owned(), 64 << 20));
    let rig = Rig::with_client(uri, BTreeMap::new(), |client| client.disk = disk, adjust);
    Some((rig?, cache))
}

/// Opens `path` as soon as the kernel reads it itself.
fn open_passed(rig: &Rig, path: &Path) -> File {
    std::fs::read(path).unwrap();
    let mut passed = None;
    wait_for("the kernel to read the file itself", || {
        let before = rig.mounted().stats().passthrough_opens;
        // One that is not passed through is closed again, or the next one would not be either.
        let file = File::open(path).unwrap();
        passed = (rig.mounted().stats().passthrough_opens > before).then_some(file);
        passed.is_some()
    });
    passed.unwrap()
}

fn all_of(file: &File, len: usize) -> Vec<u8> {
    let mut all = vec![0; len];
    file.read_exact_at(&mut all, 0).unwrap();
    let mut more = [0; 1];
    assert_eq!(file.read_at(&mut more, len as u64).unwrap(), 0, "the end");
    all
}

#[test]
fn a_whole_file_is_read_without_asking_us() {
    let (store, uri) = memory();
    let sizes = [1, 5000, 5 * MIB + 4097];
    for size in sizes {
        store.put(&format!("f{size}"), pattern(size as u64, size));
    }
    let Some((rig, _cache)) = rig(&uri) else {
        return;
    };
    let config = std::fs::read_to_string(rig.path(".millpond/config")).unwrap();
    assert!(config.contains(r#""passthrough": "on""#), "{config}");
    for size in sizes {
        let data = pattern(size as u64, size);
        let path = rig.path(&format!("f{size}"));
        let file = open_passed(&rig, &path);
        let reads = rig.mounted().stats().reads;
        assert!(all_of(&file, size) == data, "{size}");
        assert!(Map::of(&file, size, true).bytes() == data, "{size} mapped");
        assert!(
            Map::of(&file, size, false).bytes() == data,
            "{size} private"
        );
        for at in [0, size / 2, size - 1] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at as u64).unwrap();
            assert_eq!(byte[0], data[at]);
        }
        assert_eq!(file.metadata().unwrap().len(), size as u64);
        assert_eq!(rig.mounted().stats().reads, reads, "asked for {size}");
    }
    assert_eq!(errno(File::create(rig.path("f1"))), libc::EROFS);
}

#[test]
fn an_inode_is_open_in_one_way_at_a_time() {
    let (store, uri) = memory();
    let data = pattern(1, 5 * MIB);
    store.put("f", data.clone());
    let Some((rig, _cache)) = rig(&uri) else {
        return;
    };
    let path = rig.path("f");
    // Opened before it is whole: its reads come to us, and so do those of all others.
    let first = File::open(&path).unwrap();
    assert!(all_of(&first, data.len()) == data);
    let other = rig.runtime.block_on(rig.fs.open("/f")).unwrap();
    wait_for("the file to be whole", || other.backing().is_some());
    let second = File::open(&path).unwrap();
    assert_eq!(rig.mounted().stats().passthrough_opens, 0);
    assert!(all_of(&second, data.len()) == data);
    // A mapping holds a file open, too.
    let map = Map::of(&first, data.len(), true);
    drop((first, second));
    let third = File::open(&path).unwrap();
    assert_eq!(rig.mounted().stats().passthrough_opens, 0);
    assert!(all_of(&third, data.len()) == data && map.bytes() == data);
    drop((third, map));

    let passed = open_passed(&rig, &path);
    let count = rig.mounted().stats().passthrough_opens;
    let (again, direct) = (File::open(&path).unwrap(), open_direct(&path));
    assert_eq!(rig.mounted().stats().passthrough_opens, count + 2);
    let reads = rig.mounted().stats().reads;
    assert!(all_of(&passed, data.len()) == data && all_of(&again, data.len()) == data);
    assert_eq!(rig.mounted().stats().reads, reads);
    // Past the page cache is past the disk, too: we are asked, and have it in memory.
    let mut page = [0; 4096];
    direct.read_exact_at(&mut page, 8192).unwrap();
    assert!(page == data[8192..][..4096]);
    assert_eq!(rig.mounted().stats().reads, reads + 1);
}

fn open_direct(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT);
    options.open(path).unwrap()
}

#[test]
fn many_who_open_and_close_at_once_all_read_right() {
    let (store, uri) = memory();
    let data = pattern(2, 4 * MIB + 1);
    store.put("f", data.clone());
    let Some((rig, _cache)) = rig(&uri) else {
        return;
    };
    let path = rig.path("f");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let file = File::open(&path).unwrap();
                    assert!(all_of(&file, data.len()) == data);
                }
            });
        }
    });
    drop(open_passed(&rig, &path));
}

fn cached_files(cache: &Path, len: usize) -> Vec<PathBuf> {
    let fans = std::fs::read_dir(cache)
        .unwrap()
        .map(|fan| fan.unwrap().path());
    let names = fans.filter_map(|fan| std::fs::read_dir(fan).ok()).flatten();
    let paths = names.map(|name| name.unwrap().path());
    let is_it = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "data")
            && std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == len as u64)
    };
    paths.filter(is_it).collect()
}

#[test]
fn a_file_replaced_while_the_kernel_reads_it_keeps_its_bytes_for_who_has_it_open() {
    let (store, uri) = memory();
    let (old, new) = (pattern(3, 5 * MIB), pattern(4, 3 * MIB));
    store.put("f", old.clone());
    let Some((rig, cache)) = rig(&uri) else {
        return;
    };
    let path = rig.path("f");
    let reader = open_passed(&rig, &path);
    let ino = reader.metadata().unwrap().ino();
    store.put("f", new.clone());
    wait_for("the new version", || {
        std::fs::read(&path).is_ok_and(|seen| seen == new)
    });
    // Of the old version nothing was in the kernel but what it has of the cached file.
    assert!(all_of(&reader, old.len()) == old);
    assert_eq!(reader.metadata().unwrap().len(), old.len() as u64);
    let second = open_passed(&rig, &path);
    assert_ne!(second.metadata().unwrap().ino(), ino);
    assert!(all_of(&second, new.len()) == new);
    assert!(all_of(&reader, old.len()) == old);
    drop(reader);
    wait_for("the old version to be removed", || {
        cached_files(cache.path(), old.len()).is_empty()
    });
}

#[test]
fn a_deleted_cache_directory_takes_nothing_from_who_has_the_file_open() {
    let (store, uri) = memory();
    let data = pattern(5, 5 * MIB);
    store.put("f", data.clone());
    let Some((rig, cache)) = rig(&uri) else {
        return;
    };
    let path = rig.path("f");
    let reader = open_passed(&rig, &path);
    std::fs::remove_dir_all(cache.path()).unwrap();
    assert!(all_of(&reader, data.len()) == data);
    drop(reader);
    assert!(std::fs::read(&path).unwrap() == data);
}

#[test]
fn switched_off_or_without_a_tier_nothing_is_passed_through() {
    let (store, uri) = memory();
    let data = pattern(6, 5 * MIB);
    store.put("f", data.clone());
    let off = |options: &mut MountOptions| options.passthrough = false;
    let Some((rig, _cache)) = rig_with(&uri, off) else {
        return;
    };
    let without = Rig::new(&uri).unwrap();
    for rig in [&rig, &without] {
        for _ in 0..5 {
            assert!(std::fs::read(rig.path("f")).unwrap() == data);
        }
        let stats = rig.mounted().stats();
        assert_eq!(
            (stats.passthrough, stats.passthrough_opens),
            (Passthrough::Off, 0)
        );
    }
}
