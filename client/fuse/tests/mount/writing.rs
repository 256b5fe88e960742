//! Files that are written through a mount: what their writers and readers see at once, and what
//! the store has when they are closed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use millpond_fuse::MountOptions;
use millpond_s3_fixture::S3Fixture;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::reading::map::Map;
use crate::support::{Rig, errno, memory, pattern};

/// More than one part of an upload.
const LARGE: usize = (20 << 20) + 4321;

#[test]
fn a_file_is_in_the_store_when_it_is_closed() {
    let (store, uri) = memory();
    let Some(rig) = Rig::writable(&uri) else {
        return;
    };
    for (name, len) in [("empty", 0), ("small", 10_000), ("large", LARGE)] {
        let content = pattern(1, len);
        let mut file = File::create_new(rig.path(name)).unwrap();
        file.write_all(&content).unwrap();
        assert_eq!(file.metadata().unwrap().len(), len as u64);
        assert_eq!(rig.path(name).metadata().unwrap().len(), len as u64);
        assert!(
            std::fs::read(rig.path(name)).unwrap() == content,
            "{name}, open"
        );
        // Not that the store has nothing before: threads of other tests' mounts, in this process,
        // close copies of all its descriptors.
        drop(file);
        assert!(store.get(name).unwrap() == content, "{name}, in the store");
        assert!(
            std::fs::read(rig.path(name)).unwrap() == content,
            "{name}, closed"
        );
    }
    let names = |path: PathBuf| {
        let entries = std::fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let open = File::create_new(rig.path("new")).unwrap();
    assert_eq!(
        names(rig.dir().to_owned()),
        ["empty", "large", "new", "small"]
    );
    assert_eq!(errno(File::create_new(rig.path("new"))), libc::EEXIST);
    drop(open);
    assert_eq!(errno(File::create_new(rig.path("small"))), libc::EEXIST);
}

#[test]
fn all_handles_see_what_is_written_through_one() {
    let (store, uri) = memory();
    store.put("f", pattern(1, 3 << 20));
    let Some(rig) = Rig::writable(&uri) else {
        return;
    };
    let path = rig.path("f");
    let before = File::open(&path).unwrap();
    let mapped = Map::of(&before, 3 << 20, true);
    let mut expected = pattern(1, 3 << 20);
    assert!(mapped.bytes() == expected);

    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    let put = |at: usize, bytes: &[u8], expected: &mut Vec<u8>| {
        writer.write_all_at(bytes, at as u64).unwrap();
        expected.resize(expected.len().max(at + bytes.len()), 0);
        expected[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let read = |file: &File, len: usize| {
        let mut got = vec![0; len];
        file.read_exact_at(&mut got, 0).unwrap();
        got
    };
    put(5000, b"hello", &mut expected);
    put((3 << 20) + 10, &pattern(2, 100_000), &mut expected);
    assert!(
        read(&before, expected.len()) == expected,
        "a handle from before"
    );
    assert!(
        mapped.bytes() == &expected[..3 << 20],
        "a mapping from before"
    );
    let after = File::open(&path).unwrap();
    assert!(
        read(&after, expected.len()) == expected,
        "a handle from after"
    );
    assert!(store.get("f").unwrap() == pattern(1, 3 << 20), "the store");
    writer.sync_all().unwrap();
    assert!(
        store.get("f").unwrap() == expected,
        "the store, after fsync"
    );

    put(0, b"again", &mut expected);
    assert!(read(&before, expected.len()) == expected, "after fsync");
    drop(writer);
    assert!(store.get("f").unwrap() == expected, "the store, closed");
    assert!(read(&before, expected.len()) == expected, "closed");
    assert!(std::fs::read(&path).unwrap() == expected, "opened again");

    // What was opened before keeps what it has when another client replaces the file.
    store.put("f", "other");
    crate::support::wait_for("the other version", || {
        std::fs::read(&path).unwrap() == b"other"
    });
    let mut appended = OpenOptions::new().append(true).open(&path).unwrap();
    appended.write_all(b" and more").unwrap();
    drop(appended);
    assert_eq!(store.get("f").unwrap(), "other and more");
    let emptied = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    assert_eq!(path.metadata().unwrap().len(), 0);
    drop(emptied);
    assert_eq!(store.get("f").unwrap(), "");
}

/// Places and lengths are in parts of 65,536. Nothing is written through a mapping here: the kernel
/// then waits for the mount while it holds the memory of this process, which is the mount's too.
#[derive(Debug, Clone)]
enum Op {
    Write(u16, u16, bool),
    Truncate(u16),
    Punch(u16, u16),
    Read(u16, u16, bool),
    ReadMapped,
    Sync,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let (at, len) = (any::<u16>(), any::<u16>());
    prop_oneof![
        8 => (at, len, any::<bool>()).prop_map(|(at, len, by)| Op::Write(at, len, by)),
        2 => at.prop_map(Op::Truncate),
        1 => (at, len).prop_map(|(at, len)| Op::Punch(at, len)),
        6 => (at, len, any::<bool>()).prop_map(|(at, len, by)| Op::Read(at, len, by)),
        2 => Just(Op::ReadMapped),
        1 => Just(Op::Sync),
        1 => Just(Op::Reopen),
    ]
}

/// The longest that a walk makes its file: beyond what stays in memory, and beyond what is
/// copied up as a whole.
const LONGEST: usize = 9 << 20;

/// One file and two handles on it.
struct Walk {
    path: PathBuf,
    files: [File; 2],
    content: Vec<u8>,
    seed: u64,
}

impl Walk {
    fn open(path: PathBuf, content: Vec<u8>) -> Self {
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap()
        };
        Self {
            files: [open(), open()],
            path,
            content,
            seed: 0,
        }
    }

    fn step(&mut self, op: &Op) {
        let place = |at: u16| (LONGEST * usize::from(at)) >> 16;
        let length = |len: u16| (LONGEST / 4) >> (len % 16) | usize::from(len % 999);
        let range = |at, len| place(at)..LONGEST.min(place(at) + length(len));
        match *op {
            Op::Write(at, len, by) => {
                let range = range(at, len);
                self.seed += 1;
                let data = pattern(self.seed, range.len());
                let file = &self.files[usize::from(by)];
                file.write_all_at(&data, range.start as u64).unwrap();
                if !data.is_empty() {
                    let len = self.content.len().max(range.end);
                    self.content.resize(len, 0);
                    self.content[range].copy_from_slice(&data);
                }
            }
            Op::Truncate(at) => {
                self.files[0].set_len(place(at) as u64).unwrap();
                self.content.resize(place(at), 0);
            }
            Op::Punch(at, len) => {
                use rustix::fs::{FallocateFlags, fallocate};
                let range = range(at, len);
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                if range.is_empty() {
                    return;
                }
                fallocate(
                    &self.files[1],
                    flags,
                    range.start as u64,
                    range.len() as u64,
                )
                .unwrap();
                let end = range.end.min(self.content.len());
                self.content[range.start.min(end)..end].fill(0);
            }
            Op::Read(at, len, by) => {
                let all = range(at, len);
                let range = all.start.min(self.content.len())..all.end.min(self.content.len());
                let mut got = vec![0; all.len()];
                let mut read = 0;
                while read < got.len() {
                    let file = &self.files[usize::from(by)];
                    match file
                        .read_at(&mut got[read..], (all.start + read) as u64)
                        .unwrap()
                    {
                        0 => break,
                        more => read += more,
                    }
                }
                assert_eq!(read, range.len(), "bytes read at {}", all.start);
                assert!(got[..read] == self.content[range], "wrong bytes");
            }
            Op::ReadMapped => {
                if !self.content.is_empty() {
                    let map = Map::of(&self.files[1], self.content.len(), true);
                    assert!(map.bytes() == self.content, "wrong bytes");
                }
            }
            Op::Sync => self.files[0].sync_data().unwrap(),
            Op::Reopen => {
                let content = std::mem::take(&mut self.content);
                let path = self.path.clone();
                let seed = self.seed;
                *self = Self {
                    seed,
                    ..Self::open(path, content)
                };
            }
        }
        assert_eq!(
            self.files[1].metadata().unwrap().len(),
            self.content.len() as u64
        );
    }
}

#[test]
fn a_walk_of_writes_is_what_a_local_file_would_be() {
    let (store, uri) = memory();
    let Some(rig) = Rig::writable(&uri) else {
        return;
    };
    let mut runner = TestRunner::new(Config {
        cases: 6,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..Config::default()
    });
    let made = std::cell::Cell::new(0);
    let first = prop_oneof![
        Just(0),
        Just(5000),
        Just((2 << 20) + 17),
        Just((9 << 20) - 5)
    ];
    let walks = (first, proptest::collection::vec(op(), 20..60));
    let walked = runner.run(&walks, |(first, ops)| {
        made.set(made.get() + 1);
        let name = format!("walk-{}", made.get());
        let content = pattern(made.get(), first);
        store.put(&name, content.clone());
        let mut walk = Walk::open(rig.path(&name), content);
        for op in &ops {
            walk.step(op);
        }
        let Walk { files, content, .. } = walk;
        drop(files);
        prop_assert!(
            store.get(&name).unwrap() == content,
            "the store has other bytes"
        );
        store.delete(&name);
        Ok(())
    });
    walked.unwrap();
}

#[test]
fn an_s3_store_gets_whole_objects() {
    let fixture_runtime = tokio::runtime::Runtime::new().unwrap();
    let s3 = fixture_runtime.block_on(S3Fixture::start());
    s3.create_bucket("data");
    let writable = |options: &mut MountOptions| options.read_only = false;
    let Some(rig) = Rig::with("s3://data", s3.options(), writable) else {
        return;
    };
    let stored = |key: &str| {
        let object = s3.object("data", key).unwrap();
        let len = usize::try_from(object.content.len()).unwrap();
        object.content.read(0, len).to_vec()
    };
    std::fs::write(rig.path("small"), b"a few bytes").unwrap();
    assert_eq!(stored("small"), b"a few bytes");
    assert!(!s3.object("data", "small").unwrap().etag.contains('-'));

    let mut expected = pattern(1, LARGE);
    std::fs::write(rig.path("large"), &expected).unwrap();
    assert!(stored("large") == expected);
    let parts = s3.object("data", "large").unwrap().etag.clone();
    assert!(parts.contains('-'), "in parts: {parts}");

    // In the middle of it: the rest is copied in the store.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(rig.path("large"))
        .unwrap();
    file.write_all_at(b"changed", 10 << 20).unwrap();
    expected[10 << 20..(10 << 20) + 7].copy_from_slice(b"changed");
    drop(file);
    assert!(stored("large") == expected);
    assert!(std::fs::read(rig.path("large")).unwrap() == expected);
    assert_eq!(s3.backend().open_uploads("data").unwrap(), 0);

    let mut walk = {
        let content = pattern(3, 5000);
        std::fs::write(rig.path("walk"), &content).unwrap();
        Walk::open(rig.path("walk"), content)
    };
    for op in [
        Op::Write(60_000, 5000, false),
        Op::Read(0, 60_000, true),
        Op::Truncate(30_000),
        Op::Sync,
        Op::Write(20_000, 3, true),
        Op::ReadMapped,
        Op::Reopen,
        Op::Punch(10, 16),
        Op::Read(0, 65_000, false),
    ] {
        walk.step(&op);
    }
    let Walk { files, content, .. } = walk;
    drop(files);
    assert!(stored("walk") == content);
}
