//! The cases of a target that the user named: each order, size and number of jobs, in turn
//! with the same reads of local files.

use std::sync::Arc;

use anyhow::Result;

use super::SCENARIO;
use super::args::{Pattern, ReadArgs, TargetKind};
use super::dataset::Dataset;
use super::kernel;
use super::layout::{FileInfo, total};
use super::shape::Shape;
use super::source::Source;
use super::target::{Target, files};
use super::verify::{self, Verified};
use super::workload::{Length, Workload};
use crate::measure::{Arm, Spread, interleave};
use crate::record::{Better, Proof, Row};
use crate::scenario::Context;

/// The most bytes of local files that the target is held against.
const LOCAL_BYTES: u64 = 1 << 30;
/// The most files of which pages are counted where nothing is dropped.
const COUNTED_FILES: usize = 4096;
/// What the target is held against.
const LIMIT: &str = "local files, read likewise";

/// Measures a target.
///
/// # Errors
/// When it cannot be opened or listed, or the local files cannot be written.
pub(super) fn run(context: &Context, args: &ReadArgs, kind: TargetKind) -> Result<Vec<Row>> {
    let target = Target::open(context, args, kind)?;
    let files = files(&target)?;
    context.step("writing the local files to compare with");
    let local = Dataset::write(&context.new_dir("local")?, like(&files), context.seed)?;
    let mut cases = Cases {
        context,
        args,
        local: Source::Dir(local.dir().to_owned()),
        local_files: Arc::clone(local.files()),
        target,
        files,
    };
    let mut rows = cases.measure()?;
    if let Some(verified) = cases.verify() {
        for row in &mut rows {
            row.proof.verified_bytes = Some(verified.bytes);
            row.proof.mismatches = Some(verified.mismatches);
            if let Some(first) = &verified.first {
                row.note
                    .get_or_insert_default()
                    .insert_str(0, &format!("{first}; "));
            }
        }
    }
    rows.extend(relations(&rows, args, &cases.prefix()));
    Ok(rows)
}

/// Files of the same number and sizes, as long as they are not too many bytes.
pub(crate) fn like(files: &Arc<[FileInfo]>) -> Arc<[FileInfo]> {
    if total(files) <= LOCAL_BYTES {
        return Arc::clone(files);
    }
    let mut left = LOCAL_BYTES;
    let mut few = Vec::new();
    for info in &**files {
        let size = info.size.min(left);
        few.push(FileInfo {
            size,
            ..info.clone()
        });
        left -= size;
        if left == 0 {
            break;
        }
    }
    few.into()
}

fn length(args: &ReadArgs, context: &Context) -> Length {
    match args.common.duration {
        _ if args.pass => Length::Pass,
        Some(time) if args.cold => Length::PassWithin(time),
        None if args.cold => Length::Pass,
        _ => Length::Time(context.duration),
    }
}

struct Cases<'a> {
    context: &'a Context,
    args: &'a ReadArgs,
    target: Target<'a>,
    files: Arc<[FileInfo]>,
    local: Source,
    local_files: Arc<[FileInfo]>,
}

