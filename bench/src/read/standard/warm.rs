//! Reads that need no store: from the kernel's pages, and from the memory tier of a mount.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use millpond_process::Size;

use super::{HandedOut, LONG_TTL, Stage, asked, one_file};
use crate::cluster::{UfsUse, standalone_mount};
use crate::limits::{NullFuse, NullFuseSettings};
use crate::measure::{Arm, interleave, interrupt};
use crate::process_cluster::{Mount, limit_for};
use crate::read::SCENARIO;
use crate::read::args::Pattern;
use crate::read::kernel;
use crate::read::shape::Shape;
use crate::read::source::Source;
use crate::read::verify;
use crate::record::{Row, Status};

/// From the kernel's pages: the mount is not asked at all.
pub(super) fn kernel(stage: &Stage<'_>, wanted: &[&str]) -> Result<Vec<Row>> {
    const LIMIT: &str = "the same read of a local file";
    let context = stage.context;
    let memory = limit_for(stage.ample_memory());
    let flags = [&LONG_TTL[..], &["--memory-limit", &memory]].concat();
    let mount = standalone_mount(context, &stage.uri(), &flags)?;
    let (source, local, pids) = (
        Source::Dir(mount.path().to_owned()),
        stage.local(),
        [mount.pid()],
    );
    stage.warm(&source)?;
    stage.warm(&local)?;
    let mut rows = Vec::new();
    for shape in [
        Shape::SEQUENTIAL,
        Shape::new(Pattern::Random, 4096, 1),
        Shape::MAPPED,
    ] {
        let case = format!("fuse/kernel-warm/{}", shape.name());
        if !wanted.contains(&&*case) {
            continue;
        }
        let workload = stage.workload(stage.data.files(), shape);
        let before = UfsUse::of_mounts(&[&mount])?;
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new(&*case, |_| stage.run(&case, &workload, &source, &pids)),
                Arm::new(LIMIT, |_| stage.run(LIMIT, &workload, &local, &[])),
            ],
        )?;
        let used = UfsUse::of_mounts(&[&mount])? - before;
        let kept = kernel::kept(mount.path(), stage.data.files())?;
        let figure = shape.figure();
        rows.push(
            Row::measured(SCENARIO, case, figure, &samples[0])
                .against(LIMIT, figure, &samples[1])
                .proved(asked(used, Some(kept))),
        );
    }
    verify::enter(&stage.verify(&source), &mut rows);
    Ok(rows)
}

/// From the memory tier of the mount's process, without pages in the kernel.
pub(super) fn tier(stage: &Stage<'_>, wanted: &[&str]) -> Result<Vec<Row>> {
    const LIMIT: &str = "a null FUSE filesystem with the same settings";
    let context = stage.context;
    let memory = limit_for(stage.ample_memory());
    let flags = [&LONG_TTL[..], &["--memory-limit", &memory]].concat();
    let mount = standalone_mount(context, &stage.uri(), &flags)?;
    let settings = NullFuseSettings {
        seed: context.seed,
        metadata_ttl: Some(Duration::from_secs(3600)),
        ..NullFuseSettings::default()
    };
    let null = NullFuse::start(&context.dir().join("null"), stage.size(), &settings)?;
    let null_files = one_file("0", stage.size());
    let source = Source::Dir(mount.path().to_owned());
    stage.warm(&source)?;
    let mut rows = Vec::new();
    for shape in [
        Shape::SEQUENTIAL,
        Shape::new(Pattern::Sequential, 1 << 20, 4),
        Shape::new(Pattern::Sequential, 128 << 10, 1),
        Shape::new(Pattern::Random, 4096, 4),
    ] {
        let case = format!("fuse/tier-warm/{}", shape.name());
        if !wanted.contains(&&*case) {
            continue;
        }
        let ours = stage.workload(stage.data.files(), shape);
        let theirs = stage.workload(&null_files, shape);
        let (mut dropped, mut null_dropped) = (None, None);
        let before = (UfsUse::of_mounts(&[&mount])?, HandedOut::by(&mount)?);
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new(&*case, |_| {
                    let files = (mount.path(), &stage.data.files()[..]);
                    stage.run_dropped(&case, &ours, files, &[mount.pid()], &mut dropped)
                }),
                Arm::new(LIMIT, |_| {
                    let files = (null.path(), &null_files[..]);
                    stage.run_dropped(LIMIT, &theirs, files, &[null.pid()], &mut null_dropped)
                }),
            ],
        )?;
        let used = UfsUse::of_mounts(&[&mount])? - before.0;
        let (from_memory, _) = HandedOut::by(&mount)?.shares_since(before.1);
        let figure = shape.figure();
        rows.push(
            Row::measured(SCENARIO, case, figure, &samples[0])
                .against(LIMIT, figure, &samples[1])
                .proved(asked(used, dropped))
                .with("from_memory_tier", from_memory),
        );
    }
    kernel::drop_pages(mount.path(), stage.data.files())?;
    verify::enter(&stage.verify(&source), &mut rows);
    Ok(rows)
}

