//! Several mounts, nested and above one another.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use millpond_net::control::Routing;
use millpond_proto::{ClusterView, ErrorKind};

use super::node::{client_of, mounts};
use super::*;

async fn names(fs: &FileSystem, path: &str) -> Vec<String> {
    let pages: Vec<_> = fs.list(path).try_collect().await.unwrap();
    let names: Vec<_> = pages
        .into_iter()
        .flatten()
        .map(|e| e.name.to_string())
        .collect();
    let distinct: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(distinct.len(), names.len(), "a name came twice: {names:?}");
    distinct.into_iter().collect()
}

async fn content(fs: &FileSystem, path: &str) -> String {
    let file = fs.open(path).await.unwrap();
    let data = file.read(0, 100).await.unwrap();
    String::from_utf8(data.to_vec()).unwrap()
}

#[tokio::test]
async fn nested_mounts_hide_what_lies_beneath() {
    let (outer, outer_uri) = fresh_store();
    let (inner, inner_uri) = fresh_store();
    outer.put("top", "outer");
    outer.put("in/x", "hidden");
    outer.put("in/deep/y", "hidden");
    outer.put("in/z", "outer z");
    outer.put("virtual", "a file where a directory must be");
    inner.put("x", "inner");
    let table = mounts(&[
        ("/", &outer_uri),
        ("/in/deep", &inner_uri),
        ("/virtual/dir", &inner_uri),
    ]);
    let fs = client_of(table).await;
    assert_eq!(names(&fs, "/").await, ["in", "top", "virtual"]);
    assert_eq!(names(&fs, "/in").await, ["deep", "x", "z"]);
    assert_eq!(names(&fs, "/in/deep").await, ["x"]);
    assert_eq!(names(&fs, "/virtual").await, ["dir"]);
    assert!(fs.stat("/virtual").await.unwrap().is_dir());
    assert!(fs.stat("/virtual/dir").await.unwrap().is_dir());
    assert_eq!(content(&fs, "/in/deep/x").await, "inner");
    assert_eq!(content(&fs, "/virtual/dir/x").await, "inner");
    assert_eq!(content(&fs, "/in/z").await, "outer z");
    let missing = fs.stat("/in/deep/y").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);

    // The same object through two mounts is the same file.
    let ids = [
        fs.open("/in/deep/x").await.unwrap().file_id(),
        fs.open("/virtual/dir/x").await.unwrap().file_id(),
    ];
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn directories_above_mounts_need_no_store() {
    let (store, uri) = fresh_store();
    store.put("f", "data");
    let fs = client_of(mounts(&[("/a/b/c", &uri)])).await;
    assert_eq!(names(&fs, "/").await, ["a"]);
    assert_eq!(names(&fs, "/a/").await, ["b"]);
    assert_eq!(names(&fs, "/a/b").await, ["c"]);
    assert_eq!(content(&fs, "/a/b/c/f").await, "data");
    for path in ["/x", "/a/x", "/a/b/d/e"] {
        assert_eq!(fs.stat(path).await.unwrap_err().kind(), ErrorKind::NotFound);
        let listed = fs.list(path).try_collect::<Vec<_>>().await;
        assert_eq!(listed.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(names(&client_of(mounts(&[])).await, "/").await, [""; 0]);
}

#[tokio::test]
async fn a_store_that_is_gone_does_not_hide_the_mounts_beside_it() {
    let (store, uri) = fresh_store();
    store.put("f", "data");
    let table = mounts(&[("/good", &uri), ("/gone", "file:///no/such/dir")]);
    let fs = client_of(table).await;
    assert_eq!(names(&fs, "/").await, ["gone", "good"]);
    assert!(fs.stat("/gone").await.unwrap().is_dir());
    assert!(fs.list("/gone").try_collect::<Vec<_>>().await.is_err());
    assert_eq!(content(&fs, "/good/f").await, "data");
}

#[tokio::test]
async fn mounts_come_and_go_in_a_running_client() {
    let (store, uri) = fresh_store();
    store.put("f", "first");
    let (other, other_uri) = fresh_store();
    other.put("f", "other");
    let fs = client_of(mounts(&[("/a", &uri)])).await;
    let open = fs.open("/a/f").await.unwrap();
    assert_eq!(
        fs.stat("/b/f").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );

    let change = |version, table| {
        let view = ClusterView {
            version,
            mounts: table,
            ..(*fs.view()).clone()
        };
        fs.core().advance(Arc::new(Routing::first(view)));
    };
    change(2, mounts(&[("/a", &uri), ("/b", &other_uri)]));
    assert_eq!(names(&fs, "/").await, ["a", "b"]);
    assert_eq!(content(&fs, "/b/f").await, "other");

    // What was cached of a path is not believed once another mount holds it.
    assert_eq!(fs.stat("/a/f").await.unwrap().size, 5);
    change(3, mounts(&[("/b", &uri)]));
    assert!(fs.stat_cached("/a/f").is_none());
    assert_eq!(
        fs.stat("/a/f").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(content(&fs, "/b/f").await, "first");
    // A file that is open stays readable.
    assert_eq!(open.read(0, 100).await.unwrap(), "first");
}
