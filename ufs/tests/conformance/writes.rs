//! The rules that every store that can be written keeps.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt;
use millpond_proto::{ErrorKind, FileVersion, Refusal};
use millpond_ufs::{
    AttributeChange, Attributes, Condition, FileKind, RenameMode, Ufs, UfsError, Unfinished,
    read_to_bytes,
};

use super::stores::Store;

/// A write answers what a stat says, and is read in that version; what it replaced is stale.
pub(crate) async fn what_is_put_is_read_and_replaces_what_was_there(store: &dyn Store) {
    let ufs = store.ufs().await;
    for size in [0, 1, 70_000] {
        let first = put(&*ufs, "f", &vec![1; size]).await;
        assert_eq!(stat(&*ufs, "f").await, first, "{size} bytes");
        assert_eq!(first.0, size as u64);
        assert!(read(&*ufs, "f").await == vec![1; size]);
        let second = put(&*ufs, "f", &vec![2; size + 1]).await;
        assert_ne!(first.1, second.1);
        assert!(read(&*ufs, "f").await == vec![2; size + 1]);
        let end = first.0.max(1);
        let stale = read_to_bytes(&*ufs, "f", &first.1, 0..end).await;
        assert_eq!(stale.unwrap_err().kind(), ErrorKind::Stale);
        ufs.remove("f").await.unwrap();
    }
}

/// `Absent` and `Version` are kept to by puts and uploads; of several writers at once that want
/// the file to be new, one wins.
pub(crate) async fn conditions_hold(store: &dyn Store) {
    let ufs = store.ufs().await;
    let none = Attributes::default();
    let data = || Bytes::from_static(b"data");
    let gone = FileVersion::ETag("\"gone\"".into());
    let writers = (0..8).map(|n| {
        let (ufs, none) = (std::sync::Arc::clone(&ufs), none.clone());
        async move {
            let data = Bytes::from(vec![n; 100]);
            ufs.put("new", data, &none, &Condition::Absent).await
        }
    });
    let ended = futures::future::join_all(writers).await;
    let (won, lost): (Vec<_>, Vec<_>) = ended.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for error in lost {
        assert_eq!(refusal(error), Some(Refusal::Exists));
    }
    let first = stat(&*ufs, "new").await.1;
    let kept = read(&*ufs, "new").await;
    let stale = |version: &FileVersion| Condition::Version(version.clone());
    let replaced = ufs.put("new", data(), &none, &stale(&gone)).await;
    assert_eq!(replaced.unwrap_err().kind(), ErrorKind::Stale);
    let absent = ufs.put("none", data(), &none, &stale(&first)).await;
    assert_eq!(absent.unwrap_err().kind(), ErrorKind::Stale);
    assert_eq!(kind(&*ufs, "none").await, Err(ErrorKind::NotFound));
    for (condition, refused) in [
        (Condition::Absent, Some(Refusal::Exists)),
        (stale(&gone), None),
    ] {
        let upload = ufs.upload("new", &none).await.unwrap();
        upload.part(0, 0, data()).await.unwrap();
        let error = upload.complete(4, &condition).await.unwrap_err();
        assert_eq!(error.refusal(), refused, "{error}");
        upload.abort().await.unwrap();
    }
    assert!(read(&*ufs, "new").await == kept);
    ufs.put("new", data(), &none, &stale(&first)).await.unwrap();
    assert!(read(&*ufs, "new").await == b"data");
    let upload = ufs.upload("uploaded", &none).await.unwrap();
    upload.part(0, 0, data()).await.unwrap();
    upload.complete(4, &Condition::Absent).await.unwrap();
    assert!(read(&*ufs, "uploaded").await == b"data");
    assert!(unfinished(&*ufs).await.is_empty());
}

