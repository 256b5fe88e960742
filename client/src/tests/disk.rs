//! The local disk tier.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use millpond_proto::ErrorKind;
use millpond_proto::wire::frame::Tier;

use super::*;
use crate::disk::LocalDisk;
use crate::{Backing, ClientError, FileHandle, SourceBytes};

const CAPACITY: u64 = 64 * MIB;

fn with_disk(dir: &Path) -> ClientConfig {
    sized(dir, CAPACITY)
}

fn sized(dir: &Path, capacity: u64) -> ClientConfig {
    ClientConfig {
        memory: 16 * MIB,
        disk: Some((dir.to_owned(), capacity)),
        metadata_ttl: Duration::from_millis(1),
        ..small()
    }
}

fn disk(fs: &FileSystem) -> &LocalDisk {
    fs.core().disk.as_ref().unwrap()
}

/// Reads all of a file, in reads of 128 KiB.
async fn read_all(file: &FileHandle) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() as u64 != file.attr().size {
        let data = file.read(all.len() as u64, 128 << 10).await.unwrap();
        all.extend_from_slice(&data);
    }
    all
}

/// Reads a file, and waits until the tier has written what it takes of it.
async fn warm(fs: &FileSystem, path: &str) -> Vec<u8> {
    let file = fs.open(path).await.unwrap();
    let all = read_all(&file).await;
    disk(fs).drain(Duration::from_secs(20)).await;
    all
}

/// Files below `dir` whose names end so.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for fan in fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if fan.is_dir() {
            let names = fs::read_dir(fan).unwrap();
            found.extend(names.map(|entry| entry.unwrap().path()));
        }
    }
    found.retain(|path| path.to_str().unwrap().ends_with(end));
    found
}

/// Room that all cached files take.
fn room(dir: &Path) -> u64 {
    let found = files(dir, "");
    let blocks = found.iter().filter_map(|path| fs::metadata(path).ok());
    blocks.map(|metadata| metadata.blocks() * 512).sum()
}

async fn refused(config: ClientConfig) -> ClientError {
    let (_, uri) = fresh_store();
    let registry = Mutex::new(Registry::default());
    let made = FileSystem::standalone(&uri, BTreeMap::new(), config, &registry).await;
    made.unwrap_err()
}

#[tokio::test]
async fn what_was_read_once_is_served_from_disk_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    let data = pattern(1, 5 * MIB + 77);
    store.put("f", data.clone());

    let fs = standalone(&uri, with_disk(dir.path())).await;
    assert!(warm(&fs, "/f").await == data);
    let read = fs.sources();
    assert_eq!((read.ufs, read.disk), (data.len() as u64, 0));
    fs.shutdown().await;
    drop(fs);

    let fs = standalone(&uri, with_disk(dir.path())).await;
    let file = fs.open("/f").await.unwrap();
    assert!(file.read(0, 6 << 20).await.unwrap() == data);
    let disk = SourceBytes {
        disk: data.len() as u64,
        ..SourceBytes::default()
    };
    assert_eq!(fs.sources(), disk);
    assert_eq!(fs.ufs_bytes(), 0);
    // By now it is verified, and in the kernel's memory.
    wait_for("a read without waiting", || {
        file.try_read(MIB + 5, 4096)
            .is_some_and(|got| got == data[MIB as usize + 5..][..4096])
    })
    .await;
    fs.shutdown().await;
}

#[tokio::test]
async fn many_small_files_are_all_kept() {
    const FILES: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    for n in 0..FILES {
        store.put(&format!("f{n}"), pattern(n, 1 + n * 10));
    }
    let read_all = async |fs: &FileSystem| {
        for n in 0..FILES {
            let file = fs.open(&format!("/f{n}")).await.unwrap();
            assert_eq!(file.read(0, 1024).await.unwrap(), pattern(n, 1 + n * 10));
        }
    };
    let fs = standalone(&uri, with_disk(dir.path())).await;
    read_all(&fs).await;
    disk(&fs).drain(Duration::from_secs(20)).await;
    fs.shutdown().await;

    let fs = standalone(&uri, with_disk(dir.path())).await;
    read_all(&fs).await;
    assert_eq!(fs.ufs_bytes(), 0);
    fs.shutdown().await;
}

