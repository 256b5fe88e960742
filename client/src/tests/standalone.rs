//! Reads without a cluster, against a map of bytes.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use millpond_proto::ErrorKind;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::{ClientError, FileHandle, FileKind};

/// A read as the FUSE adapter makes it: from memory if possible, else by waiting.
async fn read(file: &FileHandle, offset: u64, len: u32) -> Result<Bytes, ClientError> {
    match file.try_read(offset, len) {
        Some(data) => Ok(data),
        None => file.read(offset, len).await,
    }
}

fn expected(data: &[u8], offset: u64, len: u32) -> &[u8] {
    let start = (offset as usize).min(data.len());
    let end = (offset as usize + len as usize).min(data.len());
    &data[start..end]
}

#[tokio::test]
async fn reads_at_any_offset_match_the_object() {
    let (store, uri) = fresh_store();
    let sizes = [
        0,
        1,
        64 * KIB,
        256 * KIB - 1,
        256 * KIB,
        256 * KIB + 1,
        3 * 256 * KIB + 7,
        20 * MIB + 13,
    ];
    let objects: Vec<_> = sizes.iter().map(|size| pattern(*size, *size)).collect();
    for (i, data) in objects.iter().enumerate() {
        store.put(&format!("d/{i}"), data.clone());
    }
    let fs = standalone(&uri, small()).await;
    let mut handles = Vec::new();
    for i in 0..objects.len() {
        handles.push(fs.open(&format!("/d/{i}")).await.unwrap());
    }
    let mut rng = StdRng::seed_from_u64(7);
    let mut total = 0;
    for _ in 0..1500 {
        let i = rng.random_range(0..objects.len());
        let data = &objects[i];
        let offset = rng.random_range(0..=data.len() as u64 + 10);
        let len = match rng.random_range(0..4) {
            0 => rng.random_range(0..5000),
            1 => rng.random_range(0..300_000),
            _ => rng.random_range(0..100_000),
        };
        let got = read(&handles[i], offset, len).await.unwrap();
        assert!(got == expected(data, offset, len), "{i}: {len} at {offset}");
        total += got.len() as u64;
    }
    let sources = fs.sources();
    assert_eq!(
        sources.total(),
        total,
        "every byte counts once: {sources:?}"
    );
    assert_eq!(sources.peer + sources.disk, 0);
    assert!(sources.ufs > 0 && sources.memory > 0, "{sources:?}");
    let live = fs.core().memory.live_bytes();
    assert!(live <= fs.core().budget.tier + 4 * MIB, "{live}");
}

#[tokio::test]
async fn a_read_larger_than_the_memory_of_the_client_works() {
    let (store, uri) = fresh_store();
    let data = pattern(1, 40 * MIB);
    store.put("big", data.clone());
    let fs = standalone(
        &uri,
        ClientConfig {
            block_size: BlockSize::DEFAULT,
            ..small()
        },
    )
    .await;
    let file = fs.open("/big").await.unwrap();
    let got = file.read(3, 50 << 20).await.unwrap();
    assert!(got == data[3..]);
    assert_eq!(fs.sources().total(), 40 * MIB - 3);
    assert!(fs.core().memory.live_bytes() <= 8 * MIB);
}

