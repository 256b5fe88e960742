//! Changes that were made known: the kernel drops what it believed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use crate::support::{Rig, memory, wait_for};

/// Until told otherwise, as far as this client and its kernel go.
fn immutable() -> BTreeMap<String, String> {
    [("metadata".to_owned(), "immutable".to_owned())].into()
}

fn names(rig: &Rig, dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(rig.path(dir)).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_refreshed_is_seen_by_the_kernel_and_nothing_before() {
    for kernel_opens in [false, true] {
        let (store, uri) = memory();
        store.put("d/f", "old");
        store.put("d/sub/g", "old");
        let Some(rig) = Rig::with(&uri, immutable(), |options| {
            options.kernel_opens = kernel_opens;
        }) else {
            return;
        };
        let read = |path: &str| std::fs::read_to_string(rig.path(path)).unwrap();
        assert_eq!((read("d/f"), read("d/sub/g")), ("old".into(), "old".into()));
        assert_eq!(names(&rig, "d"), ["f", "sub"]);
        assert!(!rig.path("d/new").exists());

        store.put("d/f", "newer");
        store.put("d/sub/g", "newest");
        store.put("d/new", "x");
        std::thread::park_timeout(crate::support::TTL * 3);
        assert_eq!(std::fs::metadata(rig.path("d/f")).unwrap().size(), 3);
        assert_eq!(names(&rig, "d"), ["f", "sub"]);

        let refresh = |path, recursive| {
            let refreshing = rig.fs.refresh(path, recursive);
            rig.runtime.block_on(refreshing).unwrap();
        };
        refresh("/d/f", false);
        wait_for("the new version", || read("d/f") == "newer");
        assert_eq!(names(&rig, "d"), ["f", "new", "sub"]);
        wait_for("the new name", || rig.path("d/new").exists());
        assert_eq!(read("d/sub/g"), "old", "it was not told of");
        refresh("/d", true);
        wait_for("what is below", || read("d/sub/g") == "newest");

        store.delete("d/f");
        refresh("/", true);
        wait_for("the file to go", || !rig.path("d/f").exists());
        assert_eq!(names(&rig, "d"), ["new", "sub"]);
    }
}
