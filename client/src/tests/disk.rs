//! The local disk tier.

use super::*;
use crate::SourceBytes;

fn with_disk(dir: &std::path::Path) -> ClientConfig {
    ClientConfig {
        memory: 16 * MIB,
        disk: Some((dir.to_owned(), 64 * MIB)),
        ..small()
    }
}

#[tokio::test]
async fn blocks_read_once_are_served_from_disk_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    let data = pattern(1, 5 * MIB + 77);
    store.put("f", data.clone());

    let fs = standalone(&uri, with_disk(dir.path())).await;
    let file = fs.open("/f").await.unwrap();
    for offset in (0..data.len() as u64).step_by(128 << 10) {
        file.read(offset, 128 << 10).await.unwrap();
    }
    let read = fs.sources();
    assert_eq!((read.ufs, read.disk), (data.len() as u64, 0));
    fs.shutdown().await;
    drop((fs, file));

    let fs = standalone(&uri, with_disk(dir.path())).await;
    let file = fs.open("/f").await.unwrap();
    assert!(file.read(0, 6 << 20).await.unwrap() == data);
    let disk = SourceBytes {
        disk: data.len() as u64,
        ..SourceBytes::default()
    };
    assert_eq!(fs.sources(), disk);
    assert_eq!(fs.ufs_bytes(), 0);
}

/// Small files once counted as whole blocks each, so that most were never written.
#[tokio::test]
async fn regression_many_small_files_are_all_kept_on_disk() {
    const FILES: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    for n in 0..FILES {
        store.put(&format!("f{n}"), pattern(n, 1 + n * 10));
    }
    let config = || ClientConfig {
        block_size: BlockSize::DEFAULT,
        ..with_disk(dir.path())
    };
    let read_all = async |fs: &FileSystem| {
        for n in 0..FILES {
            let file = fs.open(&format!("/f{n}")).await.unwrap();
            assert_eq!(file.read(0, 1024).await.unwrap(), pattern(n, 1 + n * 10));
        }
    };
    let fs = standalone(&uri, config()).await;
    read_all(&fs).await;
    let disk = fs.core().disk.as_ref().unwrap();
    disk.drain(Duration::from_secs(20)).await;
    fs.shutdown().await;

    let fs = standalone(&uri, config()).await;
    read_all(&fs).await;
    assert_eq!(fs.ufs_bytes(), 0);
    fs.shutdown().await;
}

#[tokio::test]
async fn a_block_read_in_part_is_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    store.put("f", pattern(2, 16 * MIB));
    let config = ClientConfig {
        block_size: BlockSize::DEFAULT,
        memory: 32 * MIB,
        ..with_disk(dir.path())
    };
    let fs = standalone(&uri, config).await;
    let file = fs.open("/f").await.unwrap();
    file.read(5 * MIB, 10).await.unwrap();
    let location = |index| {
        let fs = fs.clone();
        async move { fs.locate("/f", index..index + 1).await.unwrap().blocks[0].clone() }
    };
    let disk = fs.core().disk.as_ref().unwrap();
    let block = location(1).await.block;
    wait_for("the block on disk", || {
        disk.locate(&block) == millpond_proto::wire::frame::Tier::Disk
    })
    .await;
    assert_eq!(fs.ufs_bytes(), 4 * MIB);
    assert_eq!(
        location(0).await.local,
        millpond_proto::wire::frame::Tier::None
    );
    assert_eq!(location(1).await.owners, []);
}

#[tokio::test]
async fn a_cache_directory_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("precious"), "x").unwrap();
    let (_, uri) = fresh_store();
    let registry = Mutex::new(Registry::default());
    let config = with_disk(dir.path());
    let made = FileSystem::standalone(&uri, BTreeMap::new(), config, &registry).await;
    let error = made.unwrap_err();
    assert_eq!(error.kind(), millpond_proto::ErrorKind::Invalid);
    assert!(error.to_string().contains("precious"), "{error}");
}