/// Files that the kernel reads itself, from the disk tier of a mount.
pub(super) fn passthrough(stage: &Stage<'_>, wanted: &[&str]) -> Result<Vec<Row>> {
    const LIMIT: &str = "the backing file";
    let context = stage.context;
    let cache = context.new_dir("cache")?;
    // Room for the data and its map, whatever the size.
    let size = Size::mib(stage.size() / (512 << 10) + 64).to_string();
    let memory = limit_for(stage.ample_memory());
    let dir = cache.display().to_string();
    let disk = ["--cache-dir", &dir, "--cache-size", &size];
    let flags = [&LONG_TTL[..], &["--memory-limit", &memory], &disk].concat();
    let mount = standalone_mount(context, &stage.uri(), &flags)?;
    let source = Source::Dir(mount.path().to_owned());
    stage.warm(&source)?;
    if let Some(why) = wait_for_passthrough(stage, &mount)? {
        let row = |case: &&str| {
            let figure = if case.contains("rand") {
                "rate"
            } else {
                "throughput"
            };
            Row::without(SCENARIO, *case, figure, Status::Impossible, why.clone())
        };
        return Ok(wanted.iter().map(row).collect());
    }
    let backing = backing_file(&cache)?;
    let parent = backing
        .parent()
        .context("a cached file is in a directory")?;
    let name = backing.file_name().context("a cached file has a name")?;
    let backing_files = one_file(&name.to_string_lossy(), stage.size());
    let backing = Source::Dir(parent.to_owned());

    let mut rows = Vec::new();
    for shape in [
        Shape::SEQUENTIAL,
        Shape::new(Pattern::Sequential, 1 << 20, 4),
        Shape::new(Pattern::Random, 4096, 1),
        Shape::MAPPED,
    ] {
        let case = format!("fuse/passthrough/{}", shape.name());
        if !wanted.contains(&&*case) {
            continue;
        }
        let ours = stage.workload(stage.data.files(), shape);
        let theirs = stage.workload(&backing_files, shape);
        let before = (UfsUse::of_mounts(&[&mount])?, requests(&mount)?);
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new(&*case, |_| stage.run(&case, &ours, &source, &[mount.pid()])),
                Arm::new(LIMIT, |_| stage.run(LIMIT, &theirs, &backing, &[])),
            ],
        )?;
        let used = UfsUse::of_mounts(&[&mount])? - before.0;
        let asked_for = requests(&mount)? - before.1;
        let figure = shape.figure();
        rows.push(
            Row::measured(SCENARIO, case, figure, &samples[0])
                .against(LIMIT, figure, &samples[1])
                .proved(asked(used, None))
                .with("reads_asked_of_the_mount", asked_for),
        );
    }
    verify::enter(&stage.verify(&source), &mut rows);
    Ok(rows)
}

/// Waits until the kernel reads the file itself; says why not if it never will.
fn wait_for_passthrough(stage: &Stage<'_>, mount: &Mount) -> Result<Option<String>> {
    let path = mount.path().join(&stage.data.files()[0].path);
    let opens = || -> Result<f64> {
        let metrics = mount.metrics()?;
        Ok(metrics.sum("millpond_fuse_passthrough_opens_total", &[]))
    };
    stage
        .context
        .step("waiting for the file to be whole on disk");
    for _ in 0..WHOLE_TRIES {
        interrupt::check()?;
        let metrics = mount.metrics()?;
        let available = metrics.sum("millpond_fuse_passthrough", &["state=\"available\""]);
        if available < 1.0 {
            return Ok(Some(
                "no FUSE passthrough here: see the log of a mount".to_owned(),
            ));
        }
        let before = opens()?;
        drop(std::fs::File::open(&path)?);
        if opens()? > before {
            return Ok(None);
        }
        std::thread::park_timeout(WHOLE_PAUSE);
    }
    anyhow::bail!("the file was not whole in the cache directory in time")
}

/// How often, and how far apart, it is looked whether the file is whole: two minutes.
const WHOLE_TRIES: u32 = 600;
const WHOLE_PAUSE: Duration = Duration::from_millis(200);

/// Read requests that the mount answered.
fn requests(mount: &Mount) -> Result<f64> {
    let metrics = mount.metrics()?;
    Ok(metrics.sum("millpond_fuse_requests_total", &["op=\"read\""]))
}

/// The only file in a cache directory.
fn backing_file(cache: &Path) -> Result<PathBuf> {
    for fan in std::fs::read_dir(cache)? {
        let fan = fan?.path();
        if !fan.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(fan)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "data") {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("nothing is in the cache directory")
}