impl Cases<'_> {
    fn prefix(&self) -> String {
        let state = if self.args.cold { "cold" } else { "warm" };
        format!("{}/{state}", self.target.name())
    }

    fn measure(&mut self) -> Result<Vec<Row>> {
        if !self.args.cold {
            self.warm()?;
        }
        let mut rows = Vec::new();
        for shape in self.args.shapes() {
            let case = format!("{}/{}", self.prefix(), shape.name());
            if self.context.wanted.wants(&case) {
                rows.push(self.case(case, shape)?);
            }
        }
        Ok(rows)
    }

    /// Reads everything once, unmeasured, after what can be dropped was dropped: pages that a
    /// writer left behind are not read at the speed of those that a reader did.
    fn warm(&mut self) -> Result<()> {
        self.context.step("dropping caches");
        self.target.drop_caches(&self.files)?;
        if let Some(dir) = self.local.dir() {
            kernel::drop_pages(dir, &self.local_files)?;
        }
        let both = [
            (&self.local, &self.local_files),
            (self.target.source(), &self.files),
        ];
        for (source, files) in both {
            self.context.step("warming up");
            let all = Workload::new(files, Shape::SEQUENTIAL, self.context.seed, 1);
            all.run(source, Length::Pass, &[], self.context.progress())?;
        }
        Ok(())
    }

    fn case(&mut self, case: String, shape: Shape) -> Result<Row> {
        let Self {
            context,
            args,
            target,
            files,
            local,
            local_files,
        } = self;
        let (length, cold, progress) = (length(args, context), args.cold, context.progress());
        let stride = args.stride.unwrap_or(16);
        let workload = |files| Workload::new(files, shape, context.seed, stride);
        let (ours, theirs) = (workload(files), workload(local_files));
        let pids = target.pids();
        let before = target.ufs_use()?;
        let mut kernel_cache = None;
        let local_run = |round: usize, what: &str| {
            context.step(format!("{case}, run {}, {what}", round + 1));
            if let (true, Some(dir)) = (cold, local.dir()) {
                kernel::drop_pages(dir, local_files)?;
            }
            theirs.run(local, length, &[], progress)
        };
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new(LIMIT, |round| local_run(round, LIMIT)),
                Arm::new(case.clone(), |round| {
                    if cold {
                        context.step(format!("{case}, run {}, dropping caches", round + 1));
                        kernel_cache = target.drop_caches(files)?;
                    }
                    context.step(format!("{case}, run {}", round + 1));
                    ours.run(target.source(), length, &pids, progress)
                }),
                Arm::new("the instrument", |round| local_run(round, "once more")),
            ],
        )?;
        if let (false, Some(dir), true) =
            (cold, target.source().dir(), files.len() <= COUNTED_FILES)
        {
            kernel_cache = Some(kernel::kept(dir, files)?);
        }
        let after = target.ufs_use()?;
        let figure = shape.figure();
        let [limit, ours, again] = &samples[..] else {
            anyhow::bail!("three arms make three lists of samples");
        };
        let used = before.zip(after).map(|(before, after)| after - before);
        let row = Row::measured(SCENARIO, case, figure, ours)
            .against(LIMIT, figure, limit)
            .proved(Proof {
                ufs_requests: used.map(|used| used.requests),
                ufs_bytes: used.map(|used| used.bytes),
                kernel_cache,
                ..Proof::default()
            });
        let mut notes = Vec::new();
        let itself = Row::measured(SCENARIO, "", figure, again).against(LIMIT, figure, limit);
        if let Some(itself) = itself.ratio {
            notes.push(format!(
                "the instrument's own error: the local files against themselves, in the same \
                 rounds, {:.3} ({:.3} to {:.3})",
                itself.median, itself.min, itself.max
            ));
        }
        if cold {
            notes.push(target.not_dropped().to_owned());
        }
        if local_files.len() != files.len() || total(local_files) != total(files) {
            notes.push(format!(
                "held against the first {} MiB only",
                total(local_files) >> 20
            ));
        }
        Ok(row.noted(notes.join("; ")))
    }

    fn verify(&self) -> Option<Verified> {
        let dir = self.args.verify_against.as_ref()?;
        self.context.step("comparing every byte");
        Some(verify::against_dir(self.target.source(), &self.files, dir))
    }
}

/// How the cases hang together: one job against the best number of jobs, another order
/// against sequential reads, where both were measured.
fn relations(rows: &[Row], args: &ReadArgs, prefix: &str) -> Vec<Row> {
    let throughput = |shape: Shape| {
        let case = format!("{prefix}/{}", shape.name());
        let row = rows.iter().find(|row| row.case == case)?;
        row.detail.gb_per_second.clone()
    };
    let ratio = |case: String, figure: &str, value: &Spread, of: &Spread, name: &str| {
        let ratio = Spread::ratio(value, of)?;
        let row = Row::of(SCENARIO, case, figure, "ratio", Better::Higher, ratio);
        Some(row.noted(format!("{name}, in GB/s")))
    };
    let shapes = args.shapes();
    let mut found = Vec::new();
    for shape in &shapes {
        let case = format!("{prefix}/{}", shape.reads());
        if shape.jobs == 1 {
            let all = shapes.iter().filter(|other| other.reads() == shape.reads());
            let all: Vec<_> = all.filter_map(|other| throughput(*other)).collect();
            let best = best_of(&all);
            if let (Some(one), Some(best), true) = (throughput(*shape), best, all.len() > 1) {
                let name = "1 job against the best number of jobs";
                found.extend(ratio(case, "one-thread", &one, &best, name));
            }
        }
        let sequential = Shape {
            pattern: Pattern::Sequential,
            ..*shape
        };
        if *shape != sequential
            && let (Some(value), Some(of)) = (throughput(*shape), throughput(sequential))
        {
            let case = format!("{prefix}/{}", shape.name());
            let name = "against sequential reads of the same size";
            found.extend(ratio(case, "over-sequential", &value, &of, name));
        }
    }
    found
}

/// The best of several in each round.
pub(super) fn best_of(all: &[Spread]) -> Option<Spread> {
    let rounds = all.iter().map(|one| one.values.len()).min()?;
    Spread::of((0..rounds).map(|round| {
        let values = all.iter().map(|one| one.values[round]);
        values.fold(0.0, f64::max)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64) -> FileInfo {
        FileInfo {
            path: size.to_string(),
            size,
        }
    }

    #[test]
    fn local_files_are_like_the_targets_but_not_too_large() {
        let small: Arc<[FileInfo]> = vec![file(5), file(0)].into();
        assert_eq!(like(&small), small);
        let large: Arc<[FileInfo]> = vec![file(LOCAL_BYTES - 1), file(100), file(7)].into();
        let few = like(&large);
        assert_eq!(total(&few), LOCAL_BYTES);
        assert_eq!(few.len(), 2);
    }

    #[test]
    fn the_best_is_taken_round_by_round() {
        let all = [[1.0, 5.0], [2.0, 4.0]].map(|values| Spread::of(values).unwrap());
        assert_eq!(best_of(&all).unwrap().values, [2.0, 5.0]);
        assert_eq!(best_of(&[]), None);
    }
}