#[tokio::test]
async fn a_sequential_reader_reads_each_byte_of_the_ufs_once() {
    let (store, uri) = fresh_store();
    let data = pattern(2, 64 * MIB);
    store.put("seq", data.clone());
    let config = ClientConfig {
        memory: 32 * MIB,
        block_size: BlockSize::DEFAULT,
        ..small()
    };
    let fs = standalone(&uri, config).await;
    let file = fs.open("/seq").await.unwrap();
    let mut offset = 0;
    while offset < 64 * MIB {
        let got = read(&file, offset, 128 << 10).await.unwrap();
        assert!(got == data[offset as usize..offset as usize + (128 << 10)]);
        offset += 128 << 10;
    }
    assert_eq!(fs.sources().ufs, 64 * MIB);
    assert_eq!(fs.ufs_bytes(), 64 * MIB);
    let ahead = fs.core().metrics.readahead_bytes.get();
    assert!(ahead > 32 * MIB, "only {ahead} bytes were read ahead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sequential_readers_do_not_evict_one_another() {
    let (store, uri) = fresh_store();
    let data = pattern(8, 6 * MIB);
    let config = ClientConfig {
        memory: 64 * MIB,
        block_size: BlockSize::DEFAULT,
        ..small()
    };
    for i in 0..12 {
        store.put(&format!("s{i}"), data.clone());
    }
    let fs = standalone(&uri, config).await;
    let readers = (0..12).map(|i| {
        let (fs, data) = (fs.clone(), data.clone());
        async move {
            let file = fs.open(&format!("/s{i}")).await.unwrap();
            for offset in (0..6 * MIB).step_by(128 << 10) {
                let got = read(&file, offset, 128 << 10).await.unwrap();
                assert!(got == data[offset as usize..offset as usize + (128 << 10)]);
            }
        }
    });
    futures::future::join_all(readers).await;
    assert_eq!(fs.ufs_bytes(), 12 * 6 * MIB);
    assert_eq!(fs.core().memory.holders(), 0);
}

#[tokio::test]
async fn random_reads_fetch_only_the_pages_they_touch() {
    let (store, uri) = fresh_store();
    store.put("r", pattern(3, 64 * MIB));
    let config = ClientConfig {
        memory: 64 * MIB,
        block_size: BlockSize::DEFAULT,
        ..small()
    };
    let fs = standalone(&uri, config).await;
    let file = fs.open("/r").await.unwrap();
    for piece in [40, 3, 17, 58, 29, 11, 50] {
        read(&file, piece * MIB + 500, 4096).await.unwrap();
    }
    assert_eq!(fs.ufs_bytes(), 7 * 8 * KIB);
    assert_eq!(fs.core().metrics.readahead_bytes.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_one_range_share_one_fetch() {
    let (store, uri) = fresh_store();
    let data = pattern(4, 8 * MIB);
    store.put("x", data.clone());
    let config = ClientConfig {
        memory: 32 * MIB,
        block_size: BlockSize::DEFAULT,
        ..small()
    };
    let fs = standalone(&uri, config).await;
    let readers = (0..32).map(|i| {
        let (fs, data) = (fs.clone(), data.clone());
        async move {
            let file = fs.open("/x").await.unwrap();
            for piece in 0..8u64 {
                let offset = piece * MIB + i * 1000;
                let got = read(&file, offset, 9999).await.unwrap();
                assert!(got == data[offset as usize..offset as usize + 9999]);
            }
        }
    });
    futures::future::join_all(readers).await;
    // They overlap: each page is fetched once, or its piece when that turns out to be of use.
    let read = fs.ufs_bytes();
    assert!((8 * 40_000..=2 * 8 * MIB).contains(&read), "{read}");
}

#[tokio::test]
async fn a_replaced_object_is_read_in_its_old_version_or_not_at_all() {
    let (store, uri) = fresh_store();
    let (old, new) = (pattern(5, 3 * MIB), pattern(6, 3 * MIB));
    store.put("f", old.clone());
    let config = ClientConfig {
        metadata_ttl: Duration::from_secs(3600),
        ..small()
    };
    let fs = standalone(&uri, config).await;
    let file = fs.open("/f").await.unwrap();
    assert!(file.read(0, 1000).await.unwrap() == old[..1000]);

    store.put("f", new.clone());
    assert!(
        file.read(500, 1000).await.unwrap() == old[500..1500],
        "cached bytes stay"
    );
    let error = file.read(2 * MIB, 1000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    assert!(error.to_string().contains("/f"), "{error}");
    let error = file.read(0, 3 << 20).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "never a mix");

    // Although the old attributes would be believed for an hour.
    let again = fs.open("/f").await.unwrap();
    assert_ne!(again.file_id(), file.file_id());
    assert!(again.read(0, 3 << 20).await.unwrap() == new);
}

#[tokio::test]
async fn a_deleted_object_is_stale_for_who_has_it_open() {
    let (store, uri) = fresh_store();
    store.put("f", pattern(5, MIB));
    let fs = standalone(
        &uri,
        ClientConfig {
            metadata_ttl: Duration::ZERO,
            ..small()
        },
    )
    .await;
    let file = fs.open("/f").await.unwrap();
    store.delete("f");
    assert_eq!(file.read(0, 10).await.unwrap_err().kind(), ErrorKind::Stale);
    assert_eq!(fs.open("/f").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn attributes_are_believed_for_the_ttl() {
    let (store, uri) = fresh_store();
    store.put("f", "12345");
    let ttl = Duration::from_millis(300);
    let fs = standalone(
        &uri,
        ClientConfig {
            metadata_ttl: ttl,
            ..small()
        },
    )
    .await;
    assert!(fs.stat_cached("/f").is_none());
    assert_eq!(fs.stat("/f").await.unwrap().size, 5);
    assert_eq!(fs.stat_cached("/f").map(|attr| attr.size), Some(5));
    store.put("f", "1234567");
    for _ in 0..200 {
        if fs.stat("/f").await.unwrap().size == 7 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the change was never seen");
}

#[tokio::test]
async fn what_was_listed_is_opened_without_asking_the_ufs() {
    let (store, uri) = fresh_store();
    for i in 0..50 {
        store.put(&format!("d/f{i:02}"), pattern(i, i));
    }
    store.put("d/sub/x", "x");
    let fs = standalone(&uri, small()).await;
    let pages: Vec<_> = fs.list("/d").try_collect().await.unwrap();
    let entries: Vec<_> = pages.into_iter().flatten().collect();
    assert_eq!(entries.len(), 51);
    assert!(
        entries
            .iter()
            .any(|e| &*e.name == "sub" && e.attr.kind == FileKind::Directory)
    );
    let attr = fs.stat_cached("/d/f07").expect("the listing told");
    assert_eq!((attr.size, attr.version.is_some()), (7, true));
    // Opened from what the listing said: the store has nothing there any more.
    store.delete("d/f07");
    assert_eq!(
        fs.open("/d/f07").await.unwrap().file_id(),
        attr.file_id.unwrap()
    );
}

#[tokio::test]
async fn wrong_paths_say_what_is_wrong() {
    let (store, uri) = fresh_store();
    store.put("d/f", "x");
    let fs = standalone(&uri, small()).await;
    let kind = |result: Result<_, ClientError>| result.map(|_: ()| ()).unwrap_err().kind();
    assert_eq!(
        kind(fs.stat("relative").await.map(drop)),
        ErrorKind::Invalid
    );
    assert_eq!(kind(fs.stat("/d/../d").await.map(drop)), ErrorKind::Invalid);
    assert_eq!(kind(fs.stat("/none").await.map(drop)), ErrorKind::NotFound);
    assert!(fs.is_known_absent("/none"));
    assert!(matches!(
        fs.open("/d").await,
        Err(ClientError::NotAFile { .. })
    ));
    assert!(matches!(
        fs.read_link("/d/f").await,
        Err(ClientError::NotALink { .. })
    ));
    let listed = |path: &'static str| fs.list(path).try_collect::<Vec<_>>();
    assert!(matches!(
        listed("/d/f").await,
        Err(ClientError::NotADirectory { .. })
    ));
    assert!(matches!(
        listed("/none").await,
        Err(ClientError::NotFound { .. })
    ));
    let registry = Mutex::new(Registry::default());
    let missing = "file:///no/such/directory";
    let made = FileSystem::standalone(missing, BTreeMap::new(), small(), &registry).await;
    let error = made.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn shutdown_ends_within_a_second_and_reads_fail() {
    let (store, uri) = fresh_store();
    store.put("f", pattern(9, 8 * MIB));
    let fs = standalone(&uri, small()).await;
    let file = fs.open("/f").await.unwrap();
    file.read(0, 100).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(1), fs.shutdown()).await;
    assert!(ended.is_ok());
    assert!(matches!(
        file.read(6 * MIB, 100).await,
        Err(ClientError::ShutDown)
    ));
    assert!(matches!(
        fs.stat("/other").await,
        Err(ClientError::ShutDown)
    ));
}