/// Parts come in any order and may be sent again; nothing is seen before all is there; ranges of
/// other files are taken over, in their version only.
pub(crate) async fn uploads_are_seen_when_they_are_whole(store: &dyn Store) {
    let ufs = store.ufs().await;
    let none = Attributes::default();
    let part = usize::try_from(ufs.abilities().parts.min.max(1000)).unwrap();
    ufs.create_dir("d", &none).await.unwrap();
    put(&*ufs, "d/f", b"old").await;
    let base = put(&*ufs, "base", &pattern(part + 10)).await.1;
    let upload = ufs.upload("d/f", &none).await.unwrap();
    assert_eq!(unfinished(&*ufs).await, ["d/f"]);
    let last = Bytes::from_static(b"the end");
    upload.part(2, 2 * part as u64, last).await.unwrap();
    upload.part(0, 0, vec![9; part].into()).await.unwrap();
    upload.part(0, 0, vec![7; part].into()).await.unwrap();
    let at = part as u64;
    let copied = match ufs.abilities().copy_parts {
        true => {
            let gone = FileVersion::ETag("\"gone\"".into());
            let stale = upload.copy_part(1, at, "base", &gone, 10..10 + at).await;
            assert_eq!(stale.unwrap_err().kind(), ErrorKind::Stale);
            upload
                .copy_part(1, at, "base", &base, 10..10 + at)
                .await
                .unwrap();
            pattern(part + 10)[10..].to_vec()
        }
        false => {
            upload.part(1, at, vec![8; part].into()).await.unwrap();
            vec![8; part]
        }
    };
    assert!(read(&*ufs, "d/f").await == b"old");
    let size = 2 * at + 7;
    let metadata = upload.complete(size, &Condition::Any).await.unwrap();
    assert_eq!((metadata.size, metadata.kind), (size, FileKind::File));
    assert_eq!(stat(&*ufs, "d/f").await, (size, metadata.version.unwrap()));
    let expected = [&vec![7; part][..], &copied, b"the end"].concat();
    assert!(read(&*ufs, "d/f").await == expected, "wrong bytes");
    assert!(unfinished(&*ufs).await.is_empty());

    let upload = ufs.upload("empty", &none).await.unwrap();
    upload.complete(0, &Condition::Any).await.unwrap();
    assert!(read(&*ufs, "empty").await.is_empty());
}

/// An upload that is given up leaves nothing; one that was forgotten is found and removed.
pub(crate) async fn uploads_that_do_not_end_are_found_and_removed(store: &dyn Store) {
    let ufs = store.ufs().await;
    let none = Attributes::default();
    ufs.create_dir("d", &none).await.unwrap();
    ufs.create_dir("d/e", &none).await.unwrap();
    put(&*ufs, "d/e/kept", b"x").await;
    let upload = ufs.upload("d/e/f", &none).await.unwrap();
    upload.part(0, 0, Bytes::from_static(b"x")).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(kind(&*ufs, "d/e/f").await, Err(ErrorKind::NotFound));
    assert_eq!(names(&*ufs, "d/e").await, ["kept"]);

    let upload = ufs.upload("d/e/f", &none).await.unwrap();
    upload.part(0, 0, Bytes::from_static(b"x")).await.unwrap();
    drop(upload);
    assert_eq!(names(&*ufs, "d/e").await, ["kept"]);
    let pages = ufs.unfinished_uploads("d").try_concat().await.unwrap();
    let [Unfinished { path, id, started }] = &pages[..] else {
        panic!("one upload was left: {pages:?}");
    };
    assert_eq!(path, "d/e/f");
    assert!(started.is_some());
    ufs.abort_upload(path, id).await.unwrap();
    ufs.abort_upload(path, id).await.unwrap();
    assert!(unfinished(&*ufs).await.is_empty());
}

