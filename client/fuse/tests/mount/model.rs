//! The reference model: whatever is read, in whatever order, while others change the store,
//! is what a map from paths to bytes says it is.
//!
//! Each path is a file of the store or nothing. In strict mode:
//! - `stat`, `list`, and all that is read through a file opened now show the store as it is;
//! - a file that was opened before reads as the version that was opened, or fails, also when
//!   it was replaced or deleted since. It never shows bytes of two versions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt as _;
use millpond_client::{ClientConfig, ClientError, FileHandle};
use millpond_proto::{ErrorKind, MetadataMode};
use millpond_ufs::memory::MemoryStore;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Rig, memory, pattern};

/// Directories exist because of the files below them.
const PATHS: [&str; 6] = ["a", "b", "d/a", "d/b", "d/e/c", "g/h"];
const DIRS: [&str; 4] = ["", "d", "d/e", "g"];
/// Around the sizes at which something changes: pages, transfers, blocks.
const SIZES: [usize; 9] = [
    0,
    1,
    4095,
    4097,
    128 << 10,
    (1 << 20) - 1,
    (1 << 20) + 17,
    3 << 20,
    (4 << 20) + 4096,
];
/// Files that are held open at a time.
const SLOTS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// Behind our back.
    Put(usize, u64, usize),
    /// Behind our back.
    Delete(usize),
    Stat(usize),
    List(usize),
    ReadWhole(usize),
    Open(usize, usize),
    Close(usize),
    /// Where in the file and how much, both in parts of 65,536 of its size.
    ReadAt(usize, u16, u16),
    /// The next stretch of a file that is read from start to end.
    ReadOn(usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let (path, slot) = (0..PATHS.len(), 0..SLOTS);
    prop_oneof![
        4 => (path.clone(), any::<u64>(), 0..SIZES.len()).prop_map(|(p, s, z)| Step::Put(p, s, z)),
        1 => path.clone().prop_map(Step::Delete),
        2 => path.clone().prop_map(Step::Stat),
        2 => (0..DIRS.len()).prop_map(Step::List),
        2 => path.clone().prop_map(Step::ReadWhole),
        4 => (slot.clone(), path).prop_map(|(slot, path)| Step::Open(slot, path)),
        1 => slot.clone().prop_map(Step::Close),
        8 => (slot.clone(), any::<u16>(), any::<u16>()).prop_map(|(s, o, l)| Step::ReadAt(s, o, l)),
        6 => (slot, 1u32..600_000).prop_map(|(slot, len)| Step::ReadOn(slot, len)),
    ]
}

/// The file system under test. Paths are relative to its root; `""` is the root itself.
trait World {
    type Handle;
    /// Length of the file, if there is one.
    fn stat(&self, path: &str) -> io::Result<Option<u64>>;
    /// Names, with the length of files; none if there is no such directory.
    fn list(&self, path: &str) -> io::Result<Option<BTreeMap<String, Option<u64>>>>;
    fn open(&self, path: &str) -> io::Result<Option<Self::Handle>>;
    fn read(&self, file: &Self::Handle, offset: u64, len: usize) -> io::Result<Vec<u8>>;
}

/// Through the kernel.
struct Mounted(Arc<Rig>, String);

