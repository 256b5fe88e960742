//! Files of blocks that are given away.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use millpond_proto::checksum::page_checksums;
use millpond_store::{DiskConfig, DiskTier, SharedFile, Store, StoreConfig};

use super::support::{block, block_files, content, id};

const LEN: usize = 200_000;

fn open(dir: &Path, capacity: u64) -> DiskTier {
    DiskTier::open(DiskConfig::new(dir.to_owned(), capacity, None)).unwrap()
}

fn bytes(shared: &SharedFile) -> Vec<u8> {
    let mut bytes = vec![0; shared.len as usize];
    shared.file.read_exact_at(&mut bytes, shared.start).unwrap();
    bytes
}

#[tokio::test]
async fn a_shared_file_has_the_block_and_its_checksums_until_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), 1 << 20);
    let id = id(1, 0);
    assert!(tier.share(&id).await.is_none());
    tier.write_blocking(id, &block(&id, LEN));
    let shared = tier.share(&id).await.unwrap();
    let right = content(&id, LEN);
    assert_eq!(shared.len as usize, LEN);
    assert_eq!(shared.checksums, page_checksums(&right));
    assert!(bytes(&shared) == right);
    tier.remove(&id);
    assert!(tier.share(&id).await.is_none());
    assert!(bytes(&shared) == right, "a dropped block stays readable");
}

#[tokio::test]
async fn a_damaged_footer_is_found_before_the_file_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), 1 << 20);
    let id = id(1, 0);
    tier.write_blocking(id, &block(&id, LEN));
    let path = block_files(dir.path()).remove(0);
    let mut file = std::fs::read(&path).unwrap();
    file[LEN + 1] ^= 1;
    std::fs::write(&path, file).unwrap();
    assert!(tier.share(&id).await.is_none());
    assert_eq!(tier.blocks(), 0);
}

#[tokio::test]
async fn a_page_that_another_found_damaged_is_dropped_though_memory_has_the_block() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Some((dir.path().to_owned(), 1 << 20));
    let store = Store::open(StoreConfig::new(1 << 20, disk, None))
        .await
        .unwrap();
    let id = id(1, 0);
    store.insert(id, block(&id, LEN)).await;
    store.flush().await;
    assert!(store.share(&id).await.is_some());
    assert_eq!(store.stats().disk_hits, 1);
    assert!(store.read_disk(&id, 0, 10).await.is_some());
    let path = block_files(dir.path()).remove(0);
    let mut file = std::fs::read(&path).unwrap();
    file[70_000] ^= 1;
    std::fs::write(&path, file).unwrap();
    assert!(
        store.read_disk(&id, 0, 10).await.is_some(),
        "of another page"
    );
    assert!(store.read_disk(&id, 66_000, 10).await.is_none());
    assert_eq!((store.stats().corrupt, store.stats().disk_blocks), (1, 0));
    assert!(store.share(&id).await.is_none());
    assert!(store.read_memory(&id, 66_000, 10).is_some());
}
