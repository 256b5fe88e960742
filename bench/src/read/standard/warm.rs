//! Reads that need no store: from the kernel's pages, and from the memory tier of a mount.

use anyhow::Result;

use super::{HandedOut, LONG_TTL, Stage, asked, one_file};
use crate::cluster::{UfsUse, standalone_mount};
use crate::limits::{NullFuse, NullFuseSettings};
use crate::measure::{Arm, interleave};
use crate::process_cluster::limit_for;
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
        metadata_ttl: Some(std::time::Duration::from_secs(3600)),
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

/// Files that the kernel reads itself.
pub(super) fn passthrough(_: &Stage<'_>, wanted: &[&str]) -> Result<Vec<Row>> {
    let row = |case: &&str| {
        let figure = if case.contains("rand-4k") {
            "rate"
        } else {
            "throughput"
        };
        let note = "FUSE passthrough is not built yet";
        Row::without(SCENARIO, *case, figure, Status::NotBuilt, note)
    };
    Ok(wanted.iter().map(row).collect())
}