impl Mounted {
    fn at(&self, path: &str) -> PathBuf {
        self.0.dir().join(&self.1).join(path)
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl World for Mounted {
    type Handle = File;

    fn stat(&self, path: &str) -> io::Result<Option<u64>> {
        found(std::fs::metadata(self.at(path)).map(|found| found.len()))
    }

    fn list(&self, path: &str) -> io::Result<Option<BTreeMap<String, Option<u64>>>> {
        let Some(entries) = found(std::fs::read_dir(self.at(path)))? else {
            return Ok(None);
        };
        let mut names = BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            let attr = entry.metadata()?;
            let name = entry.file_name().into_string().unwrap();
            names.insert(name, attr.is_file().then_some(attr.len()));
        }
        Ok(Some(names))
    }

    fn open(&self, path: &str) -> io::Result<Option<File>> {
        found(File::open(self.at(path)))
    }

    fn read(&self, file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut data = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match file.read_at(&mut data[filled..], offset + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        data.truncate(filled);
        Ok(data)
    }
}

/// The client library alone.
struct Library(Arc<Rig>, String);

impl Library {
    fn at(&self, path: &str) -> String {
        let path = format!("/{}/{path}", self.1);
        path.trim_end_matches('/').to_owned()
    }
}

fn present<T>(result: Result<T, ClientError>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

impl World for Library {
    type Handle = Arc<FileHandle>;

    fn stat(&self, path: &str) -> io::Result<Option<u64>> {
        let attr = self.0.runtime.block_on(self.0.fs.stat(&self.at(path)));
        Ok(present(attr)?.map(|attr| attr.size))
    }

    fn list(&self, path: &str) -> io::Result<Option<BTreeMap<String, Option<u64>>>> {
        let pages = self.0.fs.list(&self.at(path)).try_collect::<Vec<_>>();
        let Some(pages) = present(self.0.runtime.block_on(pages))? else {
            return Ok(None);
        };
        let entry = |entry: millpond_client::DirEntry| {
            let size = entry.attr.is_file().then_some(entry.attr.size);
            (entry.name.to_string(), size)
        };
        Ok(Some(pages.into_iter().flatten().map(entry).collect()))
    }

    fn open(&self, path: &str) -> io::Result<Option<Arc<FileHandle>>> {
        present(self.0.runtime.block_on(self.0.fs.open(&self.at(path))))
    }

    fn read(&self, file: &Arc<FileHandle>, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let data = match file.try_read(offset, len as u32) {
            Some(data) => Ok(data),
            None => self.0.runtime.block_on(file.read(offset, len as u32)),
        };
        data.map(Vec::from).map_err(io::Error::other)
    }
}

/// What is held open: as of its open, and how far it was read from start to end.
struct Held<H> {
    handle: H,
    path: usize,
    content: Arc<Vec<u8>>,
    at: u64,
}

/// The store as it is, and what is held open.
struct Model<'a, W: World> {
    world: W,
    store: &'a MemoryStore,
    top: String,
    files: BTreeMap<usize, Arc<Vec<u8>>>,
    held: [Option<Held<W::Handle>>; SLOTS],
}

impl<W: World> Model<'_, W> {
    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let fail = |what: &str, error: io::Error| {
            TestCaseError::fail(format!("{what}: {error} ({error:?})"))
        };
        match *step {
            Step::Put(path, seed, size) => {
                let content = pattern(seed, SIZES[size]);
                let key = format!("{}/{}", self.top, PATHS[path]);
                self.store.put(&key, content.clone());
                self.files.insert(path, Arc::new(content));
            }
            Step::Delete(path) => {
                self.store.delete(&format!("{}/{}", self.top, PATHS[path]));
                self.files.remove(&path);
            }
            Step::Stat(path) => {
                let size = self.files.get(&path).map(|content| content.len() as u64);
                let found = self.world.stat(PATHS[path]);
                prop_assert_eq!(found.map_err(|e| fail("stat", e))?, size, "{}", PATHS[path]);
            }
            Step::List(dir) => {
                let found = self.world.list(DIRS[dir]).map_err(|e| fail("list", e))?;
                let expected = self.listing(DIRS[dir]);
                // The directory of a whole case may be there or not while it is empty.
                let found = found.filter(|names| !names.is_empty());
                prop_assert_eq!(found, expected, "{:?}", DIRS[dir]);
            }
            Step::ReadWhole(path) => {
                let file = self.world.open(PATHS[path]).map_err(|e| fail("open", e))?;
                let expected = self.files.get(&path);
                prop_assert_eq!(file.is_some(), expected.is_some(), "{}", PATHS[path]);
                if let (Some(file), Some(expected)) = (file, expected) {
                    let read = self.world.read(&file, 0, expected.len() + 1);
                    let data = read.map_err(|e| fail("read", e))?;
                    prop_assert!(data == **expected, "{} differs", PATHS[path]);
                }
            }
            Step::Open(slot, path) => {
                let file = self.world.open(PATHS[path]).map_err(|e| fail("open", e))?;
                let expected = self.files.get(&path);
                prop_assert_eq!(file.is_some(), expected.is_some(), "{}", PATHS[path]);
                self.held[slot] = file.zip(expected).map(|(handle, content)| Held {
                    handle,
                    path,
                    content: Arc::clone(content),
                    at: 0,
                });
            }
            Step::Close(slot) => self.held[slot] = None,
            Step::ReadAt(slot, offset, len) => {
                if let Some(held) = &self.held[slot] {
                    let size = held.content.len() as u64;
                    let offset = (size * u64::from(offset)) >> 16;
                    let len = ((size * u64::from(len)) >> 16).clamp(1, 2 << 20);
                    self.read(slot, offset, len as usize)?;
                }
            }
            Step::ReadOn(slot, len) => {
                if let Some(at) = self.held[slot].as_ref().map(|held| held.at) {
                    self.read(slot, at, len as usize)?;
                    if let Some(held) = &mut self.held[slot] {
                        held.at = (at + u64::from(len)).min(held.content.len() as u64);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads of a held file, which may fail only once its version is no more.
    fn read(&self, slot: usize, offset: u64, len: usize) -> Result<(), TestCaseError> {
        let Some(held) = &self.held[slot] else {
            return Ok(());
        };
        let content = &held.content;
        let end = (offset as usize + len).min(content.len());
        let expected = &content[(offset as usize).min(end)..end];
        let current = self.files.get(&held.path);
        let is_current = current.is_some_and(|now| Arc::ptr_eq(now, content));
        match self.world.read(&held.handle, offset, len) {
            Ok(data) => {
                let path = PATHS[held.path];
                prop_assert!(data == expected, "{path} differs at {offset}, {len} bytes");
            }
            Err(error) => prop_assert!(!is_current, "{}: {error:?}", PATHS[held.path]),
        }
        Ok(())
    }

    fn listing(&self, dir: &str) -> Option<BTreeMap<String, Option<u64>>> {
        let prefix = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        let mut names = BTreeMap::new();
        for (path, content) in &self.files {
            let Some(rest) = PATHS[*path].strip_prefix(&prefix) else {
                continue;
            };
            let (name, size) = match rest.split_once('/') {
                Some((name, _)) => (name, None),
                None => (rest, Some(content.len() as u64)),
            };
            names.insert(name.to_owned(), size);
        }
        (!names.is_empty()).then_some(names)
    }
}

/// Runs many random sequences, each below a directory of its own.
fn check<W: World>(
    cases: u32,
    client: ClientConfig,
    kernel_opens: bool,
    world: fn(Arc<Rig>, String) -> W,
) {
    let (store, uri) = memory();
    let strict = |config: &mut ClientConfig| {
        *config = ClientConfig {
            metadata_mode: MetadataMode::Strict,
            ..client
        };
    };
    let rig = Rig::with_client(&uri, BTreeMap::new(), strict, |options| {
        options.kernel_opens = kernel_opens;
    });
    let Some(rig) = rig.map(Arc::new) else {
        return;
    };
    let number = AtomicUsize::new(0);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let steps = proptest::collection::vec(step(), 1..60);
    let outcome = runner.run(&steps, |steps| {
        let top = format!("case-{}", number.fetch_add(1, Ordering::Relaxed));
        let mut model = Model {
            world: world(Arc::clone(&rig), top.clone()),
            store: &store,
            top,
            files: BTreeMap::new(),
            held: std::array::from_fn(|_| None),
        };
        for (number, step) in steps.iter().enumerate() {
            let taken = model.take(step);
            taken.map_err(|error| {
                TestCaseError::fail(format!("step {number}, {step:?}: {error}"))
            })?;
        }
        Ok(())
    });
    store.clear();
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// So little that most of what is read is evicted before long.
fn little() -> ClientConfig {
    ClientConfig {
        memory: ClientConfig::MIN_MEMORY,
        ..ClientConfig::default()
    }
}

#[test]
fn the_library_reads_what_the_model_says() {
    check(48, little(), false, Library);
}

#[test]
fn the_library_reads_what_the_model_says_with_a_disk_tier() {
    let dir = tempfile::tempdir().unwrap();
    let client = ClientConfig {
        memory: 32 << 20,
        disk: Some((dir.path().join("tier"), 32 << 20)),
        ..ClientConfig::default()
    };
    check(32, client, false, Library);
}

#[test]
fn a_mount_reads_what_the_model_says() {
    check(32, little(), false, Mounted);
}

#[test]
fn a_mount_whose_files_the_kernel_opens_reads_what_the_model_says() {
    check(32, little(), true, Mounted);
}

#[test]
fn a_mount_with_a_disk_tier_reads_what_the_model_says() {
    let dir = tempfile::tempdir().unwrap();
    let client = ClientConfig {
        memory: 32 << 20,
        disk: Some((dir.path().join("tier"), 32 << 20)),
        ..ClientConfig::default()
    };
    check(32, client, false, Mounted);
}