#[tokio::test]
async fn a_file_is_one_sparse_file_of_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    let data = pattern(2, 16 * MIB);
    store.put("f", data.clone());
    let fs = standalone(&uri, with_disk(dir.path())).await;
    let file = fs.open("/f").await.unwrap();
    file.read(5 * MIB, 10).await.unwrap();
    disk(&fs).drain(Duration::from_secs(20)).await;

    let cached = &files(dir.path(), ".data")[0];
    let metadata = fs::metadata(cached).unwrap();
    assert_eq!(metadata.len(), 16 * MIB);
    assert!(metadata.blocks() * 512 <= 2 * MIB, "{}", metadata.blocks());
    let cached = fs::File::open(cached).unwrap();
    let mut page = vec![0; 64 << 10];
    cached.read_exact_at(&mut page, 5 * MIB).unwrap();
    assert!(page == data[5 * MIB as usize..][..page.len()]);

    fs.core().memory.clear();
    let local = async |block| fs.locate("/f", block..block + 1).await.unwrap().blocks[0].local;
    assert_eq!(local(5 * MIB / (256 * KIB)).await, Tier::Disk);
    assert_eq!(local(0).await, Tier::None);
    fs.shutdown().await;
}

#[tokio::test]
async fn damaged_pages_are_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    let data = pattern(3, 3 * MIB + 1);
    store.put("f", data.clone());
    let fs = standalone(&uri, with_disk(dir.path())).await;
    warm(&fs, "/f").await;
    fs.shutdown().await;

    let cached = fs::OpenOptions::new()
        .write(true)
        .open(&files(dir.path(), ".data")[0]);
    // In the second page, and the last byte.
    let cached = cached.unwrap();
    cached.write_all_at(&[!data[70_000]], 70_000).unwrap();
    let last = 3 * MIB;
    cached.write_all_at(&[!data[last as usize]], last).unwrap();

    let fs = standalone(&uri, with_disk(dir.path())).await;
    assert!(warm(&fs, "/f").await == data);
    assert_eq!(fs.core().metrics.disk.corrupt(), 2);
    assert!(fs.ufs_bytes() > 0 && fs.ufs_bytes() < data.len() as u64);
    fs.shutdown().await;

    // What was fetched again is on the disk again.
    let fs = standalone(&uri, with_disk(dir.path())).await;
    assert!(warm(&fs, "/f").await == data);
    assert_eq!((fs.core().metrics.disk.corrupt(), fs.ufs_bytes()), (0, 0));
    fs.shutdown().await;
}

#[tokio::test]
async fn a_damaged_map_or_a_file_cut_short_costs_a_fetch_and_no_error() {
    let harm: [fn(&Path); 4] = [
        |dir| fs::write(&files(dir, ".map")[0], [0; 10]).unwrap(),
        |dir| fs::remove_file(&files(dir, ".map")[0]).unwrap(),
        |dir| fs::remove_file(&files(dir, ".data")[0]).unwrap(),
        |dir| {
            let data = fs::OpenOptions::new()
                .write(true)
                .open(&files(dir, ".data")[0]);
            data.unwrap().set_len(MIB).unwrap();
        },
    ];
    for (n, harm) in harm.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let (store, uri) = fresh_store();
        let data = pattern(4, 2 * MIB);
        store.put("f", data.clone());
        let fs = standalone(&uri, with_disk(dir.path())).await;
        warm(&fs, "/f").await;
        fs.shutdown().await;
        harm(dir.path());
        let fs = standalone(&uri, with_disk(dir.path())).await;
        assert!(warm(&fs, "/f").await == data, "harm {n}");
        assert_eq!(fs.ufs_bytes(), data.len() as u64, "harm {n}");
        fs.shutdown().await;
        let fs = standalone(&uri, with_disk(dir.path())).await;
        assert!(warm(&fs, "/f").await == data, "harm {n}");
        assert_eq!(fs.ufs_bytes(), 0, "harm {n}");
        fs.shutdown().await;
    }
}

#[tokio::test]
async fn the_capacity_holds_and_what_was_used_longest_ago_goes() {
    const CAPACITY: u64 = 6 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    for n in 0..10 {
        store.put(&format!("f{n}"), pattern(n, MIB));
    }
    let config = || sized(dir.path(), CAPACITY);
    let fs = standalone(&uri, config()).await;
    for n in 0..10 {
        warm(&fs, &format!("/f{n}")).await;
        assert!(disk(&fs).used() <= CAPACITY);
        assert!(room(dir.path()) <= CAPACITY);
    }
    assert_eq!(files(dir.path(), ".data").len(), 5);
    fs.shutdown().await;

    // Opened in this order, which the next restart knows.
    let fs = standalone(&uri, config()).await;
    for n in [9, 8, 7, 6, 5] {
        assert!(warm(&fs, &format!("/f{n}")).await == pattern(n, MIB));
    }
    assert_eq!(fs.ufs_bytes(), 0);
    fs.shutdown().await;
    let fs = standalone(&uri, sized(dir.path(), 2 * MIB + MIB / 2)).await;
    assert!(disk(&fs).used() <= 2 * MIB + MIB / 2);
    for n in [5, 6] {
        warm(&fs, &format!("/f{n}")).await;
    }
    assert_eq!(fs.ufs_bytes(), 0);
    fs.shutdown().await;
}

