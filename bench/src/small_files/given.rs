//! The cases of a directory that the user named, in turn with the same on local files.

use std::path::Path;

use anyhow::Result;
use millpond_process::UsageError;

use super::work::{Task, Work};
use super::{SCENARIO, SmallFilesArgs};
use crate::measure::{Arm, Sample, interleave};
use crate::read::dataset::Dataset;
use crate::read::given::like;
use crate::read::kernel;
use crate::read::layout::FileInfo;
use crate::read::source::Source;
use crate::record::{Figure, Row};
use crate::scenario::Context;

/// Measures a directory.
///
/// # Errors
/// When it cannot be listed or holds no file, or the local files cannot be written.
pub(super) fn run(context: &Context, args: &SmallFilesArgs, dir: &Path) -> Result<Vec<Row>> {
    context.step("listing the files");
    let files = Source::Dir(dir.to_owned()).files()?;
    if files.is_empty() {
        return Err(UsageError::new(format!("{} holds no file", dir.display())).into());
    }
    context.step("writing the local files to compare with");
    let local = Dataset::write(&context.new_dir("local")?, like(&files), context.seed)?;
    let beside = Beside {
        context,
        ours: dir,
        pids: &[],
        local: &local,
        limit: limit_name(local.dir()),
    };
    for (root, files) in [(dir, &files), (local.dir(), local.files())] {
        warm(context, root, files)?;
    }
    let ours = |task| Work::new(task, dir, &files, context.seed);
    let mut rows = Vec::new();
    for (name, task, unit) in [
        ("stat", Task::Stat, "stats/s"),
        ("ls-l", Task::LongList, "entries/s"),
    ] {
        rows.extend(beside.case(&format!("dir/{name}"), unit, 1, false, task, ours(task))?);
    }
    for workers in args.workers() {
        for (order, shuffled) in [("in-order", false), ("shuffled", true)] {
            let case = format!("dir/warm/{order}-{}", named(*workers));
            let work = ours(Task::Read);
            rows.extend(beside.case(&case, "files/s", *workers, shuffled, Task::Read, work)?);
        }
    }
    Ok(rows)
}

/// Reads everything once, into pages of the kernel that are as a reader leaves them.
///
/// # Errors
/// When files cannot be looked at; after Ctrl-C.
pub(super) fn warm(context: &Context, root: &Path, files: &[FileInfo]) -> Result<Sample> {
    context.step("warming up");
    kernel::drop_pages(root, files)?;
    Work::new(Task::Read, root, files, 0).run(None, &[])
}

/// `8workers`, `1worker`.
pub(super) fn named(workers: usize) -> String {
    let plural = if workers == 1 { "" } else { "s" };
    format!("{workers}worker{plural}")
}

/// What local files are called as a limit.
pub(super) fn limit_name(dir: &Path) -> String {
    format!("the same on local files ({})", file_system(dir))
}

/// The file system that a directory is on.
fn file_system(dir: &Path) -> String {
    let known = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x0102_1994, "tmpfs"),
        (0x794c_7630, "overlayfs"),
        (0x2fc1_2fc1, "zfs"),
        (0x6573_5546, "FUSE"),
    ];
    match rustix::fs::statfs(dir) {
        Ok(found) => {
            let magic = found.f_type as u64;
            let name = known.into_iter().find(|(number, _)| *number == magic);
            name.map_or_else(
                || format!("file system {magic:#x}"),
                |(_, name)| name.to_owned(),
            )
        }
        Err(_) => "unknown file system".to_owned(),
    }
}

/// A directory beside local files.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    pub(super) context: &'a Context,
    pub(super) ours: &'a Path,
    /// The processes behind the directory, where they are known.
    pub(super) pids: &'a [u32],
    pub(super) local: &'a Dataset,
    pub(super) limit: String,
}

impl Beside<'_> {
    /// Runs of the directory's `work` in turn with runs of the same task on the local files, if
    /// the case is wanted.
    ///
    /// # Errors
    /// After Ctrl-C.
    pub(super) fn case(
        &self,
        case: &str,
        unit: &'static str,
        workers: usize,
        shuffled: bool,
        task: Task,
        work: Work,
    ) -> Result<Option<Row>> {
        if !self.context.wanted.wants(case) {
            return Ok(None);
        }
        let context = self.context;
        let local = Work::new(task, self.local.dir(), self.local.files(), context.seed);
        let [ours, theirs] = [work, local].map(|work| work.workers(workers).shuffled(shuffled));
        let time = Some(context.duration);
        let run = |name: &str, work: &Work, pids: &[u32]| {
            context.step(name);
            work.run(time, pids)
        };
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new(case, |_| run(case, &ours, self.pids)),
                Arm::new(&*self.limit, |_| run(&self.limit, &theirs, &[])),
            ],
        )?;
        let row = Row::measured(SCENARIO, case, Figure::Ops(unit), &samples[0]);
        Ok(Some(row.against(
            &self.limit,
            Figure::Ops(unit),
            &samples[1],
        )))
    }
}
