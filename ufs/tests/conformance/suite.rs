//! The rules that every backend keeps.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use millpond_proto::{ErrorKind, FileVersion};
use millpond_ufs::{Entry, FileKind, Ufs, UfsError, probe, read_to_bytes};

use super::stores::{ROOT, Store};

/// Any sub-range of a file, whatever its size, reads exactly; an empty range asks nothing.
pub(crate) async fn whole_files_and_ranges_read_exactly(store: &dyn Store) {
    let ufs = store.ufs().await;
    for size in [0, 1, 65_535, 65_536, 3 * 1024 * 1024 + 7] {
        let data = pattern(size);
        let name = format!("size-{size}");
        store.put(&name, &data);
        let (got_size, version) = stat_file(&*ufs, &name).await;
        assert_eq!(got_size, size as u64);
        let end = size as u64;
        let mut ranges = vec![0..end, end..end, 0..0];
        if size > 1 {
            ranges.extend([0..1, end - 1..end, end / 3..end / 2 + 1]);
        }
        for range in ranges {
            let bytes = read_to_bytes(&*ufs, &name, &version, range.clone())
                .await
                .unwrap();
            let expected = &data[usize::try_from(range.start).unwrap()..][..bytes.len()];
            assert_eq!(bytes.len() as u64, range.end - range.start, "{range:?}");
            assert!(bytes == expected, "wrong bytes in {range:?} of {size}");
        }
    }
}

/// A range that ends beyond the file is `Invalid`, never a short read.
pub(crate) async fn ranges_beyond_the_end_are_invalid(store: &dyn Store) {
    let ufs = store.ufs().await;
    store.put("ten", b"0123456789");
    let (_, version) = stat_file(&*ufs, "ten").await;
    for range in [0..11, 9..20, 10..11, 100..101] {
        let error = read_to_bytes(&*ufs, "ten", &version, range.clone())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{range:?}: {error}");
    }
}

