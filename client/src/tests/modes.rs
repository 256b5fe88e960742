//! The metadata modes of mounts.

use futures::TryStreamExt as _;
use millpond_proto::MetadataMode;

use super::*;

async fn with(uri: &str, options: &[(&str, &str)], config: ClientConfig) -> FileSystem {
    let registry = Mutex::new(Registry::default());
    let options = options.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    FileSystem::standalone(uri, options.collect(), config, &registry)
        .await
        .unwrap()
}

async fn count(fs: &FileSystem) -> usize {
    let pages: Vec<_> = fs.list("/").try_collect().await.unwrap();
    pages.iter().map(Vec::len).sum()
}

#[tokio::test]
async fn strict_sees_each_change_at_once() {
    let (store, uri) = fresh_store();
    store.put("f", "1");
    let fs = with(&uri, &[("metadata", "strict")], small()).await;
    for round in 1..5_u64 {
        assert_eq!(fs.stat("/f").await.unwrap().size, round);
        assert_eq!(fs.open("/f").await.unwrap().attr().size, round);
        assert_eq!(count(&fs).await as u64, round);
        let found = fs.look_up("/f").await.unwrap();
        assert_eq!(found.valid, Duration::ZERO);
        assert!(fs.look_up_cached("/f").is_none() && fs.list_cached("/").is_none());
        assert!(fs.look_up("/none").await.unwrap().attr.is_none());
        assert!(!fs.is_known_absent("/none"));
        store.put("f", vec![b'x'; round as usize + 1]);
        store.put(&format!("new-{round}"), "x");
    }
}

#[tokio::test]
async fn immutable_sees_none_until_told() {
    let (store, uri) = fresh_store();
    store.put("f", "1");
    let config = ClientConfig {
        metadata_mode: MetadataMode::Immutable,
        metadata_ttl: Duration::ZERO,
        ..small()
    };
    let fs = with(&uri, &[], config).await;
    assert_eq!(fs.stat("/f").await.unwrap().size, 1);
    assert_eq!(count(&fs).await, 1);
    store.put("f", "12");
    store.put("g", "1");
    assert_eq!(fs.stat("/f").await.unwrap().size, 1);
    assert_eq!(count(&fs).await, 1);
    assert!(fs.is_known_absent("/g"));
    let valid = fs.look_up("/f").await.unwrap().valid;
    assert!(valid > Duration::from_secs(1_000_000));
}

#[tokio::test]
async fn a_mount_overrides_the_client() {
    let (store, uri) = fresh_store();
    store.put("f", "1");
    let config = ClientConfig {
        metadata_mode: MetadataMode::Strict,
        ..small()
    };
    let fs = with(&uri, &[("metadata_ttl", "1h")], config).await;
    let found = fs.look_up("/f").await.unwrap();
    assert!(found.valid > Duration::from_secs(3590), "{found:?}");
    assert!(found.valid <= Duration::from_secs(3600));
    assert!(fs.look_up_cached("/f").is_some());
}

#[tokio::test]
async fn wrong_options_are_refused_by_name() {
    let (_store, uri) = fresh_store();
    let registry = Mutex::new(Registry::default());
    for (key, value) in [("metadata", "maybe"), ("metadata_ttl", "soon")] {
        let options = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let made = FileSystem::standalone(&uri, options, small(), &registry).await;
        let error = made.unwrap_err();
        assert_eq!(error.kind(), millpond_proto::ErrorKind::Invalid);
        assert!(error.to_string().contains(key), "{error}");
    }
}