/// Directories are made, found, and removed when they are empty; one whose last entry goes
/// stays.
pub(crate) async fn directories_are_made_and_stay_until_removed(store: &dyn Store) {
    let ufs = store.ufs().await;
    let none = Attributes::default();
    ufs.create_dir("d", &none).await.unwrap();
    assert_eq!(kind(&*ufs, "d").await, Ok(FileKind::Directory));
    assert_eq!(names(&*ufs, "d").await, Vec::<String>::new());
    assert_eq!(names(&*ufs, "").await, ["d"]);
    put(&*ufs, "d/f", b"x").await;
    for path in ["d", "d/f", ""] {
        let refused = ufs.create_dir(path, &none).await;
        assert_eq!(refusal(refused), Some(Refusal::Exists), "{path:?}");
    }
    assert_eq!(refusal(ufs.remove_dir("d").await), Some(Refusal::NotEmpty));
    assert_eq!(refusal(ufs.remove("d").await), Some(Refusal::IsADirectory));
    let file = ufs.remove_dir("d/f").await;
    assert_eq!(refusal(file), Some(Refusal::NotADirectory));
    ufs.create_dir("d/e", &none).await.unwrap();
    ufs.remove("d/f").await.unwrap();
    ufs.remove_dir("d/e").await.unwrap();
    assert_eq!(kind(&*ufs, "d").await, Ok(FileKind::Directory));
    ufs.remove_dir("d").await.unwrap();
    assert_eq!(kind(&*ufs, "d").await, Err(ErrorKind::NotFound));
    for error in [
        ufs.remove_dir("d").await.unwrap_err(),
        ufs.remove("d").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let root = ufs.remove_dir("").await;
    assert_eq!(refusal(root), Some(Refusal::InUse));
}

/// A file is renamed over another or over nothing, and never over a directory; its directory
/// stays.
pub(crate) async fn files_are_renamed(store: &dyn Store) {
    let ufs = store.ufs().await;
    let none = Attributes::default();
    ufs.create_dir("d", &none).await.unwrap();
    ufs.create_dir("e", &none).await.unwrap();
    put(&*ufs, "d/f", b"first").await;
    put(&*ufs, "e/g", b"second").await;
    let rename = |from, to, mode| ufs.rename(from, to, mode);
    let exists = rename("d/f", "e/g", RenameMode::NoReplace).await;
    assert_eq!(refusal(exists), Some(Refusal::Exists));
    let exists = rename("d/f", "e", RenameMode::NoReplace).await;
    assert_eq!(refusal(exists), Some(Refusal::Exists));
    let directory = rename("d/f", "e", RenameMode::Replace).await;
    assert_eq!(refusal(directory), Some(Refusal::IsADirectory));
    let missing = rename("d/none", "e/g", RenameMode::Replace).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(read(&*ufs, "e/g").await == b"second");
    rename("d/f", "d/f", RenameMode::Replace).await.unwrap();
    rename("d/f", "e/g", RenameMode::Replace).await.unwrap();
    assert!(read(&*ufs, "e/g").await == b"first");
    assert_eq!(kind(&*ufs, "d/f").await, Err(ErrorKind::NotFound));
    assert_eq!(names(&*ufs, "").await, ["d", "e"]);
    rename("e/g", "e/h", RenameMode::NoReplace).await.unwrap();
    assert_eq!(names(&*ufs, "e").await, ["h"]);
    assert!(read(&*ufs, "e/h").await == b"first");
}

/// A copy has the bytes of the original, under the conditions of a put.
pub(crate) async fn files_are_copied(store: &dyn Store) {
    let ufs = store.ufs().await;
    let data = pattern(100_000);
    put(&*ufs, "f", &data).await;
    let copy = ufs.copy("f", "d", &Condition::Any).await.unwrap();
    assert_eq!(copy.size, 100_000);
    assert!(read(&*ufs, "d").await == data);
    assert_eq!(stat(&*ufs, "d").await.1, copy.version.unwrap());
    put(&*ufs, "g", b"other").await;
    let refused = ufs.copy("f", "g", &Condition::Absent).await;
    assert_eq!(refusal(refused), Some(Refusal::Exists));
    assert!(read(&*ufs, "g").await == b"other");
    ufs.copy("f", "g", &Condition::Any).await.unwrap();
    assert!(read(&*ufs, "g").await == data);
    ufs.copy("f", "h", &Condition::Absent).await.unwrap();
    assert!(read(&*ufs, "h").await == data);
    put(&*ufs, "empty", b"").await;
    ufs.copy("empty", "void", &Condition::Absent).await.unwrap();
    assert!(read(&*ufs, "void").await.is_empty());
    let missing = ufs.copy("none", "x", &Condition::Any).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Nothing is made under a name that could not be read again; the root is not replaced.
pub(crate) async fn names_that_cannot_be_are_refused(store: &dyn Store) {
    let ufs = store.ufs().await;
    let none = Attributes::default();
    let long = "x".repeat(256);
    for path in ["a//b", "../x", "a/./b", ".millpond-unfinished-x", "x\0y"] {
        let error = try_put(&*ufs, path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{path:?}: {error}");
        let error = ufs.create_dir(path, &none).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{path:?}: {error}");
    }
    let refused = try_put(&*ufs, &long).await;
    assert_eq!(refusal(refused), Some(Refusal::NameTooLong));
    let refused = ufs.create_dir(&long, &none).await;
    assert_eq!(refusal(refused), Some(Refusal::NameTooLong));
    let refused = try_put(&*ufs, "").await;
    assert_eq!(refusal(refused), Some(Refusal::IsADirectory));
    put(&*ufs, "odd %2F ☃ 'name\"", b"x").await;
    assert_eq!(names(&*ufs, "").await, ["odd %2F ☃ 'name\""]);
}

/// A mount with the option `read_only` refuses every change and makes none.
pub(crate) async fn a_read_only_mount_refuses_every_change(store: &dyn Store) {
    let ufs = store.ufs().await;
    put(&*ufs, "f", b"data").await;
    let ufs = store.ufs_with(&[("read_only", "true")]).await;
    assert_eq!(ufs.abilities(), Default::default());
    let none = Attributes::default();
    let refusals = [
        refusal(try_put(&*ufs, "f").await),
        refusal(ufs.upload("f", &none).await),
        refusal(ufs.copy("f", "g", &Condition::Any).await),
        refusal(ufs.rename("f", "g", RenameMode::Replace).await),
        refusal(ufs.remove("f").await),
        refusal(ufs.create_dir("d", &none).await),
        refusal(ufs.remove_dir("d").await),
        refusal(ufs.symlink("l", "f", &none).await),
        refusal(ufs.hard_link("f", "g").await),
        refusal(ufs.set_attributes("f", &Default::default()).await),
    ];
    assert_eq!(refusals, [Some(Refusal::ReadOnly); 10]);
    assert!(read(&*ufs, "f").await == b"data");
    assert_eq!(names(&*ufs, "").await, ["f"]);
}

async fn put(ufs: &dyn Ufs, path: &str, data: &[u8]) -> (u64, FileVersion) {
    let data = Bytes::copy_from_slice(data);
    let metadata = ufs
        .put(path, data, &Attributes::default(), &Condition::Any)
        .await
        .unwrap();
    assert_eq!(metadata.kind, FileKind::File);
    (metadata.size, metadata.version.unwrap())
}

async fn try_put(ufs: &dyn Ufs, path: &str) -> Result<(), UfsError> {
    let none = Attributes::default();
    let put = ufs.put(path, Bytes::new(), &none, &Condition::Any);
    put.await.map(drop)
}

async fn stat(ufs: &dyn Ufs, path: &str) -> (u64, FileVersion) {
    let metadata = ufs.stat(path).await.unwrap();
    (metadata.size, metadata.version.unwrap())
}

async fn kind(ufs: &dyn Ufs, path: &str) -> Result<FileKind, ErrorKind> {
    let stat = ufs.stat(path).await;
    stat.map(|metadata| metadata.kind)
        .map_err(|error| error.kind())
}

async fn read(ufs: &dyn Ufs, path: &str) -> Vec<u8> {
    let (size, version) = stat(ufs, path).await;
    let bytes = read_to_bytes(ufs, path, &version, 0..size).await.unwrap();
    bytes.to_vec()
}

async fn names(ufs: &dyn Ufs, dir: &str) -> Vec<String> {
    let entries = ufs.list(dir).try_concat().await.unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

async fn unfinished(ufs: &dyn Ufs) -> Vec<String> {
    let uploads = ufs.unfinished_uploads("").try_concat().await.unwrap();
    uploads.into_iter().map(|upload| upload.path).collect()
}

fn refusal<T>(result: Result<T, UfsError>) -> Option<Refusal> {
    result.err().and_then(|error| error.refusal())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| (index * 7 + index / 250) as u8)
        .collect()
}

/// Modes, owners, times, extended attributes and links are kept where they are set, in stats, in
/// listings, over copies and renames, of directories too.
pub(crate) async fn attributes_and_links_are_kept(store: &dyn Store) {
    let local = store.uri().starts_with('/');
    let options: &[_] = match local {
        true => &[],
        false => &[("posix_attributes", "full")],
    };
    let ufs = store.ufs_with(options).await;
    assert!(ufs.abilities().attributes && ufs.abilities().symlinks);
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::new(seconds, 500_000_000);
    let given = Attributes {
        mode: Some(0o640),
        mtime: Some(time(1_000_000_000)),
        ..Attributes::default()
    };
    let data = Bytes::from_static(b"data");
    let made = ufs.put("f", data, &given, &Condition::Any).await.unwrap();
    assert_eq!((made.mode, made.mtime), (given.mode, given.mtime));
    ufs.create_dir("d", &given).await.unwrap();
    let of_links = Attributes::default();
    ufs.symlink("l", "d/no where", &of_links).await.unwrap();
    let exists = ufs.symlink("l", "x", &of_links).await;
    assert_eq!(refusal(exists), Some(Refusal::Exists));
    assert_eq!(ufs.read_link("l").await.unwrap(), "d/no where");
    let no_link = ufs.read_link("f").await;
    assert_eq!(no_link.unwrap_err().kind(), ErrorKind::Invalid);

    let change = AttributeChange {
        mode: Some(0o4711),
        atime: Some(time(5)),
        ..AttributeChange::default()
    };
    let changed = ufs.set_attributes("f", &change).await.unwrap();
    assert_eq!(changed.mode, Some(0o4711));
    assert_eq!((changed.mtime, changed.size), (given.mtime, 4));
    assert!(read(&*ufs, "f").await == b"data");
    assert_eq!(ufs.stat("f").await.unwrap().version, changed.version);
    let change = AttributeChange {
        mode: Some(0o700),
        mtime: Some(time(7)),
        ..AttributeChange::default()
    };
    ufs.set_attributes("d", &change).await.unwrap();
    if !local {
        let owned = AttributeChange {
            uid: Some(1234),
            gid: Some(99),
            xattrs: [("user.note".to_owned(), Some("ü, \"x\"".into()))].into(),
            ..AttributeChange::default()
        };
        ufs.set_attributes("f", &owned).await.unwrap();
        let attributes = ufs.attributes("f").await.unwrap();
        assert_eq!((attributes.uid, attributes.gid), (Some(1234), Some(99)));
        assert_eq!(attributes.xattrs["user.note"], "ü, \"x\"");
        let missing = ufs.set_attributes("none", &owned).await;
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    }
    put(&*ufs, "d/inside", b"x").await;

    ufs.copy("f", "copy", &Condition::Absent).await.unwrap();
    ufs.rename("f", "renamed", RenameMode::Replace)
        .await
        .unwrap();
    ufs.rename("l", "link", RenameMode::NoReplace)
        .await
        .unwrap();
    let entries = ufs.list("").try_concat().await.unwrap();
    let shown: Vec<_> = entries
        .iter()
        .map(|entry| (&*entry.name, entry.metadata.kind, entry.metadata.mode))
        .collect();
    assert_eq!(
        shown,
        [
            ("copy", FileKind::File, Some(0o4711)),
            ("d", FileKind::Directory, Some(0o700)),
            ("link", FileKind::Symlink, Some(0o777)),
            ("renamed", FileKind::File, Some(0o4711)),
        ]
    );
    for entry in &entries {
        let stat = ufs.stat(&entry.name).await.unwrap();
        assert_eq!(
            (stat.mode, stat.mtime),
            (entry.metadata.mode, entry.metadata.mtime)
        );
    }
    if !local {
        // There a read counts as an access.
        assert_eq!(ufs.stat("renamed").await.unwrap().atime, Some(time(5)));
    }
    assert_eq!(ufs.read_link("link").await.unwrap(), "d/no where");
}
