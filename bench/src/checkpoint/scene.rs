//! The store, the cluster and the mounts that are written through.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use millpond_s3_fixture::{S3Fixture, pattern};
use object_store::aws::AmazonS3;

use super::{CheckpointArgs, WORKERS, direct};
use crate::cluster::{Cluster, ClusterSpec, Kind};
use crate::measure::{CpuMeter, Sample, interrupt};
use crate::process_cluster::Mount;
use crate::record::Proof;
use crate::scenario::Context;

const BUCKET: &str = "checkpoints";
/// Bytes of one write.
const PIECE: u64 = 1 << 20;

/// What is measured, and by whom.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    context: &'a Context,
    size: u64,
    files: u64,
    file_size: u64,
    writer: Mount,
    reader: Mount,
    cluster: Cluster,
    store: AmazonS3,
    s3: S3Fixture,
    verified: AtomicU64,
    mismatches: AtomicU64,
}

impl<'a> Scene<'a> {
    pub(super) fn start(context: &'a Context, args: &CheckpointArgs) -> Result<Self> {
        let s3 = context.runtime.block_on(S3Fixture::start());
        s3.create_bucket(BUCKET);
        let spec = ClusterSpec {
            nodes: 2,
            block_size: "4MiB".to_owned(),
            node_memory: "256MiB".to_owned(),
            node_disk: "8GiB".to_owned(),
            heartbeat: "1s".to_owned(),
            death_timeout: "5s".to_owned(),
            log_level: "warn".to_owned(),
            one_host: false,
        };
        let cluster = Cluster::start(context, spec, Kind::Processes)?;
        cluster.add_ufs("/data", &format!("s3://{BUCKET}"), &s3.options())?;
        let default = context.pick(1 << 30, 128 << 20);
        Ok(Self {
            context,
            size: args.size.map_or(default, |size| size.bytes()),
            files: args.files.unwrap_or_else(|| context.pick(2000, 300)),
            file_size: args.file_size.bytes(),
            writer: cluster.mount(&[])?,
            reader: cluster.mount(&[])?,
            store: direct::client(&s3, BUCKET)?,
            cluster,
            s3,
            verified: AtomicU64::new(0),
            mismatches: AtomicU64::new(0),
        })
    }

    /// Writes, flushes and removes one small file.
    ///
    /// # Errors
    /// What the mount says against it.
    pub(super) fn try_to_write(&self) -> Result<()> {
        let path = self.path("try");
        write_file(&path, 0, 1)?;
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }

    /// The large file through the mount.
    pub(super) fn write_large(&self, run: usize) -> Result<Sample> {
        self.context.step("checkpoint: writing through the mount");
        let (key, seed) = (format!("ours-{run}"), run as u64);
        let sample = self.timed(self.size, 1, || {
            write_file(&self.path(&key), seed, self.size)
        })?;
        self.verify_and_remove(&key, seed, self.size)?;
        Ok(sample)
    }

    /// The large file as a multipart upload.
    pub(super) fn upload_large(&self, run: usize) -> Result<Sample> {
        self.context.step("checkpoint: uploading directly");
        let (key, seed) = (format!("direct-{run}"), run as u64);
        let upload = direct::multipart(&self.store, &key, self.size, seed);
        let sample = self.timed(self.size, 1, || self.context.runtime.block_on(upload))?;
        self.verify_and_remove(&key, seed, self.size)?;
        Ok(sample)
    }

    /// The small files through the mount.
    pub(super) fn write_small(&self, run: usize) -> Result<Sample> {
        let bytes = self.files * self.file_size;
        let dir = self.path(&format!("small-{run}"));
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let write = || {
            std::thread::scope(|scope| {
                let worker = |worker: usize| {
                    let dir = &dir;
                    scope.spawn(move || -> Result<()> {
                        for number in (worker as u64..self.files).step_by(WORKERS) {
                            write_file(&dir.join(number.to_string()), number, self.file_size)?;
                        }
                        Ok(())
                    })
                };
                let workers: Vec<_> = (0..WORKERS).map(worker).collect();
                for worker in workers {
                    worker.join().map_err(|_| anyhow!("a writer panicked"))??;
                }
                Ok(())
            })
        };
        let sample = self.timed(bytes, self.files, write)?;
        self.verify_small(&format!("small-{run}"))?;
        Ok(sample)
    }

