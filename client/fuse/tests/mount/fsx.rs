//! `fsx` in read mode: one file, a long random walk of every way to read it, each compared with
//! what was put there. The kernel's pages are dropped in part as it goes, and the memory tier
//! is smaller than the file, so bytes come from wherever they can come from.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use millpond_fuse::MountOptions;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::Advice;

use crate::reading::map::Map;
use crate::support::{Rig, memory, pattern};

/// Not a whole number of blocks, of pages or of sectors.
const SIZE: usize = (9 << 20) + 4321;

/// What a disk wants of reads with `O_DIRECT`.
const ALIGNED: usize = 4096;

/// Places and lengths are in parts of 65,536: of the file, and of the longest read.
#[derive(Debug, Clone)]
enum Op {
    Read(u16, u16),
    /// From where the last such read ended.
    ReadOn(u16),
    Seek(u16),
    Direct(u16, u16),
    Mapped(u16, u16),
    MapAgain {
        shared: bool,
    },
    /// Within the kernel, to another file.
    Copy(u16, u16),
    /// The kernel drops its pages of a part.
    Drop(u16, u16),
    Advise(u8),
    Reopen,
    Size,
    PastTheEnd(u16),
}

/// The longest read: more than one request of the kernel's.
const LONGEST: usize = 3 << 20;

fn op() -> impl Strategy<Value = Op> {
    let (at, len) = (any::<u16>(), any::<u16>());
    prop_oneof![
        8 => (at, len).prop_map(|(at, len)| Op::Read(at, len)),
        6 => len.prop_map(Op::ReadOn),
        1 => at.prop_map(Op::Seek),
        4 => (at, len).prop_map(|(at, len)| Op::Direct(at, len)),
        6 => (at, len).prop_map(|(at, len)| Op::Mapped(at, len)),
        1 => any::<bool>().prop_map(|shared| Op::MapAgain { shared }),
        2 => (at, len).prop_map(|(at, len)| Op::Copy(at, len)),
        4 => (at, len).prop_map(|(at, len)| Op::Drop(at, len)),
        1 => any::<u8>().prop_map(Op::Advise),
        2 => Just(Op::Reopen),
        1 => Just(Op::Size),
        1 => at.prop_map(Op::PastTheEnd),
    ]
}

/// The file as it is open in all ways.
struct Walk<'a> {
    path: PathBuf,
    content: &'a [u8],
    scratch: &'a Path,
    file: File,
    direct: File,
    map: Map,
    /// Where `file` stands.
    at: usize,
}

impl<'a> Walk<'a> {
    fn begin(path: PathBuf, content: &'a [u8], scratch: &'a Path) -> Self {
        let file = File::open(&path).unwrap();
        let direct = open_direct(&path);
        Self {
            map: Map::of(&file, content.len(), true),
            path,
            content,
            scratch,
            file,
            direct,
            at: 0,
        }
    }

