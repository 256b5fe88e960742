//! Directories, also huge ones, also while they change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::{DirEntryExt, MetadataExt};

use millpond_s3_fixture::S3Fixture;
use rustix::fs::{RawDir, SeekFrom};

use crate::support::{Rig, local, memory, wait_for};

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

/// Asks the store for as many pages as somebody looks at, and holds few of them.
#[test]
#[ignore = "a million objects take a minute and 1 GiB: cargo test -p millpond-fuse million -- --ignored"]
fn a_million_entries_stream_from_one_request_on() {
    const ENTRIES: usize = 1_000_000;
    const PAGE: u64 = 1000;
    let fixture_runtime = tokio::runtime::Runtime::new().unwrap();
    let s3 = fixture_runtime.block_on(S3Fixture::start());
    s3.create_bucket("data");
    for n in 0..ENTRIES {
        s3.put("data", &format!("d/{n:07}"), "x");
    }
    let Some(rig) = Rig::with("s3://data", s3.options(), |_| {}) else {
        return;
    };
    let dir = rig.path("d");
    let lists_of = |work: &dyn Fn()| {
        assert!(std::fs::metadata(&dir).unwrap().is_dir());
        s3.reset_counters();
        work();
        let counters = s3.counters();
        assert_eq!((counters.heads, counters.gets), (0, 0));
        counters.lists
    };
    let first = lists_of(&|| {
        let first = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap();
        assert_eq!(first.file_name(), "0000000");
    });
    assert_eq!(first, 1, "before the first entry");
    // As far as a full pipe and the buffers at its ends: 8 bytes to a name.
    let head = lists_of(&|| {
        let line = "ls -f \"$0\" | head";
        let shell = std::process::Command::new("sh")
            .args(["-c", line])
            .arg(&dir)
            .output()
            .unwrap();
        assert_eq!(shell.stdout.split(|byte| *byte == b'\n').count(), 11);
    });
    assert!(head <= 16, "{head} requests for ten names");

    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    };
    let before = resident();
    let all = lists_of(&|| {
        let mut next = 0;
        let mut most = 0;
        for entry in std::fs::read_dir(&dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert_eq!(name, format!("{next:07}"));
            next += 1;
            if next % 10_000 == 0 {
                most = most.max(resident());
            }
        }
        assert_eq!(next, ENTRIES);
        let more = most.saturating_sub(before) >> 20;
        assert!(more < 128, "{more} MiB more than before");
    });
    assert!(all <= ENTRIES as u64 / PAGE + 1, "{all} requests");
    // The kernel was not made to know what nobody looked at.
    let inodes = rig.mounted().stats().inodes;
    assert!(inodes < ENTRIES / 10, "{inodes} inodes");
    drop(rig);
    fixture_runtime.block_on(s3.shutdown());
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
    wait_for("the directory to be gone", || {
        std::fs::read_dir(rig.path("d")).is_err()
    });
    let error = std::fs::read_dir(rig.path("d")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
}

/// A listing cannot tell the version of a file that changed a moment ago. It shows it all the
/// same, with a number as any other: `readdir` of C libraries passes over entries without one.
#[test]
fn a_file_that_changed_a_moment_ago_is_listed() {
    const ROUNDS: usize = 40;
    for kernel_opens in [false, true] {
        let (store, uri) = local();
        std::fs::create_dir(store.path().join("d")).unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(store.path().join("d").join(name), "0").unwrap();
        }
        let Some(rig) = Rig::with(&uri, BTreeMap::new(), |options| {
            options.kernel_opens = kernel_opens;
        }) else {
            return;
        };
        let (changing, shown) = (store.path().join("d/b"), rig.path("d"));
        for round in 1..=ROUNDS {
            // Past what the client believes of the directory.
            std::thread::park_timeout(crate::support::TTL + crate::support::TTL / 2);
            let aside = store.path().join("aside");
            std::fs::write(&aside, "x".repeat(round + 1)).unwrap();
            std::fs::rename(&aside, &changing).unwrap();
            let dir = File::open(&shown).unwrap();
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut raw = RawDir::new(&dir, &mut buffer);
            while let Some(entry) = raw.next() {
                let entry = entry.unwrap();
                assert_ne!(entry.ino(), 0, "{:?}", entry.file_name());
            }
            assert_eq!(names(&shown), ["a", "b", "c"]);
        }
        // What it was listed with is not what is believed.
        let content = "x".repeat(ROUNDS + 1);
        wait_for("the last version", || {
            std::fs::read_to_string(shown.join("b")).is_ok_and(|seen| seen == content)
        });
        let len = std::fs::metadata(shown.join("b")).unwrap().len();
        assert_eq!(len, content.len() as u64);
    }
}

