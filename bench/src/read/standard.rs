//! The cases that the goals name, on mounts and clusters of our own.
//!
//! | module | holds |
//! |---|---|
//! | `warm` | the kernel's pages, and the memory tier of a mount |
//! | `ring` | three nodes |
//! | `cold` | a store with the shape of S3 |
//! | `library` | the client library without a mount |

mod cold;
mod library;
mod ring;
mod warm;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use millpond_fuse::preflight;
use millpond_process::Size;

use super::SCENARIO;
use super::args::ReadArgs;
use super::dataset::Dataset;
use super::gaps;
use super::layout::FileInfo;
use super::shape::Shape;
use super::source::Source;
use super::verify::{self, Verified};
use super::workload::{Length, Workload};
use crate::measure::{Sample, interrupt};
use crate::process_cluster::Mount;
use crate::record::{KernelCache, Proof, Row, Status};
use crate::scenario::Context;

/// The file that is read.
const FILE: &str = "data";
/// How long mounts believe attributes here, so that nothing but data could be asked of a store.
const LONG_TTL: [&str; 2] = ["--metadata-ttl", "1h"];

/// Cases that share what they are measured on.
struct Group {
    /// Case and figure.
    cases: &'static [gaps::Case],
    /// Measures the cases that are wanted.
    run: fn(&Stage<'_>, &[&str]) -> Result<Vec<Row>>,
}

const GROUPS: [Group; 6] = [
    Group {
        cases: &[
            ("fuse/kernel-warm/seq-1m-1job", "throughput"),
            ("fuse/kernel-warm/rand-4k-1job", "rate"),
            ("fuse/kernel-warm/mmap-1job", "throughput"),
        ],
        run: warm::kernel,
    },
    Group {
        cases: &[
            ("fuse/tier-warm/seq-1m-1job", "throughput"),
            ("fuse/tier-warm/seq-1m-4jobs", "throughput"),
            ("fuse/tier-warm/seq-128k-1job", "throughput"),
            ("fuse/tier-warm/rand-4k-4jobs", "rate"),
        ],
        run: warm::tier,
    },
    Group {
        cases: &[
            ("fuse/passthrough/seq-1m-1job", "throughput"),
            ("fuse/passthrough/seq-1m-4jobs", "throughput"),
            ("fuse/passthrough/rand-4k-1job", "rate"),
            ("fuse/passthrough/mmap-1job", "throughput"),
        ],
        run: warm::passthrough,
    },
    Group {
        cases: &[
            ("fuse/ring/seq-1m-4jobs", "throughput"),
            ("fuse/ring/one-thread", "ratio"),
            ("fuse/ring/rand-256k-1job", "throughput"),
            ("library/ring/seq-1m-4jobs", "throughput"),
        ],
        run: ring::run,
    },
    Group {
        cases: &[
            ("fuse/cold/seq-1m-1job", "throughput"),
            ("fuse/cold/first-byte", "p50"),
            ("fuse/cold/rand-4k-bytes", "amplification"),
        ],
        run: cold::run,
    },
    Group {
        cases: &[
            ("library/tier-warm/seq-1m-1job", "throughput"),
            ("library/tier-warm/rand-4k-4jobs", "rate"),
        ],
        run: library::run,
    },
];

/// Measures the wanted ones of all cases. A group that fails leaves rows that say so.
///
/// # Errors
/// When the data cannot be written; after Ctrl-C.
pub(super) fn run(context: &Context, args: &ReadArgs) -> Result<Vec<Row>> {
    let mut all = GROUPS.iter().flat_map(|group| group.cases);
    if !all.any(|(case, _)| context.wanted.wants(case)) {
        return Ok(Vec::new());
    }
    let stage = Stage::new(context, args)?;
    let may_mount = preflight::check_right();
    let mut rows = Vec::new();
    for group in &GROUPS {
        interrupt::check()?;
        rows.extend(group.measure(&stage, may_mount.as_ref().err())?);
    }
    Ok(rows)
}

impl Group {
    fn measure(
        &self,
        stage: &Stage<'_>,
        no_mount: Option<&millpond_fuse::MountError>,
    ) -> Result<Vec<Row>> {
        let context = stage.context;
        let mut rows = Vec::new();
        if let Some(why) = no_mount {
            let fuse = |(case, _): &&gaps::Case| case.starts_with("fuse/");
            let fuse: Vec<_> = self.cases.iter().filter(fuse).copied().collect();
            let (status, why) = (Status::Impossible, why.to_string());
            gaps::fill(context, SCENARIO, &fuse, &mut rows, status, &why);
        }
        let cases = self.cases.iter().map(|(case, _)| *case);
        let open: Vec<_> = cases
            .filter(|case| context.wanted.wants(case))
            .filter(|case| !rows.iter().any(|row| row.case == *case))
            .collect();
        if open.is_empty() {
            return Ok(rows);
        }
        let why = match (self.run)(stage, &open) {
            Ok(measured) => {
                rows.extend(measured);
                "it was not measured".to_owned()
            }
            Err(error) => {
                interrupt::check()?;
                format!("{error:#}")
            }
        };
        gaps::fill(
            context,
            SCENARIO,
            self.cases,
            &mut rows,
            Status::Failed,
            &why,
        );
        Ok(rows)
    }
}

/// What all groups work with.
#[derive(Debug)]
struct Stage<'a> {
    context: &'a Context,
    /// One file called [`FILE`].
    data: Dataset,
}