#[tokio::test]
async fn a_file_larger_than_the_capacity_is_kept_as_far_as_it_fits() {
    const CAPACITY: u64 = 4 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    let data = pattern(5, 9 * MIB);
    store.put("f", data.clone());
    let fs = standalone(&uri, sized(dir.path(), CAPACITY)).await;
    assert!(warm(&fs, "/f").await == data);
    assert!(room(dir.path()) <= CAPACITY);
    fs.core().memory.clear();
    let before = fs.ufs_bytes();
    assert!(warm(&fs, "/f").await == data);
    assert!(
        fs.ufs_bytes() - before <= 6 * MIB,
        "{}",
        fs.ufs_bytes() - before
    );
    fs.shutdown().await;
}

/// The file for the kernel, as soon as there is one.
async fn backing(fs: &FileSystem, path: &str) -> Backing {
    for _ in 0..1000 {
        if let Some(backing) = fs.open(path).await.unwrap().backing() {
            return backing;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} was never whole");
}

fn bytes_of(file: impl AsFd, len: usize) -> Vec<u8> {
    let file = fs::File::from(file.as_fd().try_clone_to_owned().unwrap());
    let mut all = vec![0; len];
    file.read_exact_at(&mut all, 0).unwrap();
    all
}

#[tokio::test]
async fn a_whole_file_is_given_to_the_kernel_once_it_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    for (name, len) in [("small", 1000), ("large", 5 * MIB + 3)] {
        store.put(name, pattern(len, len));
    }
    let fs = standalone(&uri, with_disk(dir.path())).await;
    for (name, len) in [("/small", 1000), ("/large", 5 * MIB + 3)] {
        let file = fs.open(name).await.unwrap();
        file.read(0, 10).await.unwrap();
        assert!(file.backing().is_none());
        warm(&fs, name).await;
        let whole = backing(&fs, name).await;
        assert!(bytes_of(&whole, len as usize) == pattern(len, len));
    }
    fs.shutdown().await;

    // After a restart nothing is believed before it was read again.
    let fs = standalone(&uri, with_disk(dir.path())).await;
    let file = fs.open("/large").await.unwrap();
    assert!(file.backing().is_none());
    file.read(0, 10).await.unwrap();
    backing(&fs, "/large").await;
    assert_eq!(fs.ufs_bytes(), 0);
    fs.shutdown().await;
}

#[tokio::test]
async fn a_damaged_file_is_not_given_to_the_kernel_before_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    let data = pattern(6, 5 * MIB);
    store.put("f", data.clone());
    let fs = standalone(&uri, with_disk(dir.path())).await;
    warm(&fs, "/f").await;
    fs.shutdown().await;
    let cached = fs::OpenOptions::new()
        .write(true)
        .open(&files(dir.path(), ".data")[0]);
    cached
        .unwrap()
        .write_all_at(&[!data[3_000_000]], 3_000_000)
        .unwrap();

    let fs = standalone(&uri, with_disk(dir.path())).await;
    fs.open("/f").await.unwrap().read(0, 10).await.unwrap();
    // The page that was dropped is fetched because the file is opened again.
    let whole = backing(&fs, "/f").await;
    assert!(bytes_of(&whole, data.len()) == data);
    assert_eq!(fs.core().metrics.disk.corrupt(), 1);
    fs.shutdown().await;
}

#[tokio::test]
async fn a_file_of_which_half_is_here_is_completed_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    let data = pattern(7, 6 * MIB);
    store.put("f", data.clone());
    let fs = standalone(&uri, with_disk(dir.path())).await;
    let file = fs.open("/f").await.unwrap();
    for piece in [0, 2, 4] {
        file.read(piece * MIB, 1 << 20).await.unwrap();
    }
    disk(&fs).drain(Duration::from_secs(20)).await;
    let whole = backing(&fs, "/f").await;
    assert!(bytes_of(&whole, data.len()) == data);
    fs.shutdown().await;
}