/// What does not exist is `NotFound`; the root always exists.
pub(crate) async fn what_is_missing_is_not_found(store: &dyn Store) {
    let ufs = store.ufs().await;
    assert_eq!(ufs.stat("").await.unwrap().kind, FileKind::Directory);
    probe(&*ufs).await.unwrap();
    for path in ["none", "none/below"] {
        let error = ufs.stat(path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let error = list(&*ufs, path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    store.put("file", b"x");
    let error = ufs.stat("file/below").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().starts_with("cannot stat "), "{error}");
    assert!(error.uri().ends_with("file/below"), "{error}");
}

/// A read of a version that was replaced is `Stale`, even if the new one has the same size;
/// the new one reads under its own version.
pub(crate) async fn a_replaced_file_is_stale_and_reads_anew(store: &dyn Store) {
    let ufs = store.ufs().await;
    store.put("f", b"old bytes");
    let (_, old) = stat_file(&*ufs, "f").await;
    store.put("f", b"new bytes");
    let error = read_to_bytes(&*ufs, "f", &old, 0..9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    let (_, new) = stat_file(&*ufs, "f").await;
    assert_ne!(old, new);
    assert_eq!(
        read_to_bytes(&*ufs, "f", &new, 0..9).await.unwrap(),
        "new bytes"
    );
}

/// A read of a file that was deleted is `NotFound`.
pub(crate) async fn a_deleted_file_is_not_found(store: &dyn Store) {
    let ufs = store.ufs().await;
    store.put("f", b"bytes");
    let (_, version) = stat_file(&*ufs, "f").await;
    store.delete("f");
    let error = read_to_bytes(&*ufs, "f", &version, 0..5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(ufs.stat("f").await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Names are never encoded, decoded, trimmed or normalised.
pub(crate) async fn odd_names_are_kept_byte_for_byte(store: &dyn Store) {
    let ufs = store.ufs().await;
    let names = odd_names();
    for (index, name) in names.iter().enumerate() {
        store.put(&format!("odd/{name}"), &pattern(index + 1));
    }
    for (index, name) in names.iter().enumerate() {
        let path = format!("odd/{name}");
        let (size, version) = stat_file(&*ufs, &path).await;
        assert_eq!(size, index as u64 + 1, "{name:?}");
        let bytes = read_to_bytes(&*ufs, &path, &version, 0..size)
            .await
            .unwrap();
        assert!(bytes == pattern(index + 1), "{name:?}");
    }
    if store.lists() {
        let mut listed = names_in(&*ufs, "odd").await;
        listed.sort();
        let mut expected = names;
        expected.sort();
        assert_eq!(listed, expected);
    }
}

/// A path that is not of the documented form is `Invalid` in every call.
pub(crate) async fn malformed_paths_are_invalid(store: &dyn Store) {
    let ufs = store.ufs().await;
    let version = FileVersion::ETag("\"x\"".into());
    for path in ["/a", "a/", "a//b", ".", "a/../b", "..", "a\0b"] {
        let stat = ufs.stat(path).await.unwrap_err();
        assert_eq!(stat.kind(), ErrorKind::Invalid, "{path:?}: {stat}");
        let read = ufs.read(path, &version, 0..1).await.err().unwrap();
        assert_eq!(read.kind(), ErrorKind::Invalid, "{path:?}: {read}");
        if store.lists() {
            let list = list(&*ufs, path).await.unwrap_err();
            assert_eq!(list.kind(), ErrorKind::Invalid, "{path:?}: {list}");
        }
    }
}

/// A store without links says so.
pub(crate) async fn there_are_no_links(store: &dyn Store) {
    let ufs = store.ufs().await;
    store.put("f", b"x");
    let error = ufs.read_link("f").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// A prefix that any key has is a directory, at every level.
pub(crate) async fn directories_need_no_object(store: &dyn Store) {
    let ufs = store.ufs().await;
    store.put("a/b/c/d", b"x");
    store.put("a/z", b"y");
    for dir in ["a", "a/b", "a/b/c"] {
        assert!(ufs.stat(dir).await.unwrap().is_directory(), "{dir}");
    }
    assert_eq!(shown(&*ufs, "").await, ["a/"]);
    assert_eq!(shown(&*ufs, "a").await, ["b/", "z"]);
    assert_eq!(shown(&*ufs, "a/b/c").await, ["d"]);
}

/// What a listing says of a file, `stat` says too; where both give a version, the same one.
pub(crate) async fn listings_agree_with_stat(store: &dyn Store) {
    let ufs = store.ufs().await;
    for (name, size) in [("d/one", 1), ("d/ten", 10), ("d/none", 0)] {
        store.put(name, &pattern(size));
    }
    store.settle().await;
    let entries = list(&*ufs, "d").await.unwrap();
    assert_eq!(entries.len(), 3);
    for entry in entries {
        let stat = ufs.stat(&format!("d/{}", entry.name)).await.unwrap();
        assert_eq!(entry.metadata.size, stat.size);
        assert!(stat.version.is_some());
        assert_eq!(entry.metadata.version, stat.version);
        let apart = stat
            .mtime
            .unwrap()
            .duration_since(entry.metadata.mtime.unwrap())
            .unwrap_or_else(|error| error.duration());
        assert!(apart.as_secs() < 1, "mtimes {apart:?} apart");
    }
}

/// A listing longer than a page comes in several, in order, each name once.
pub(crate) async fn long_listings_come_in_pages_each_name_once(store: &dyn Store) {
    let ufs = store.ufs().await;
    let mut expected = BTreeMap::new();
    for index in 0..2_345 {
        let name = format!("f{index:05}");
        store.put(&format!("many/{name}"), b"");
        expected.insert(name, ());
    }
    let pages: Vec<Vec<Entry>> = ufs.list("many").try_collect().await.unwrap();
    assert!(pages.len() >= 3, "{} pages", pages.len());
    assert!(pages.iter().all(|page| page.len() <= 1_001));
    let names: Vec<_> = pages
        .into_iter()
        .flatten()
        .map(|entry| entry.name)
        .collect();
    let expected: Vec<_> = expected.into_keys().collect();
    assert_eq!(names, expected);
}

/// An object `d/` makes the directory `d`, also an empty one, whatever its size; it is not
/// an entry of it.
pub(crate) async fn markers_make_directories(store: &dyn Store) {
    let ufs = store.ufs().await;
    store.put("empty/", b"");
    store.put("full/", b"not readable");
    store.put("full/f", b"x");
    assert_eq!(shown(&*ufs, "").await, ["empty/", "full/"]);
    assert!(ufs.stat("empty").await.unwrap().is_directory());
    assert!(ufs.stat("full").await.unwrap().is_directory());
    assert_eq!(shown(&*ufs, "empty").await, Vec::<String>::new());
    assert_eq!(shown(&*ufs, "full").await, ["f"]);
}

/// Of an object `a` beside objects below `a/` only the directory is shown.
pub(crate) async fn a_directory_hides_the_object_of_its_name(store: &dyn Store) {
    for page_size in ["1", "2", "1000"] {
        let ufs = store.ufs_with(&[("page_size", page_size)]).await;
        for key in ["a", "a-b", "a.c", "a/x", "b", "c/", "c"] {
            store.put(key, b"1");
        }
        assert!(ufs.stat("a").await.unwrap().is_directory());
        assert!(ufs.stat("c").await.unwrap().is_directory());
        let mut shown = shown(&*ufs, "").await;
        shown.sort();
        assert_eq!(
            shown,
            ["a-b", "a.c", "a/", "b", "c/"],
            "pages of {page_size}"
        );
    }
}

/// Keys that no path can stand for are not shown and do not disturb their neighbours; a
/// directory that has only such keys exists and is empty.
pub(crate) async fn unreachable_keys_are_hidden(store: &dyn Store) {
    let ufs = store.ufs().await;
    let long = "x".repeat(256);
    for key in [
        "d//double",
        "d/./dot",
        "d/../dots",
        "d/..",
        "d/tab\there",
        &format!("d/{long}"),
        "d/fine",
        "only//double",
    ] {
        store.put(key, b"1");
    }
    assert_eq!(shown(&*ufs, "d").await, ["fine"]);
    assert_eq!(shown(&*ufs, "").await, ["d/", "only/"]);
    assert!(ufs.stat("only").await.unwrap().is_directory());
    assert_eq!(shown(&*ufs, "only").await, Vec::<String>::new());
    for path in [format!("d/{long}"), "d/tab\there".to_owned()] {
        let error = ufs.stat(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

/// A mount of a prefix shows that prefix and nothing beside it.
pub(crate) async fn keys_outside_the_prefix_are_not_seen(store: &dyn Store) {
    store.put("in/f", b"1");
    store.put("in-2/g", b"2");
    let ufs = store.ufs_below("in").await;
    assert_eq!(shown(&*ufs, "").await, ["f"]);
    assert!(ufs.uri().ends_with("/in"), "{}", ufs.uri());
}

/// One object has one URI, through whichever mount.
pub(crate) async fn object_uris_are_the_same_through_two_mounts(store: &dyn Store) {
    let (whole, part) = (store.ufs().await, store.ufs_below("a/b").await);
    assert_eq!(whole.object_uri("a/b/c d"), part.object_uri("c d"));
    assert_ne!(whole.object_uri("a/b/c"), part.object_uri("d"));
}

fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        " ",
        " leading and trailing ",
        "100%",
        "%2F",
        "%41",
        "a+b",
        "a#b",
        "a?b=c",
        "a&b;c=d",
        "back\\slash",
        "quo\"te'`",
        "<tag>&amp;",
        "[]{}^~|*:@!$,",
        "ünïcödé ☃ 中文",
        "e\u{301}",
        "...",
        ".hidden",
        "-dash",
        ROOT,
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("y".repeat(255));
    names.push("é".repeat(127));
    names
}

async fn stat_file(ufs: &dyn Ufs, path: &str) -> (u64, FileVersion) {
    let metadata = ufs.stat(path).await.unwrap();
    assert_eq!(metadata.kind, FileKind::File, "{path:?}");
    (metadata.size, metadata.version.unwrap())
}

async fn list(ufs: &dyn Ufs, dir: &str) -> Result<Vec<Entry>, UfsError> {
    let pages: Vec<Vec<Entry>> = ufs.list(dir).try_collect().await?;
    Ok(pages.into_iter().flatten().collect())
}

async fn names_in(ufs: &dyn Ufs, dir: &str) -> Vec<String> {
    let entries = list(ufs, dir).await.unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

/// The names in `dir`, directories with a slash behind them.
async fn shown(ufs: &dyn Ufs, dir: &str) -> Vec<String> {
    let entries = list(ufs, dir).await.unwrap();
    entries
        .into_iter()
        .map(|entry| match entry.metadata.is_directory() {
            true => format!("{}/", entry.name),
            false => entry.name,
        })
        .collect()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| (index * 31 + index / 251) as u8)
        .collect()
}
