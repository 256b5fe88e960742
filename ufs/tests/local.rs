#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]
//! What a local directory has beyond the conformance suite: inodes, links, and changes made
//! behind our back.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use millpond_proto::{ErrorKind, FileVersion, Refusal};
use millpond_ufs::{
    AttributeChange, Attributes, Condition, Entry, FileKind, Metadata, RenameMode, Ufs, UfsContext,
    open, read_to_bytes,
};
use rustix::fs::{CWD, Mode, mkfifoat};

#[tokio::test]
async fn metadata_is_that_of_the_inode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, "bytes").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::hard_link(&path, dir.path().join("g")).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(then).unwrap();
    let ufs = mount(dir.path()).await;

    let metadata = ufs.stat("f").await.unwrap();
    let inode = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.kind, FileKind::File);
    assert_eq!(metadata.mode, Some(0o640));
    assert_eq!(metadata.uid, Some(inode.uid()));
    assert_eq!(metadata.gid, Some(inode.gid()));
    assert_eq!(metadata.nlink, Some(2));
    assert_eq!(metadata.mtime, Some(then));
    assert_eq!(ufs.stat("").await.unwrap().kind, FileKind::Directory);
}

#[tokio::test]
async fn links_are_described_and_followed_only_within_the_root() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let secret = outside.path().join("secret");
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir_all(root.join("d")).unwrap();
    std::fs::write(root.join("d/f"), "inside").unwrap();
    let up = format!(
        "../{}/secret",
        outside.path().file_name().unwrap().to_str().unwrap()
    );
    symlink("d/f", root.join("near")).unwrap();
    symlink("../d/f", root.join("d/up-and-down")).unwrap();
    symlink(&secret, root.join("absolute")).unwrap();
    symlink(&up, root.join("relative")).unwrap();
    symlink(root.join("d/f"), root.join("absolute-inside")).unwrap();
    symlink(outside.path(), root.join("directory")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    // Textually inside; the kernel would leave the root through the link on the way.
    symlink("..", root.join("d/to-root")).unwrap();
    symlink("d/to-root/../x", root.join("round-about")).unwrap();
    let ufs = mount(root).await;

    for (path, target) in [
        ("near", "d/f"),
        ("d/up-and-down", "../d/f"),
        ("d/to-root", ".."),
        ("dangling", "nowhere"),
    ] {
        assert_eq!(ufs.stat(path).await.unwrap().kind, FileKind::Symlink);
        assert_eq!(ufs.read_link(path).await.unwrap(), target);
    }
    // Where they lead is told; going there is another matter.
    assert_eq!(ufs.read_link("relative").await.unwrap(), up);
    assert_eq!(
        ufs.read_link("absolute").await.unwrap(),
        secret.to_str().unwrap()
    );
    assert_eq!(
        ufs.read_link("d/f").await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let version = ufs.stat("d/f").await.unwrap().version.unwrap();
    for path in ["near", "d/up-and-down"] {
        let bytes = read_to_bytes(&*ufs, path, &version, 0..6).await.unwrap();
        assert_eq!(bytes, "inside", "{path}");
    }
    for path in [
        "absolute",
        "relative",
        "absolute-inside",
        "directory/secret",
        "loop",
    ] {
        let error = read_to_bytes(&*ufs, path, &version, 0..6)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{path}: {error}");
    }
    let error = ufs.stat("directory/secret").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let error = list(&*ufs, "directory").await.unwrap_err();
    assert_eq!(error, ErrorKind::Denied);
}

#[tokio::test]
async fn what_is_no_file_is_hidden_and_never_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    std::fs::write(dir.path().join(OsStr::from_bytes(b"not\xffutf8")), "x").unwrap();
    mkfifoat(CWD, dir.path().join("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
    let ufs = mount(dir.path()).await;

    let names: Vec<_> = list(&*ufs, "").await.unwrap();
    assert_eq!(names, ["f"]);
    let error = ufs.stat("pipe").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let version = FileVersion::Modified(0);
    let error = ufs.read("pipe", &version, 0..1).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn a_root_that_is_missing_or_no_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    for (name, expected) in [
        ("none", "it does not exist; create"),
        ("f", "not a directory"),
    ] {
        let uri = dir.path().join(name);
        let error = open(
            uri.to_str().unwrap(),
            &BTreeMap::new(),
            UfsContext::detached(),
        )
        .await
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().starts_with("cannot open file:///"));
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_stale_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let ufs = mount(dir.path()).await;
    for replace in [false, true] {
        std::fs::write(&path, vec![1; 3 << 20]).unwrap();
        let version = ufs.stat("f").await.unwrap().version.unwrap();
        let mut stream = ufs.read("f", &version, 0..3 << 20).await.unwrap();
        let first = stream.next().await.unwrap().unwrap();
        assert!(first.iter().all(|byte| *byte == 1));
        if replace {
            std::fs::write(dir.path().join("new"), vec![2; 3 << 20]).unwrap();
            std::fs::rename(dir.path().join("new"), &path).unwrap();
        } else {
            std::fs::write(&path, vec![2; 3 << 20]).unwrap();
        }
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn changes_within_one_tick_of_the_clock_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let ufs = mount(dir.path()).await;
    for round in 0..20_u8 {
        std::fs::write(&path, [round; 9]).unwrap();
        let version = ufs.stat("f").await.unwrap().version.unwrap();
        std::fs::write(&path, [round + 100; 9]).unwrap();
        let error = read_to_bytes(&*ufs, "f", &version, 0..9).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "round {round}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_never_rests_is_described_in_time_but_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, "x").unwrap();
    let ufs = mount(dir.path()).await;
    let until = Instant::now() + Duration::from_millis(500);
    let writer = std::thread::spawn(move || {
        while Instant::now() < until {
            std::fs::write(&path, "y").unwrap();
        }
    });
    let started = Instant::now();
    let metadata = ufs.stat("f").await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(400));
    let version = metadata.version.unwrap();
    writer.join().unwrap();
    let error = read_to_bytes(&*ufs, "f", &version, 0..1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
}

#[tokio::test]
async fn a_fresh_file_has_no_version_in_listings_yet() {
    let dir = tempfile::tempdir().unwrap();
    let ufs = mount(dir.path()).await;
    std::fs::write(dir.path().join("f"), "x").unwrap();
    let seen: Vec<Vec<Entry>> = ufs.list("").try_collect().await.unwrap();
    let listed = seen[0][0].metadata.version.clone();
    let stat = ufs.stat("f").await.unwrap().version;
    assert!(listed.is_none() || listed == stat);
    tokio::time::sleep(Duration::from_millis(60)).await;
    let seen: Vec<Vec<Entry>> = ufs.list("").try_collect().await.unwrap();
    assert_eq!(seen[0][0].metadata.version, stat);
}

async fn mount(root: &Path) -> Arc<dyn Ufs> {
    open(
        root.to_str().unwrap(),
        &BTreeMap::new(),
        UfsContext::detached(),
    )
    .await
    .unwrap()
}

async fn list(ufs: &dyn Ufs, dir: &str) -> Result<Vec<String>, ErrorKind> {
    let pages: Result<Vec<Vec<Entry>>, _> = ufs.list(dir).try_collect().await;
    let pages = pages.map_err(|error| error.kind())?;
    Ok(pages
        .into_iter()
        .flatten()
        .map(|entry| entry.name)
        .collect())
}

#[tokio::test]
async fn what_is_written_has_the_attributes_that_are_asked_for_or_those_of_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let ufs = mount(dir.path()).await;
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    let asked = Attributes {
        mode: Some(0o640),
        mtime: Some(then),
        ..Attributes::default()
    };
    let made = put(&*ufs, "f", &asked).await;
    let inode = std::fs::metadata(dir.path().join("f")).unwrap();
    assert_eq!(inode.permissions().mode() & 0o7777, 0o640);
    assert_eq!(inode.modified().unwrap(), then);
    assert_eq!((made.mode, made.mtime), (Some(0o640), Some(then)));

    let change = AttributeChange {
        mode: Some(0o751),
        xattrs: BTreeMap::from([("user.note".into(), Some("kept".into()))]),
        ..AttributeChange::default()
    };
    // Not every file system has them.
    let has_xattrs = match ufs.set_attributes("f", &change).await {
        Ok(metadata) => {
            assert_eq!(metadata.mode, Some(0o751));
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            false
        }
    };
    let change = AttributeChange {
        mode: Some(0o751),
        ..AttributeChange::default()
    };
    ufs.set_attributes("f", &change).await.unwrap();
    let replaced = put(&*ufs, "f", &Attributes::default()).await;
    assert_eq!(replaced.mode, Some(0o751));
    assert_ne!(replaced.mtime, Some(then));
    let attributes = ufs.attributes("f").await.unwrap();
    assert_eq!(attributes.mode, Some(0o751));
    if has_xattrs {
        assert_eq!(attributes.xattrs["user.note"], "kept");
        let change = AttributeChange {
            xattrs: BTreeMap::from([("user.note".into(), None)]),
            ..AttributeChange::default()
        };
        ufs.set_attributes("f", &change).await.unwrap();
        assert!(ufs.attributes("f").await.unwrap().xattrs.is_empty());
    }
    ufs.create_dir("d", &asked).await.unwrap();
    let inode = std::fs::metadata(dir.path().join("d")).unwrap();
    assert_eq!(inode.permissions().mode() & 0o777, 0o640);
    assert_eq!(ufs.stat("d").await.unwrap().mtime, Some(then));
}

/// What is written is known at once, and what anybody writes after it is told apart from it.
#[tokio::test]
async fn the_version_of_what_was_just_written_can_be_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let ufs = mount(dir.path()).await;
    for round in 0..20_u8 {
        let made = put(&*ufs, "f", &Attributes::default()).await;
        let version = made.version.clone().unwrap();
        let seen = ufs.stat("f").await.unwrap().version;
        assert_eq!(seen.as_ref(), Some(&version), "round {round}");
        let listed: Vec<Vec<Entry>> = ufs.list("").try_collect().await.unwrap();
        assert_eq!(listed[0][0].metadata.version, seen);
        read_to_bytes(&*ufs, "f", &version, 0..4).await.unwrap();
        std::fs::write(dir.path().join("f"), [round; 4]).unwrap();
        let stale = read_to_bytes(&*ufs, "f", &version, 0..4).await;
        assert_eq!(stale.unwrap_err().kind(), ErrorKind::Stale, "round {round}");
    }
}

#[tokio::test]
async fn a_file_of_several_names_is_replaced_under_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let ufs = mount(dir.path()).await;
    put(&*ufs, "f", &Attributes::default()).await;
    ufs.hard_link("f", "g").await.unwrap();
    assert_eq!(ufs.stat("g").await.unwrap().nlink, Some(2));
    let exists = ufs.hard_link("f", "g").await.unwrap_err();
    assert_eq!(exists.refusal(), Some(Refusal::Exists));
    std::fs::create_dir(dir.path().join("d")).unwrap();
    let refused = ufs.hard_link("d", "e").await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::NotPermitted));
    std::fs::write(dir.path().join("f"), "old").unwrap();
    put(&*ufs, "f", &Attributes::default()).await;
    let of = |name| std::fs::read(dir.path().join(name)).unwrap();
    assert_eq!((of("f"), of("g")), (b"data".to_vec(), b"old".to_vec()));
}

