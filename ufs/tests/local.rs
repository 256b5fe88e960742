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

use futures::{StreamExt, TryStreamExt};
use millpond_proto::{ErrorKind, FileVersion};
use millpond_ufs::{Entry, FileKind, Ufs, UfsContext, open, read_to_bytes};
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
    for path in [
        "absolute",
        "relative",
        "absolute-inside",
        "directory",
        "round-about",
    ] {
        assert_eq!(ufs.stat(path).await.unwrap().kind, FileKind::Symlink);
        let error = ufs.read_link(path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{path}: {error}");
    }
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