#[tokio::test]
async fn what_the_kernel_reads_is_neither_evicted_nor_lost_when_it_is_replaced() {
    const CAPACITY: u64 = 8 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    let data = pattern(8, 5 * MIB);
    store.put("f", data.clone());
    store.put("other", pattern(9, 6 * MIB));
    let fs = standalone(&uri, sized(dir.path(), CAPACITY)).await;
    warm(&fs, "/f").await;
    let whole = backing(&fs, "/f").await;

    // There is no room for all of another file, and what is in use stays.
    warm(&fs, "/other").await;
    assert!(disk(&fs).used() <= CAPACITY);
    assert!(bytes_of(&whole, data.len()) == data);

    // Replaced, it is unlinked at once, and takes room until it is let go.
    let new = pattern(10, MIB);
    store.put("f", new.clone());
    let mut seen = Vec::new();
    for _ in 0..1000 {
        seen = warm(&fs, "/f").await;
        if seen == new {
            break;
        }
    }
    assert!(seen == new);
    wait_for("the old version unlinked", || {
        let sizes = files(dir.path(), ".data");
        let mut sizes = sizes.iter().filter_map(|path| fs::metadata(path).ok());
        sizes.all(|metadata| metadata.len() != data.len() as u64)
    })
    .await;
    assert!(bytes_of(&whole, data.len()) == data);
    let used = disk(&fs).used();
    assert!(used >= 5 * MIB, "{used}");
    drop(whole);
    assert!(disk(&fs).used() + 5 * MIB <= used + 4096);
    fs.shutdown().await;
}

#[tokio::test]
async fn a_replaced_version_stays_while_it_is_read_and_then_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    let (old, new) = (pattern(11, 2 * MIB), pattern(12, 3 * MIB));
    store.put("f", old.clone());
    let fs = standalone(&uri, with_disk(dir.path())).await;
    warm(&fs, "/f").await;
    let reader = fs.open("/f").await.unwrap();
    store.put("f", new.clone());
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(warm(&fs, "/f").await == new);
    fs.core().memory.clear();
    assert!(read_all(&reader).await == old);
    drop(reader);
    wait_for("the old version removed", || {
        files(dir.path(), ".data").len() == 1
    })
    .await;
    assert!(warm(&fs, "/f").await == new);
    fs.shutdown().await;
}

#[tokio::test]
async fn a_failing_disk_fails_no_read_and_is_used_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    for n in 0..4 {
        store.put(&format!("f{n}"), pattern(n, MIB));
    }
    let fs = standalone(&uri, with_disk(dir.path())).await;
    warm(&fs, "/f0").await;
    // Nothing can be made any more, not even for root.
    let aside = dir.path().with_extension("aside");
    fs::rename(dir.path(), &aside).unwrap();
    for n in 0..4 {
        assert!(warm(&fs, &format!("/f{n}")).await == pattern(n, MIB));
    }
    assert!(fs.core().metrics.disk.failures() > 0);
    fs::rename(&aside, dir.path()).unwrap();
    let mut kept = 0;
    for _ in 0..1000 {
        fs.core().memory.clear();
        warm(&fs, "/f3").await;
        kept = files(dir.path(), ".data").len();
        if kept == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(kept, 2);
    fs.shutdown().await;
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), "x").unwrap();
    let error = refused(with_disk(dir.path())).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("precious"), "{error}");
    // A cache node's.
    fs::write(dir.path().join("millpond-store.json"), "{}").unwrap();
    let error = refused(with_disk(dir.path())).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("block directory"), "{error}");
    assert!(dir.path().join("precious").exists());
}

#[tokio::test]
async fn a_directory_serves_one_mount_at_a_time_and_one_format() {
    let dir = tempfile::tempdir().unwrap();
    let (_, uri) = fresh_store();
    let fs = standalone(&uri, with_disk(dir.path())).await;
    let error = refused(with_disk(dir.path())).await;
    assert_eq!(error.kind(), ErrorKind::Busy);
    fs.shutdown().await;
    standalone(&uri, with_disk(dir.path()))
        .await
        .shutdown()
        .await;

    let marker = dir.path().join("millpond-cache.json");
    fs::write(marker, r#"{"format":2,"cluster":null}"#).unwrap();
    let error = refused(with_disk(dir.path())).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("format 2"), "{error}");
}
