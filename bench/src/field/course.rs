//! What is done to each mount, in which order.

use std::path::Path;

use anyhow::{Result, bail};

use super::scene::{Mounted, Scene};
use super::tools::{self, Fio};
use super::{CASES, Found, Setup, name};
use crate::measure::{Sample, interrupt};
use crate::read::source::Source;
use crate::read::verify;
use crate::small_files::work::{Task, Work};

/// One round: four mounts, one after the other, each of which has read nothing before.
///
/// # Errors
/// When a mount does not come up or a read fails; after Ctrl-C.
pub(super) fn run(scene: &Scene<'_>, setup: Setup, found: &mut Found) -> Result<()> {
    let leg = Leg { scene, setup };
    let one = [
        "cold/ls-lR",
        "warm/ls-lR",
        "cold/dd",
        "cold/dd-of-ranges",
        "warm/dd",
        "reread/dd",
        "warm/fio-4k-1job",
        "warm/fio-4k-4jobs",
        "warm/fio-128k-1job",
        "warm/fio-128k-4jobs",
        "warm/fio-4k-buffered",
        "memory",
    ];
    if leg.wants(&one) {
        leg.one_file(found)?;
    }
    if leg.wants(&["cold/4-dd", "warm/4-dd", "reread/4-dd"]) {
        leg.four_files(found)?;
    }
    if leg.wants(&["cold/small-1"]) {
        let mounted = leg.mount()?;
        leg.step("cold/small-1");
        found.add("cold/small-1", leg.small(&mounted, 1)?);
    }
    let small = [
        "cold/small-8",
        "warm/small-1",
        "warm/small-8",
        "reread/small-1",
        "reread/small-8",
        "memory",
    ];
    if leg.wants(&small) {
        leg.small_files(found)?;
    }
    Ok(())
}

/// Random reads as the cases have them.
pub(super) const fn fio(scene: &Scene<'_>, block: &'static str, jobs: u32, direct: bool) -> Fio {
    Fio {
        block,
        jobs,
        direct,
        time: scene.context.duration,
    }
}

/// Each small file opened, read and closed once, in order, by so many threads.
///
/// # Errors
/// When a file fails.
pub(super) fn small(
    scene: &Scene<'_>,
    root: &Path,
    workers: usize,
    pids: &[u32],
) -> Result<Sample> {
    let work = Work::new(Task::Read, root, scene.small(), scene.context.seed);
    let sample = work.workers(workers).run(None, pids)?;
    match &sample.first_error {
        Some(first) => bail!("{} files failed; the first: {first}", sample.errors),
        None => Ok(sample),
    }
}

struct Leg<'a> {
    scene: &'a Scene<'a>,
    setup: Setup,
}

impl Leg<'_> {
    fn one_file(&self, found: &mut Found) -> Result<()> {
        let mounted = self.mount()?;
        let (root, pids) = (&mounted.root, mounted.pids());
        for case in ["cold/ls-lR", "warm/ls-lR"] {
            self.step(case);
            found.add(case, tools::list(root, &pids)?);
        }
        let files = self.scene.large(root);
        let file = &files[..1];
        self.step("cold/dd");
        let cold = tools::dd(file, &pids)?;
        found.add("cold/dd-of-ranges", cold.clone());
        found.add("cold/dd", cold);
        self.scene.drop_caches();
        for case in ["warm/dd", "reread/dd"] {
            self.step(case);
            found.add(case, tools::dd(file, &pids)?);
        }
        self.scene.drop_caches();
        for (case, block, jobs) in [
            ("warm/fio-4k-1job", "4k", 1),
            ("warm/fio-4k-4jobs", "4k", 4),
            ("warm/fio-128k-1job", "128k", 1),
            ("warm/fio-128k-4jobs", "128k", 4),
        ] {
            if self.wants(&[case]) {
                self.step(case);
                let sample = fio(self.scene, block, jobs, true).run(&files[0], &pids)?;
                found.add(case, sample);
            }
        }
        let case = "warm/fio-4k-buffered";
        if self.wants(&[case]) {
            self.scene.drop_caches();
            self.step(case);
            let sample = fio(self.scene, "4k", 1, false).run(&files[0], &pids)?;
            found.add(case, sample);
        }
        self.finish(&mounted, found)
    }

    fn four_files(&self, found: &mut Found) -> Result<()> {
        let mounted = self.mount()?;
        let (files, pids) = (self.scene.large(&mounted.root), mounted.pids());
        self.step("cold/4-dd");
        found.add("cold/4-dd", tools::dd(&files, &pids)?);
        self.scene.drop_caches();
        for case in ["warm/4-dd", "reread/4-dd"] {
            self.step(case);
            found.add(case, tools::dd(&files, &pids)?);
        }
        self.finish(&mounted, found)
    }

    fn small_files(&self, found: &mut Found) -> Result<()> {
        let mounted = self.mount()?;
        self.step("cold/small-8");
        found.add("cold/small-8", self.small(&mounted, 8)?);
        for (warm, reread, workers) in [
            ("warm/small-1", "reread/small-1", 1),
            ("warm/small-8", "reread/small-8", 8),
        ] {
            self.scene.drop_caches();
            for case in [warm, reread] {
                self.step(case);
                found.add(case, self.small(&mounted, workers)?);
            }
        }
        let verified = found.verified.bytes == 0;
        if verified {
            self.scene.context.step("comparing every byte");
            let source = Source::Dir(mounted.root.clone());
            found.verified = verify::against_dataset(&source, &self.scene.data);
        }
        self.finish(&mounted, found)
    }

    fn small(&self, mounted: &Mounted, workers: usize) -> Result<Sample> {
        small(self.scene, &mounted.root, workers, &mounted.pids())
    }

    /// Takes note of the memory of a mount that is done.
    fn finish(&self, mounted: &Mounted, found: &mut Found) -> Result<()> {
        found.memory.push(mounted.memory()?);
        Ok(())
    }

    fn mount(&self) -> Result<Mounted> {
        interrupt::check()?;
        self.scene.mount(self.setup)
    }

    fn wants(&self, cases: &[&str]) -> bool {
        let wanted = |case: &&str| {
            debug_assert!(*case == "memory" || CASES.iter().any(|known| known.case == *case));
            self.scene.context.wanted.wants(&name(self.setup, case))
        };
        cases.iter().any(wanted)
    }

    fn step(&self, case: &str) {
        self.scene.context.step(name(self.setup, case));
    }
}