    fn step(&mut self, op: &Op) {
        let content = self.content;
        let place = |at: u16| (content.len() * usize::from(at)) >> 16;
        // Short ones are as likely as long ones.
        let length = |len: u16| LONGEST >> (len % 16) | usize::from(len);
        let range = |at, len| place(at)..content.len().min(place(at) + length(len));
        match *op {
            Op::Read(at, len) => {
                let range = range(at, len);
                let mut got = vec![0; range.len()];
                self.file
                    .read_exact_at(&mut got, range.start as u64)
                    .unwrap();
                assert!(got == content[range], "wrong bytes");
            }
            Op::ReadOn(len) => {
                let end = content.len().min(self.at + length(len));
                let mut got = vec![0; end - self.at];
                self.file.read_exact(&mut got).unwrap();
                assert!(got == content[self.at..end], "wrong bytes");
                self.at = end;
            }
            Op::Seek(at) => {
                self.at = place(at);
                self.file.seek(SeekFrom::Start(self.at as u64)).unwrap();
            }
            Op::Direct(at, len) => {
                let start = place(at) / ALIGNED * ALIGNED;
                let len = length(len).next_multiple_of(ALIGNED);
                let mut buffer = vec![0; len + ALIGNED];
                let head = buffer.as_ptr().align_offset(ALIGNED);
                let got = &mut buffer[head..head + len];
                let read = self.direct.read_at(got, start as u64).unwrap();
                let end = content.len().min(start + len);
                assert_eq!(read, end - start, "a short read");
                assert!(got[..read] == content[start..end], "wrong bytes");
            }
            Op::Mapped(at, len) => {
                let range = range(at, len);
                assert!(
                    self.map.bytes()[range.clone()] == content[range],
                    "wrong bytes"
                );
            }
            Op::MapAgain { shared } => self.map = Map::of(&self.file, content.len(), shared),
            Op::Copy(at, len) => {
                let range = range(at, len);
                let mut from = File::open(&self.path).unwrap();
                from.seek(SeekFrom::Start(range.start as u64)).unwrap();
                let mut to = File::create(self.scratch).unwrap();
                std::io::copy(&mut from.take(range.len() as u64), &mut to).unwrap();
                assert!(
                    std::fs::read(self.scratch).unwrap() == content[range],
                    "wrong bytes"
                );
            }
            Op::Drop(at, len) => {
                let range = range(at, len);
                let len = NonZeroU64::new(range.len() as u64);
                rustix::fs::fadvise(&self.file, range.start as u64, len, Advice::DontNeed).unwrap();
            }
            Op::Advise(kind) => {
                let kinds = [
                    Advice::Normal,
                    Advice::Sequential,
                    Advice::Random,
                    Advice::WillNeed,
                ];
                let advice = kinds[usize::from(kind) % kinds.len()];
                rustix::fs::fadvise(&self.file, 0, None, advice).unwrap();
            }
            Op::Reopen => {
                self.file = File::open(&self.path).unwrap();
                self.direct = open_direct(&self.path);
                self.at = 0;
            }
            Op::Size => assert_eq!(self.file.metadata().unwrap().len(), content.len() as u64),
            Op::PastTheEnd(beyond) => {
                let end = content.len() as u64;
                let at = end + u64::from(beyond);
                assert_eq!(self.file.read_at(&mut [0; 100], at).unwrap(), 0);
                let mut tail = [0; 100];
                assert_eq!(self.file.read_at(&mut tail, end - 10).unwrap(), 10);
                assert_eq!(tail[..10], content[content.len() - 10..]);
            }
        }
    }
}

fn open_direct(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT);
    options.open(path).unwrap()
}

/// Walks through files of a mount that is made so; each walk has a file that nobody read yet,
/// and goes through it twice.
fn walks(cache: Option<&Path>, adjust: impl FnOnce(&mut MountOptions)) {
    let (store, uri) = memory();
    let disk = cache.map(|dir| (dir.to_owned(), 256 << 20));
    let Some(rig) = Rig::with_client(
        &uri,
        std::collections::BTreeMap::new(),
        |client| {
            client.memory = 8 << 20;
            client.disk = disk;
        },
        adjust,
    ) else {
        return;
    };
    let scratch = tempfile::NamedTempFile::new().unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 6,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..Config::default()
    });
    let made = std::cell::Cell::new(0);
    let ops = proptest::collection::vec(op(), 150..250);
    let walked = runner.run(&ops, |ops| {
        made.set(made.get() + 1);
        let name = format!("walk-{}", made.get());
        let content = pattern(made.get(), SIZE);
        store.put(&name, content.clone());
        for _ in 0..2 {
            let mut walk = Walk::begin(rig.path(&name), &content, scratch.path());
            for op in &ops {
                walk.step(op);
            }
        }
        store.delete(&name);
        Ok(())
    });
    walked.unwrap();
}

#[test]
fn every_way_of_reading_gives_what_was_put() {
    walks(None, |_| {});
}

#[test]
fn also_where_the_kernel_opens_files() {
    walks(None, |options| options.kernel_opens = true);
}

#[test]
fn also_from_a_local_disk_tier() {
    let cache = tempfile::tempdir().unwrap();
    walks(Some(cache.path()), |_| {});
}

#[test]
fn also_from_a_local_disk_tier_without_passthrough() {
    let cache = tempfile::tempdir().unwrap();
    walks(Some(cache.path()), |options| options.passthrough = false);
}