    /// The small files as PUTs.
    pub(super) fn put_small(&self, run: usize) -> Result<Sample> {
        let bytes = self.files * self.file_size;
        let size = self.file_size as usize;
        let prefix = format!("puts-{run}");
        let objects =
            (0..self.files).map(|number| (format!("{prefix}/{number}"), pattern(number, 0, size)));
        let put = direct::puts(&self.store, objects, WORKERS);
        let sample = self.timed(bytes, self.files, || self.context.runtime.block_on(put))?;
        self.verify_small(&prefix)?;
        Ok(sample)
    }

    /// Writes the large file once more and reads it through the other mount: bytes that the
    /// UFS was asked for meanwhile, bytes compared, and bytes that differed.
    pub(super) fn read_back(&self) -> Result<(u64, u64, u64)> {
        use std::os::unix::fs::FileExt as _;

        let key = "read-back";
        write_file(&self.path(key), 1, self.size)?;
        let before = self.s3.counters().get_bytes;
        let path = self.reader.path().join("data").join(key);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let (mut offset, mut wrong) = (0, 0);
        let mut buffer = vec![0; PIECE as usize];
        while offset < self.size {
            interrupt::check()?;
            let len = PIECE.min(self.size - offset) as usize;
            file.read_exact_at(&mut buffer[..len], offset)?;
            wrong += differing(&pattern(1, offset, len), &buffer[..len]);
            offset += len as u64;
        }
        Ok((self.s3.counters().get_bytes - before, self.size, wrong))
    }

    /// What was compared so far.
    pub(super) fn proof(&self) -> Proof {
        Proof {
            verified_bytes: Some(self.verified.load(Ordering::Relaxed)),
            mismatches: Some(self.mismatches.load(Ordering::Relaxed)),
            ..Proof::default()
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.writer.path().join("data").join(name)
    }

    fn timed(&self, bytes: u64, ops: u64, write: impl FnOnce() -> Result<()>) -> Result<Sample> {
        let mut pids = self.cluster.pids();
        pids.push(self.writer.pid());
        let cpu = CpuMeter::start(&pids);
        let start = Instant::now();
        write()?;
        Ok(Sample {
            elapsed: start.elapsed(),
            cpu_seconds: cpu.seconds(),
            bytes,
            ops,
            ..Sample::default()
        })
    }

    fn verify_small(&self, prefix: &str) -> Result<()> {
        for number in 0..self.files {
            self.verify_and_remove(&format!("{prefix}/{number}"), number, self.file_size)?;
        }
        Ok(())
    }

    /// Compares what the store has with what was written: fsync promised that it is there.
    fn verify_and_remove(&self, key: &str, seed: u64, size: u64) -> Result<()> {
        interrupt::check()?;
        let object = self.s3.object(BUCKET, key);
        let object = object.with_context(|| format!("{key} is not in the store"))?;
        let mut wrong = object.content.len().abs_diff(size);
        for offset in (0..size).step_by(PIECE as usize) {
            let len = PIECE.min(size - offset) as usize;
            let found = object.content.read(offset, len);
            wrong += differing(&pattern(seed, offset, found.len()), &found);
        }
        self.verified.fetch_add(size, Ordering::Relaxed);
        self.mismatches.fetch_add(wrong, Ordering::Relaxed);
        self.s3.delete(BUCKET, key);
        Ok(())
    }
}

/// Writes `size` bytes of [`pattern`] in order, flushes, and closes.
fn write_file(path: &Path, seed: u64, size: u64) -> Result<()> {
    // Without the directory, whose name is another in every run.
    let name = || path.file_name().unwrap_or_default().display().to_string();
    let mut file = File::create_new(path).with_context(|| format!("creating {}", name()))?;
    for offset in (0..size).step_by(PIECE as usize) {
        interrupt::check()?;
        let bytes = pattern(seed, offset, PIECE.min(size - offset) as usize);
        let written = file.write_all(&bytes);
        written.with_context(|| format!("writing {}", name()))?;
    }
    file.sync_all()
        .with_context(|| format!("flushing {}", name()))?;
    nix::unistd::close(file).with_context(|| format!("closing {}", name()))
}

fn differing(expected: &[u8], found: &[u8]) -> u64 {
    expected.iter().zip(found).filter(|(a, b)| a != b).count() as u64
}
