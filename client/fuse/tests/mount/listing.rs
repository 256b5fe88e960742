//! Directories, also huge ones, also while they change.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::{DirEntryExt, MetadataExt};

use rustix::fs::{RawDir, SeekFrom};

use crate::support::{Rig, local, memory};

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().into_string().unwrap()
    };
    entries.map(name).collect()
}

#[test]
fn a_directory_shows_files_and_directories_with_their_kinds() {
    let (store, uri) = memory();
    store.put("a", "1");
    store.put("d/e/f", "2");
    store.put("z", "3");
    let Some(rig) = Rig::new(&uri) else { return };
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(rig.dir()).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        // What the listing says is what stat says.
        assert_eq!(entry.ino(), entry.metadata().unwrap().ino());
        seen.insert((entry.file_name().into_string().unwrap(), kind.is_dir()));
    }
    let expected = [("a", false), ("d", true), ("z", false)];
    assert_eq!(seen, expected.map(|(n, d)| (n.to_owned(), d)).into());
    assert_eq!(names(&rig.path("d")), ["e"]);
    assert_eq!(names(&rig.path("d/e")), ["f"]);
    let parent = std::fs::metadata(rig.path("d/e/..")).unwrap();
    assert_eq!(
        parent.ino(),
        std::fs::metadata(rig.path("d")).unwrap().ino()
    );
}

#[test]
fn an_empty_directory_is_empty() {
    let (dir, uri) = local();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let Some(rig) = Rig::new(&uri) else { return };
    assert!(names(&rig.path("empty")).is_empty());
}

#[test]
fn a_hundred_thousand_entries_stream_while_some_are_removed() {
    const ENTRIES: usize = 100_000;
    let (store, uri) = memory();
    let name = |n: usize| format!("file-{n:06}");
    for n in 0..ENTRIES {
        store.put(&format!("big/{}", name(n)), "");
    }
    let Some(rig) = Rig::new(&uri) else { return };
    let mut seen: HashMap<String, u32> = HashMap::new();
    for (at, entry) in std::fs::read_dir(rig.path("big")).unwrap().enumerate() {
        let entry = entry.unwrap().file_name().into_string().unwrap();
        *seen.entry(entry).or_default() += 1;
        if at == ENTRIES / 10 {
            // Some that were shown, some that are yet to come.
            for n in (0..ENTRIES).filter(|n| n % 7 == 3) {
                store.delete(&format!("big/{}", name(n)));
            }
        }
    }
    for n in (0..ENTRIES).filter(|n| n % 7 != 3) {
        assert_eq!(seen.get(&name(n)), Some(&1), "{}", name(n));
    }
    assert!(seen.values().all(|times| *times == 1));
    assert_eq!(rig.mounted().stats().open_dirs, 0);
}

/// Entries from the present place of `dir` on, each with the place after it.
fn rest(dir: &File, most: usize) -> Vec<(String, u64)> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut raw = RawDir::new(dir, &mut buffer);
    let mut out = Vec::new();
    while out.len() < most {
        let Some(entry) = raw.next() else { break };
        let entry = entry.unwrap();
        let name: &CStr = entry.file_name();
        let name = name.to_str().unwrap().to_owned();
        out.push((name, entry.next_entry_cookie()));
    }
    out
}

#[test]
fn places_in_a_directory_stay_valid_near_and_far() {
    const ENTRIES: usize = 20_000;
    let (store, uri) = memory();
    for n in 0..ENTRIES {
        store.put(&format!("d/{n:05}"), "");
    }
    let Some(rig) = Rig::new(&uri) else { return };
    let dir = File::open(rig.path("d")).unwrap();
    let all = rest(&dir, usize::MAX);
    assert_eq!(all.len(), ENTRIES + 2);
    assert_eq!((&*all[0].0, &*all[1].0), (".", ".."));
    // Far back is beyond what a cursor keeps: it lists again up to there.
    for back in [10, 5000, 19_000, ENTRIES] {
        let at = ENTRIES + 1 - back;
        rustix::fs::seek(&dir, SeekFrom::Start(all[at].1)).unwrap();
        let next = rest(&dir, 50);
        let expected: Vec<_> = all[at + 1..].iter().take(next.len()).cloned().collect();
        assert!(!next.is_empty() && next == expected, "{back} back");
    }
    // The start again shows what is there now.
    store.delete("d/00000");
    std::thread::park_timeout(crate::support::TTL * 3);
    rustix::fs::seek(&dir, SeekFrom::Start(0)).unwrap();
    let again = rest(&dir, usize::MAX);
    assert_eq!(again.len(), ENTRIES + 1);
    assert_eq!(again[2].0, "00001");
}

#[test]
fn a_directory_that_is_gone_is_an_error() {
    let (dir, uri) = local();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    let Some(rig) = Rig::new(&uri) else { return };
    assert!(names(&rig.path("d")).is_empty());
    std::fs::remove_dir(dir.path().join("d")).unwrap();
    crate::support::wait_for("the directory to be gone", || {
        std::fs::read_dir(rig.path("d")).is_err()
    });
    let error = std::fs::read_dir(rig.path("d")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
}
