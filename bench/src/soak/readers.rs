//! Readers that do all that users do, at random, and compare every byte.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::lake::{self, CHANGING, Kind, LARGE, Lake, SMALL};

/// What readers did.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) ops: u64,
    pub(super) bytes: u64,
    pub(super) mismatches: u64,
    pub(super) errors: u64,
    /// Reads of a replaced file that said so.
    pub(super) stale: u64,
    pub(super) first: Option<String>,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.ops += other.ops;
        self.bytes += other.bytes;
        self.mismatches += other.mismatches;
        self.errors += other.errors;
        self.stale += other.stale;
        self.first = self.first.take().or(other.first);
    }

    fn fail(&mut self, path: &Path, error: &io::Error) {
        self.errors += 1;
        let text = || format!("{error} ({})", path.display());
        self.first.get_or_insert_with(text);
    }

    fn differ(&mut self, path: &Path, wrong: u64) {
        if wrong > 0 {
            self.mismatches += wrong;
            let text = || format!("{wrong} wrong words ({})", path.display());
            self.first.get_or_insert_with(text);
        }
    }

    fn differ_in_listing(&mut self, path: &Path, differences: &[String]) {
        if !differences.is_empty() {
            self.mismatches += differences.len() as u64;
            let text = || format!("{} ({})", differences.join(", "), path.display());
            self.first.get_or_insert_with(text);
        }
    }
}

/// Reads below `root` until told to stop.
pub(super) fn read(root: &Path, lake: &Lake, seed: u64, stop: &AtomicBool) -> Tally {
    let mut reader = Reader {
        root,
        lake,
        random: StdRng::seed_from_u64(seed),
        buffer: vec![0; 1 << 20],
        tally: Tally::default(),
    };
    while !stop.load(Ordering::Relaxed) {
        reader.tally.ops += 1;
        match reader.random.random_range(0..100) {
            0..15 => reader.sequential(stop),
            15..45 => reader.random_pieces(),
            45..75 => reader.small(),
            75..90 => reader.changing(),
            _ => reader.list(),
        }
    }
    reader.tally
}

struct Reader<'a> {
    root: &'a Path,
    lake: &'a Lake,
    random: StdRng,
    buffer: Vec<u8>,
    tally: Tally,
}

impl Reader<'_> {
    /// One large file from start to end.
    fn sequential(&mut self, stop: &AtomicBool) {
        let (path, number) = self.pick(LARGE);
        let Some(mut file) = self.open(&path) else {
            return;
        };
        let mut at = 0;
        while !stop.load(Ordering::Relaxed) {
            match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(len) => {
                    self.compare(LARGE, &path, number, at, len);
                    at += len as u64;
                }
                Err(error) => return self.tally.fail(&path, &error),
            }
        }
        let whole = at == LARGE.size || stop.load(Ordering::Relaxed);
        self.tally.differ(&path, u64::from(!whole));
    }

    /// Some pieces of one large file.
    fn random_pieces(&mut self) {
        let (path, number) = self.pick(LARGE);
        let Some(file) = self.open(&path) else {
            return;
        };
        for _ in 0..self.random.random_range(1..20) {
            let len = 1 << self.random.random_range(12..18);
            let at = self.random.random_range(0..LARGE.size - len as u64);
            match file.read_exact_at(&mut self.buffer[..len], at) {
                Ok(()) => self.compare(LARGE, &path, number, at, len),
                Err(error) => return self.tally.fail(&path, &error),
            }
        }
    }

    fn small(&mut self) {
        let (path, number) = self.pick(SMALL);
        let Some(mut file) = self.open(&path) else {
            return;
        };
        let mut found = Vec::new();
        match file.read_to_end(&mut found) {
            Ok(len) => {
                let wrong = lake::mismatches(SMALL, number, 0, 0, &found);
                let short = u64::from(len as u64 != SMALL.size);
                self.tally.bytes += len as u64;
                self.tally.differ(&path, wrong + short);
            }
            Err(error) => self.tally.fail(&path, &error),
        }
    }

    /// A whole file that others replace: of one version, whichever, or an error that says so.
    fn changing(&mut self) {
        let (path, number) = self.pick(CHANGING);
        let Some(mut file) = self.open(&path) else {
            return;
        };
        let mut found = Vec::new();
        match file.read_to_end(&mut found) {
            Ok(len) => {
                let latest = self.lake.version(number);
                let version = lake::version_of(CHANGING, number, &found, 0..=latest);
                let wrong = version.map_or(1, |version| {
                    lake::mismatches(CHANGING, number, version, 0, &found)
                });
                let short = u64::from(len as u64 != CHANGING.size);
                self.tally.bytes += len as u64;
                self.tally.differ(&path, wrong + short);
            }
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => self.tally.stale += 1,
            Err(error) => self.tally.fail(&path, &error),
        }
    }

    /// A directory with the attributes of all that is in it.
    fn list(&mut self) {
        let kinds = [LARGE, SMALL, CHANGING];
        let kind = kinds[self.random.random_range(0..kinds.len())];
        let path = self.root.join(kind.dir);
        let listed = || -> io::Result<Vec<(String, u64)>> {
            let entries = fs::read_dir(&path)?;
            let described = entries.map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok((name, entry.metadata()?.len()))
            });
            described.collect()
        };
        match listed() {
            Ok(found) => self
                .tally
                .differ_in_listing(&path, &lake::differences(kind, &found)),
            Err(error) => self.tally.fail(&path, &error),
        }
    }

    fn pick(&mut self, kind: Kind) -> (std::path::PathBuf, u64) {
        let number = self.random.random_range(0..kind.count);
        let path = self.root.join(kind.dir).join(lake::name(number));
        (path, number)
    }

    fn open(&mut self, path: &Path) -> Option<File> {
        match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {
                self.tally.stale += 1;
                None
            }
            Err(error) => {
                self.tally.fail(path, &error);
                None
            }
        }
    }

    fn compare(&mut self, kind: Kind, path: &Path, number: u64, at: u64, len: usize) {
        let wrong = lake::mismatches(kind, number, 0, at, &self.buffer[..len]);
        self.tally.bytes += len as u64;
        self.tally.differ(path, wrong);
    }
}