/// Everything below `dir`, as `ls -lR` looks at it: each name and the attributes of each.
fn long_list(dir: &std::path::Path) -> usize {
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = std::fs::symlink_metadata(entry.path()).unwrap();
        seen += 1;
        if metadata.is_dir() {
            seen += long_list(&entry.path());
        } else {
            assert_eq!(metadata.len(), 3);
        }
    }
    seen
}

/// A cold `ls -lR` costs one list request per directory of up to 1,000 names and no other; the
/// second none; and from the third on the kernel has it all.
#[test]
fn listing_a_tree_costs_one_request_a_directory_and_then_none() {
    const DIRS: usize = 20;
    const FILES: usize = 100;
    let fixture_runtime = tokio::runtime::Runtime::new().unwrap();
    let s3 = fixture_runtime.block_on(S3Fixture::start());
    s3.create_bucket("data");
    for dir in 0..DIRS {
        for file in 0..FILES {
            s3.put("data", &format!("d{dir:02}/f{file:03}"), "abc");
        }
    }
    for kernel_opens in [false, true] {
        let mut options = s3.options();
        options.insert("metadata_ttl".to_owned(), "1h".to_owned());
        let adjust = |options: &mut millpond_fuse::MountOptions| {
            options.kernel_opens = kernel_opens;
        };
        let Some(rig) = Rig::with("s3://data", options, adjust) else {
            return;
        };
        assert!(std::fs::metadata(rig.dir()).unwrap().is_dir());
        s3.reset_counters();
        let all = DIRS * (FILES + 1);
        assert_eq!(long_list(rig.dir()), all);
        let cold = s3.counters();
        assert_eq!((cold.lists, cold.heads, cold.gets), (DIRS as u64 + 1, 0, 0));
        // This one fills the kernel's cache.
        assert_eq!(long_list(rig.dir()), all);
        let before = rig.mounted().stats().requests;
        for _ in 0..3 {
            assert_eq!(long_list(rig.dir()), all);
        }
        // What is left is the opening of the directories.
        let asked = rig.mounted().stats().requests - before;
        assert!(asked <= 3 * (DIRS as u64 + 1), "{asked} requests");
        assert_eq!(s3.counters().requests, cold.requests);
    }
    fixture_runtime.block_on(s3.shutdown());
}

/// Believed for a second longer than a listing must be for the kernel to keep it.
#[test]
fn a_listing_that_the_kernel_kept_goes_when_it_is_over() {
    let (store, uri) = memory();
    for name in ["a", "b", "c"] {
        store.put(&format!("d/{name}"), "1");
    }
    let options = BTreeMap::from([("metadata_ttl".to_owned(), "11s".to_owned())]);
    let Some(rig) = Rig::with(&uri, options, |_| {}) else {
        return;
    };
    let dir = rig.path("d");
    for _ in 0..3 {
        assert_eq!(names(&dir), ["a", "b", "c"]);
    }
    let reader = File::open(&dir).unwrap();
    assert_eq!(rest(&reader, usize::MAX).len(), 5);
    store.put("d/bb", "2");
    store.delete("d/c");
    assert_eq!(names(&dir), ["a", "b", "c"]);
    let new = ["a", "b", "bb"];
    wait_for("the new listing", || names(&dir) == new);
    assert_eq!(names(&dir), new);
    // So does what a handle reads that was open all the time.
    rustix::fs::seek(&reader, SeekFrom::Start(0)).unwrap();
    let again = rest(&reader, usize::MAX);
    assert!(
        again[2..].iter().map(|(name, _)| &**name).eq(new),
        "{again:?}"
    );
}