#[tokio::test]
async fn directories_and_links_are_moved_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let ufs = mount(dir.path()).await;
    let none = Attributes::default();
    for made in ["a", "a/b", "empty", "full", "full/x"] {
        ufs.create_dir(made, &none).await.unwrap();
    }
    put(&*ufs, "a/b/f", &none).await;
    put(&*ufs, "file", &none).await;
    ufs.symlink("link", "/anywhere/at all", &none)
        .await
        .unwrap();
    let target = ufs.read_link("link").await.unwrap();
    assert_eq!(target, "/anywhere/at all");
    let exists = ufs.symlink("link", "x", &none).await.unwrap_err();
    assert_eq!(exists.refusal(), Some(Refusal::Exists));
    for (from, to, refusal) in [
        ("a", "full", Refusal::NotEmpty),
        ("a", "file", Refusal::NotADirectory),
        ("file", "empty", Refusal::IsADirectory),
        ("file", "file/below", Refusal::NotADirectory),
    ] {
        let error = ufs.rename(from, to, RenameMode::Replace).await.unwrap_err();
        assert_eq!(error.refusal(), Some(refusal), "{from} to {to}: {error}");
    }
    let below = ufs.rename("a", "a/b/c", RenameMode::Replace).await;
    assert_eq!(below.unwrap_err().kind(), ErrorKind::Invalid);
    ufs.rename("a", "empty", RenameMode::Replace).await.unwrap();
    assert_eq!(list(&*ufs, "empty/b").await.unwrap(), ["f"]);
    match ufs.rename("link", "file", RenameMode::Exchange).await {
        Ok(()) => {
            assert_eq!(ufs.stat("link").await.unwrap().kind, FileKind::File);
            assert_eq!(ufs.stat("file").await.unwrap().kind, FileKind::Symlink);
        }
        // Not every file system can.
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    }
}

