//! Reads that go to the store, one with the shape of S3 in the same region.
//!
//! Each read that is to be the first one of a file gets a file of its own, a copy of the data
//! or of its beginning.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use millpond_ufs::{Ufs, UfsContext};

use super::{FILE, LONG_TTL, Stage, asked, fail_on_errors, one_file};
use crate::cluster::{UfsUse, standalone_mount};
use crate::measure::{Arm, CpuMeter, Sample, Spread, interleave};
use crate::process_cluster::{Mount, wait_for};
use crate::read::SCENARIO;
use crate::read::order::Shuffled;
use crate::read::shape::Shape;
use crate::read::source::Source;
use crate::read::verify::{self, Verified};
use crate::read::workload::Length;
use crate::record::{Better, Figure, Proof, Row};
use crate::ufs_reads::{UfsFile, parallel_reads};

const PRESET: (&str, &str) = ("shape", "s3-same-region");
/// GETs at once that nobody has to do without: what a reader is held against.
const PARALLEL: usize = 16;
/// The largest of those GETs.
const PART: u64 = 8 << 20;
/// What a small read may cost: the least that is worth a request.
const ROUNDED: u64 = 128 << 10;
/// How long what was under way may go on to arrive.
const SETTLES: Duration = Duration::from_secs(10);

/// A store in that shape, mounted and by itself.
struct Store<'a> {
    stage: &'a Stage<'a>,
    dir: PathBuf,
    mount: Mount,
    ufs: Arc<dyn Ufs>,
}

/// Measures what is wanted.
pub(super) fn run(stage: &Stage<'_>, wanted: &[&str]) -> Result<Vec<Row>> {
    let store = Store::open(stage)?;
    let mut rows = Vec::new();
    if wanted.contains(&"fuse/cold/seq-1m-1job") {
        rows.push(store.sequential()?);
    }
    if wanted.contains(&"fuse/cold/first-byte") {
        rows.push(store.first_byte()?);
    }
    if wanted.contains(&"fuse/cold/rand-4k-bytes") {
        rows.push(store.random()?);
    }
    Ok(rows)
}

impl<'a> Store<'a> {
    fn open(stage: &'a Stage<'a>) -> Result<Self> {
        let context = stage.context;
        let dir = context.new_dir("cold")?;
        let uri = format!("file://{}", dir.display());
        let option = format!("{}={}", PRESET.0, PRESET.1);
        let flags = [&LONG_TTL[..], &["--option", &option]].concat();
        let mount = standalone_mount(context, &uri, &flags)?;
        let options = BTreeMap::from([(PRESET.0.to_owned(), PRESET.1.to_owned())]);
        let opening = millpond_ufs::open(&uri, &options, UfsContext::detached());
        let ufs = context.runtime.block_on(opening)?;
        Ok(Self {
            stage,
            dir,
            mount,
            ufs,
        })
    }

