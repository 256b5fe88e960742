//! Threads that read and compare without end while a test breaks things.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millpond_bench::process_cluster::wait_until;
use millpond_s3_fixture::Content;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::tree::Tree;

/// Readers of random pieces, past the kernel's page cache, so that every read is answered by
/// the mount.
#[derive(Debug)]
pub(crate) struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    reads: AtomicU64,
    slowest_ms: AtomicU64,
    errors: Mutex<Vec<String>>,
}

impl Readers {
    pub(crate) fn start(root: &Path, tree: &Tree, threads: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let files: Arc<Vec<(PathBuf, Content)>> = Arc::new(
            tree.0
                .iter()
                .map(|(path, c)| (root.join(path), c.clone()))
                .collect(),
        );
        let threads = (0..threads)
            .map(|seed| {
                let (shared, files) = (Arc::clone(&shared), Arc::clone(&files));
                std::thread::spawn(move || shared.read_until_stopped(&files, seed))
            })
            .collect();
        Self { shared, threads }
    }

    /// Waits until `more` reads have been done from now on, all of them right.
    pub(crate) fn go_on_for(&self, more: u64, during: &str) {
        let start = Instant::now();
        let goal = self.shared.reads.load(Ordering::SeqCst) + more;
        let waited = wait_until(Duration::from_secs(120), || {
            self.shared.reads.load(Ordering::SeqCst) >= goal || !self.errors().is_empty()
        });
        assert!(self.errors().is_empty(), "{during}: {:?}", self.errors());
        let done = self.shared.reads.load(Ordering::SeqCst) + more - goal;
        assert!(waited.is_ok(), "{during}: only {done} of {more} reads");
        let slowest = self.shared.slowest_ms.swap(0, Ordering::SeqCst);
        println!(
            "{during}: {more} reads in {:?}, slowest {slowest} ms",
            start.elapsed()
        );
    }

    /// Ends the threads; every read that they did was right.
    pub(crate) fn stop(self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let errors = std::mem::take(
            &mut *self
                .shared
                .errors
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        assert!(errors.is_empty(), "{errors:?}");
    }

    fn errors(&self) -> Vec<String> {
        self.shared
            .errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Shared {
    fn read_until_stopped(&self, files: &[(PathBuf, Content)], seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        while !self.stop.load(Ordering::SeqCst) {
            let (path, content) = &files[rng.random_range(0..files.len())];
            let len = rng.random_range(1..400_000).min(content.len() as usize);
            let offset = rng.random_range(0..=content.len() - len as u64);
            let start = Instant::now();
            if let Err(error) = read_piece(path, content, offset, len) {
                let error = format!("{} at {offset}+{len}: {error}", path.display());
                self.errors
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(error);
                return;
            }
            self.slowest_ms
                .fetch_max(start.elapsed().as_millis() as u64, Ordering::SeqCst);
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Reads one piece past the page cache and compares it.
pub(crate) fn read_piece(
    path: &Path,
    content: &Content,
    offset: u64,
    len: usize,
) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .map_err(text)?;
    let mut buffer = vec![0; len];
    file.read_exact_at(&mut buffer, offset).map_err(text)?;
    if content.read(offset, len) == buffer {
        Ok(())
    } else {
        Err("wrong bytes".to_owned())
    }
}

/// Reads everything once past the page cache.
pub(crate) fn read_all(root: &Path, tree: &Tree) {
    const PIECE: u64 = 1 << 20;
    for (path, content) in &tree.0 {
        let mut at = 0;
        while at < content.len() {
            let len = PIECE.min(content.len() - at);
            read_piece(&root.join(path), content, at, len as usize)
                .unwrap_or_else(|error| panic!("{path} at {at}: {error}"));
            at += len;
        }
    }
}