#[tokio::test]
async fn nothing_is_written_through_a_link_that_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path().join("secret"), dir.path().join("link")).unwrap();
    let ufs = mount(dir.path()).await;
    let none = Attributes::default();
    let put_out = ufs.put("out/f", "x".into(), &none, &Condition::Any).await;
    assert_eq!(put_out.unwrap_err().kind(), ErrorKind::Denied);
    for error in [
        ufs.create_dir("out/d", &none).await.unwrap_err(),
        ufs.remove("out/secret").await.unwrap_err(),
        ufs.rename("out/secret", "mine", RenameMode::Replace)
            .await
            .unwrap_err(),
        ufs.copy("out/secret", "mine", &Condition::Any)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
    // The link itself gives way.
    put(&*ufs, "link", &none).await;
    assert_eq!(ufs.stat("link").await.unwrap().kind, FileKind::File);
    let secret = std::fs::read(outside.path().join("secret")).unwrap();
    assert_eq!(secret, b"secret");
    let left: Vec<_> = std::fs::read_dir(outside.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
}

async fn put(ufs: &dyn Ufs, path: &str, attributes: &Attributes) -> Metadata {
    let data = Bytes::from_static(b"data");
    ufs.put(path, data, attributes, &Condition::Any)
        .await
        .unwrap()
}