impl<'a> Stage<'a> {
    fn new(context: &'a Context, args: &ReadArgs) -> Result<Self> {
        let usual = Size::mib(context.pick(256, 64));
        let size = args.size.unwrap_or(usual).bytes();
        context.step(format!("writing {} MiB of data", size >> 20));
        let files: Arc<[FileInfo]> = one_file(FILE, size);
        let data = Dataset::write(&context.new_dir("data")?, files, context.seed)?;
        Ok(Self { context, data })
    }

    fn size(&self) -> u64 {
        self.data.files()[0].size
    }

    /// The store that holds the data.
    fn uri(&self) -> String {
        format!("file://{}", self.data.dir().display())
    }

    /// The store itself, as a directory.
    fn local(&self) -> Source {
        Source::Dir(self.data.dir().to_owned())
    }

    /// A memory tier that holds all data with room to spare, as the flag takes it.
    fn ample_memory(&self) -> Size {
        Size::mib(self.size() / (512 << 10) + 64)
    }

    fn workload(&self, files: &Arc<[FileInfo]>, shape: Shape) -> Workload {
        Workload::new(files, shape, self.context.seed, 1)
    }

    /// Reads everything once, unmeasured, into pages of the kernel that are as a reader leaves
    /// them: those that a writer left behind are not read at the same speed.
    fn warm(&self, source: &Source) -> Result<()> {
        self.context.step("warming up");
        if let Some(dir) = source.dir() {
            super::kernel::drop_pages(dir, self.data.files())?;
        }
        let once = self.workload(self.data.files(), Shape::SEQUENTIAL);
        let sample = once.run(source, Length::Pass, &[], self.context.progress())?;
        fail_on_errors(&sample)
    }

    fn run(
        &self,
        case: &str,
        workload: &Workload,
        source: &Source,
        pids: &[u32],
    ) -> Result<Sample> {
        self.context.step(case);
        let length = Length::Time(self.context.duration);
        workload.run(source, length, pids, self.context.progress())
    }

    /// Passes, each after the kernel dropped its pages of the files below `dir`; what the last
    /// drop did is left in `dropped`.
    fn run_dropped(
        &self,
        case: &str,
        workload: &Workload,
        (dir, files): (&Path, &[FileInfo]),
        pids: &[u32],
        dropped: &mut Option<KernelCache>,
    ) -> Result<Sample> {
        self.context.step(case);
        let (time, progress) = (self.context.duration, self.context.progress());
        let source = Source::Dir(dir.to_owned());
        workload.passes(&source, time, pids, progress, || {
            *dropped = Some(super::kernel::drop_pages(dir, files)?);
            Ok(())
        })
    }

    fn verify(&self, source: &Source) -> Verified {
        self.context.step("comparing every byte");
        verify::against_dataset(source, &self.data)
    }
}

fn one_file(path: &str, size: u64) -> Arc<[FileInfo]> {
    let path = path.to_owned();
    vec![FileInfo { path, size }].into()
}

fn fail_on_errors(sample: &Sample) -> Result<()> {
    match &sample.first_error {
        Some(first) => anyhow::bail!("{} reads failed; the first: {first}", sample.errors),
        None => Ok(()),
    }
}

/// A proof by what was asked of the store.
fn asked(used: crate::cluster::UfsUse, kernel_cache: Option<KernelCache>) -> Proof {
    Proof {
        ufs_requests: Some(used.requests),
        ufs_bytes: Some(used.bytes),
        kernel_cache,
        ..Proof::default()
    }
}

/// Bytes that a mount handed out so far, by where they came from.
#[derive(Debug, Clone, Copy)]
struct HandedOut {
    all: f64,
    memory: f64,
    peer: f64,
}

impl HandedOut {
    fn by(mount: &Mount) -> Result<Self> {
        let metrics = mount.metrics()?;
        let sum = |labels: &[&str]| metrics.sum("millpond_client_read_bytes_total", labels);
        Ok(Self {
            all: sum(&[]),
            memory: sum(&["source=\"memory\""]),
            peer: sum(&["source=\"peer\""]),
        })
    }

    /// The shares of memory and of peers since `earlier`.
    fn shares_since(self, earlier: Self) -> (f64, f64) {
        let all = self.all - earlier.all;
        (
            (self.memory - earlier.memory) / all,
            (self.peer - earlier.peer) / all,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_case_comes_twice_and_all_are_below_their_access() {
        let mut cases: Vec<_> = GROUPS.iter().flat_map(|group| group.cases).collect();
        assert!(
            cases
                .iter()
                .all(|(case, _)| { case.starts_with("fuse/") || case.starts_with("library/") })
        );
        let all = cases.len();
        cases.sort_unstable();
        cases.dedup();
        assert_eq!(cases.len(), all);
    }
}