    /// The data once more, under a name that nobody has read.
    fn copy(&self, name: &str) -> Result<()> {
        let (data, path) = (self.stage.data.dir().join(FILE), self.dir.join(name));
        let copied = std::fs::copy(data, &path);
        copied.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// A file as large as the data that begins like it and is empty from there on.
    fn beginning(&self, name: &str, len: u64) -> Result<()> {
        let (data, path) = (self.stage.data.dir().join(FILE), self.dir.join(name));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            std::io::copy(&mut File::open(data)?.take(len), &mut file)?;
            file.set_len(self.stage.size())
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// What was read once is of no more use.
    fn remove(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    fn of_store(&self, name: &str, size: u64) -> Result<UfsFile> {
        let runtime = &self.stage.context.runtime;
        let version = runtime.block_on(self.ufs.stat(name))?.version;
        Ok(UfsFile {
            path: name.to_owned(),
            version: version.context("a file without a version")?,
            size,
        })
    }

    fn sequential(&self) -> Result<Row> {
        const CASE: &str = "fuse/cold/seq-1m-1job";
        const LIMIT: &str = "16 parallel ranged GETs of the same store";
        let (context, size) = (self.stage.context, self.stage.size());
        let part = (size / PARALLEL as u64).clamp(1, PART);
        let before = UfsUse::of_mounts(&[&self.mount])?;
        let mut used = UfsUse::default();
        let mut verified = Verified::default();
        self.copy("gets")?;
        let file = [self.of_store("gets", size)?];
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new(CASE, |round| {
                    context.step(CASE);
                    let name = format!("sequential-{round}");
                    self.copy(&name)?;
                    let workload = self
                        .stage
                        .workload(&one_file(&name, size), Shape::SEQUENTIAL);
                    let source = Source::Dir(self.mount.path().to_owned());
                    let pids = [self.mount.pid()];
                    let sample = workload.run(&source, Length::Pass, &pids, context.progress())?;
                    if round + 1 == context.runs {
                        used = UfsUse::of_mounts(&[&self.mount])? - before;
                        self.verify(&name, &mut verified)?;
                    }
                    self.remove(&name)?;
                    Ok(sample)
                }),
                Arm::new(LIMIT, |_| {
                    context.step(LIMIT);
                    let reading = parallel_reads(&self.ufs, &file, part, PARALLEL, None);
                    let sample = context.runtime.block_on(reading);
                    fail_on_errors(&sample)?;
                    Ok(sample)
                }),
            ],
        )?;
        self.remove("gets")?;
        let row = Row::measured(SCENARIO, CASE, Figure::Throughput, &samples[0])
            .against(LIMIT, Figure::Throughput, &samples[1])
            .noted(format!(
                "store in the shape {}; GETs of {} KiB",
                PRESET.1,
                part >> 10
            ))
            .proved(asked(used, None));
        let mut rows = [row];
        verify::enter(&verified, &mut rows);
        let [row] = rows;
        Ok(row)
    }

    fn first_byte(&self) -> Result<Row> {
        const CASE: &str = "fuse/cold/first-byte";
        const LIMIT: &str = "one GET of 128 KiB of the same store";
        let context = self.stage.context;
        // Latencies scatter by a factor of two: a median of few says nothing.
        let files = context.pick(60, 40);
        let first = ROUNDED.min(self.stage.size());
        let mut mismatches = 0;
        let mut bytes = 0;
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new(CASE, |round| {
                    context.step(CASE);
                    let names = self.fresh("first", round, files, first)?;
                    let mut buffer = vec![0; first as usize];
                    let mut sample = Sample::default();
                    let (cpu, begun) = (CpuMeter::start(&[self.mount.pid()]), Instant::now());
                    for name in &names {
                        let path = self.mount.path().join(name);
                        let start = Instant::now();
                        let read =
                            File::open(&path).and_then(|file| file.read_exact_at(&mut buffer, 0));
                        sample.latency.record(start.elapsed());
                        sample.ops += 1;
                        match read {
                            Ok(()) => {
                                sample.bytes += first;
                                bytes += first;
                                mismatches += self.stage.data.mismatches(0, 0, &buffer);
                            }
                            Err(error) => sample.fail(format!("{error} ({name})")),
                        }
                    }
                    sample.elapsed = begun.elapsed();
                    sample.cpu_seconds = cpu.seconds();
                    Ok(sample)
                }),
                Arm::new(LIMIT, |round| {
                    context.step(LIMIT);
                    let names = self.fresh("get", round, files, first)?;
                    let files = names.iter().map(|name| self.of_store(name, first));
                    let files = files.collect::<Result<Vec<_>>>()?;
                    let reading = parallel_reads(&self.ufs, &files, first, 1, None);
                    let sample = context.runtime.block_on(reading);
                    fail_on_errors(&sample)?;
                    Ok(sample)
                }),
            ],
        )?;
        let row = Row::measured(SCENARIO, CASE, Figure::P50, &samples[0])
            .against(LIMIT, Figure::P50, &samples[1])
            .noted(format!(
                "open and first 128 KiB of files whose attributes are known; store in the shape \
                 {}",
                PRESET.1
            ));
        Ok(row.proved(Proof {
            verified_bytes: Some(bytes),
            mismatches: Some(mismatches),
            ..Proof::default()
        }))
    }

    /// Names of files that nobody has read, but whose attributes the mount knows. Each is alone
    /// in its directory: who reads the files of one directory in order is read ahead of.
    fn fresh(&self, kind: &str, round: usize, count: usize, len: u64) -> Result<Vec<String>> {
        let dir = |number| format!("{kind}-{round}-{number}");
        let names: Vec<_> = (0..count).map(|n| format!("{}/{FILE}", dir(n))).collect();
        for (number, name) in names.iter().enumerate() {
            std::fs::create_dir(self.dir.join(dir(number)))?;
            self.beginning(name, len)?;
            std::fs::metadata(self.mount.path().join(name))?;
        }
        Ok(names)
    }

    fn random(&self) -> Result<Row> {
        const CASE: &str = "fuse/cold/rand-4k-bytes";
        const READ: u64 = 4096;
        let (context, size) = (self.stage.context, self.stage.size());
        // So far apart that no read has a use for what another one brought.
        let reads = context.pick(64, 32).min(size / ROUNDED);
        let (region, mut mismatches, mut ops) = (size / reads, 0, 0);
        let mut ratios = Vec::new();
        let (mut used, mut dropped) = (UfsUse::default(), None);
        for round in 0..context.runs {
            context.step(format!("{CASE}, run {}", round + 1));
            let name = format!("random-{round}");
            self.copy(&name)?;
            let path = self.mount.path().join(&name);
            let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            dropped = Some(super::super::kernel::drop_pages(
                self.mount.path(),
                &one_file(&name, size),
            )?);
            let before = self.settled()?;
            let seed = context.seed.wrapping_add(round as u64);
            let (order, within) = (
                Shuffled::new(reads, seed),
                Shuffled::new(region / READ, seed),
            );
            let mut buffer = [0; READ as usize];
            for number in 0..reads {
                let place = within.get(number % (region / READ)) * READ;
                let at = order.get(number) * region + place;
                file.read_exact_at(&mut buffer, at)
                    .with_context(|| format!("reading {name} at {at}"))?;
                mismatches += self.stage.data.mismatches(0, at, &buffer);
                ops += 1;
            }
            let asked = self.settled()? - before;
            self.remove(&name)?;
            used += asked;
            ratios.push(asked.bytes as f64 / (reads * ROUNDED) as f64);
        }
        let value = Spread::of(ratios).context("no runs")?;
        let row = Row::of(
            SCENARIO,
            CASE,
            "amplification",
            "ratio",
            Better::Lower,
            value,
        );
        let mut row = row
            .noted(format!(
                "bytes from the store over {reads} reads of 4 KiB, each counted as 128 KiB"
            ))
            .proved(Proof {
                verified_bytes: Some(ops * READ),
                mismatches: Some(mismatches),
                ..asked(used, dropped)
            });
        row.detail.ops = ops;
        row.detail.bytes = ops * READ;
        Ok(row)
    }

    /// What the mount asked of the store, once it asks for nothing more.
    fn settled(&self) -> Result<UfsUse> {
        let mut last = None;
        let mut since = Instant::now();
        wait_for(SETTLES, || {
            let now = UfsUse::of_mounts(&[&self.mount]).ok()?;
            if last != Some(now) {
                (last, since) = (Some(now), Instant::now());
            }
            (since.elapsed() >= Duration::from_millis(300)).then_some(now)
        })
        .context("the mount reads from its store without end")
    }

    fn verify(&self, name: &str, verified: &mut Verified) -> Result<()> {
        self.stage.context.step("comparing every byte");
        let path = self.mount.path().join(name);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.stage.size() {
            let len = (self.stage.size() - at).min(buffer.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..len], at)?;
            let wrong = self.stage.data.mismatches(0, at, &buffer[..len]);
            verified.bytes += len as u64 - wrong;
            verified.mismatches += wrong;
            at += len as u64;
        }
        Ok(())
    }
}
