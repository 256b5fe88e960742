//! What the under-store alone can do: so many ranged GETs in parallel, nothing in between.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::StreamExt;
use millpond_proto::FileVersion;
use millpond_ufs::{Ufs, UfsError};
use tokio::task::JoinSet;

use crate::measure::{CpuMeter, Sample};

/// A file to read whole.
#[derive(Debug, Clone)]
pub struct UfsFile {
    /// Below the root of the UFS.
    pub path: String,
    /// The version to read.
    pub version: FileVersion,
    /// Bytes of it.
    pub size: u64,
}

/// Whether the bytes of a file (its number) at an offset are right. Called from many tasks.
pub type Check = Arc<dyn Fn(usize, u64, &[u8]) -> bool + Send + Sync>;

/// Reads the file at `path` once, in ranged GETs of `part` bytes (the last shorter), `parallel`
/// of them at any moment, each on a task of its own. The sample's operations are the GETs, its
/// latencies run from a GET's start to its last byte. A GET that fails or is short is counted
/// as an error, and not repeated.
pub async fn parallel_ranged_reads(
    ufs: &Arc<dyn Ufs>,
    path: &str,
    version: &FileVersion,
    size: u64,
    part: u64,
    parallel: usize,
) -> Sample {
    let file = UfsFile {
        path: path.to_owned(),
        version: version.clone(),
        size,
    };
    parallel_reads(ufs, &[file], part, parallel, None).await
}

/// The same for many files, one after the other through one queue of GETs. Bytes that `check`
/// does not like count as an error of their GET.
pub async fn parallel_reads(
    ufs: &Arc<dyn Ufs>,
    files: &[UfsFile],
    part: u64,
    parallel: usize,
    check: Option<Check>,
) -> Sample {
    let queue = Arc::new(Queue {
        ufs: Arc::clone(ufs),
        gets: gets(files, part),
        files: files.to_vec(),
        next: AtomicUsize::new(0),
        check,
    });
    let mut workers = JoinSet::new();
    let (cpu, start) = (CpuMeter::start(&[]), Instant::now());
    for _ in 0..parallel.max(1) {
        workers.spawn(Arc::clone(&queue).work());
    }
    let mut all = Sample::default();
    while let Some(done) = workers.join_next().await {
        match done {
            Ok(sample) => all.merge(sample),
            Err(error) => all.fail(error.to_string()),
        }
    }
    all.elapsed = start.elapsed();
    all.cpu_seconds = cpu.seconds();
    all
}

/// The number of a file and a range of it.
type Get = (usize, Range<u64>);

fn gets(files: &[UfsFile], part: u64) -> Vec<Get> {
    let part = part.max(1);
    let of_file = |(number, file): (usize, &UfsFile)| {
        let size = file.size;
        (0..size.div_ceil(part))
            .map(move |at| (number, at * part..((at + 1) * part).min(size)))
            .collect::<Vec<_>>()
    };
    files.iter().enumerate().flat_map(of_file).collect()
}

struct Queue {
    ufs: Arc<dyn Ufs>,
    files: Vec<UfsFile>,
    gets: Vec<Get>,
    next: AtomicUsize,
    check: Option<Check>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    async fn work(self: Arc<Self>) -> Sample {
        let mut sample = Sample::default();
        while let Some((number, range)) = self.gets.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let start = Instant::now();
            match self.get(*number, range.clone()).await {
                Ok(bytes) if bytes == range.end - range.start => sample.bytes += bytes,
                Ok(_) => sample.fail(format!(
                    "bytes {range:?} of {} are wrong",
                    self.files[*number].path
                )),
                Err(error) => sample.fail(error.to_string()),
            }
            sample.ops += 1;
            sample.latency.record(start.elapsed());
        }
        sample
    }

    /// How many of the bytes came and were right.
    async fn get(&self, number: usize, range: Range<u64>) -> Result<u64, UfsError> {
        let file = &self.files[number];
        let mut at = range.start;
        let mut good = 0;
        let mut stream = self.ufs.read(&file.path, &file.version, range).await?;
        while let Some(piece) = stream.next().await.transpose()? {
            let right = self
                .check
                .as_ref()
                .is_none_or(|check| check(number, at, &piece));
            good += if right { piece.len() as u64 } else { 0 };
            at += piece.len() as u64;
        }
        Ok(good)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millpond_s3_fixture::pattern;
    use millpond_ufs::UfsContext;
    use millpond_ufs::memory::MemoryStore;

    use super::*;

    const SIZES: [u64; 3] = [1000, 0, 130];

    async fn store(name: &str) -> (Arc<dyn Ufs>, Vec<UfsFile>) {
        let store = MemoryStore::named(name);
        let file = |(number, size): (usize, &u64)| UfsFile {
            path: number.to_string(),
            version: store.put(
                &number.to_string(),
                pattern(number as u64, 0, *size as usize),
            ),
            size: *size,
        };
        let files = SIZES.iter().enumerate().map(file).collect();
        let uri = format!("memory:///{name}");
        let options = BTreeMap::new();
        let ufs = millpond_ufs::open(&uri, &options, UfsContext::detached()).await;
        (ufs.unwrap(), files)
    }

    #[tokio::test]
    async fn every_byte_is_read_once_in_parts() {
        let (ufs, files) = store("ufs_reads_parts").await;
        let check: Check =
            Arc::new(|number, at, bytes| bytes == pattern(number as u64, at, bytes.len()));
        let sample = parallel_reads(&ufs, &files, 100, 4, Some(check)).await;
        assert_eq!((sample.bytes, sample.ops, sample.errors), (1130, 12, 0));
        let one = &files[0];
        let sample = parallel_ranged_reads(&ufs, &one.path, &one.version, 1000, 4096, 2).await;
        assert_eq!((sample.bytes, sample.ops, sample.errors), (1000, 1, 0));
    }

    #[tokio::test]
    async fn wrong_bytes_and_missing_files_are_errors() {
        let (ufs, mut files) = store("ufs_reads_wrong").await;
        let check: Check = Arc::new(|_, at, _| at != 300);
        let sample = parallel_reads(&ufs, &files[..1], 100, 2, Some(check)).await;
        assert_eq!((sample.bytes, sample.ops, sample.errors), (900, 10, 1));
        assert!(sample.first_error.unwrap().contains("300..400"));
        files[2].path = "gone".to_owned();
        let sample = parallel_reads(&ufs, &files, 1000, 1, None).await;
        assert_eq!((sample.ops, sample.errors), (2, 1));
    }
}
