//! Cases that share a set-up, measured in turn.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Error, Result};
use millpond_fuse::MountError;
use millpond_proto::ErrorKind;
use thiserror::Error;

use crate::measure::{Arm, Sample, interleave, interrupt};
use crate::record::{Figure, KernelCache, Proof, Row, Status};
use crate::scenario::Context;

/// How long and how often.
pub(super) struct Plan<'a> {
    pub(super) context: &'a Context,
    pub(super) rounds: usize,
    pub(super) duration: Duration,
}

/// A case, and what it is about.
pub(super) type Case = (&'static str, Figure);

/// Reads per second.
pub(super) const READS: Figure = Figure::Ops("reads/s");
/// Bytes per second.
pub(super) const BYTES: Figure = Figure::Throughput;

/// What is set up once for a group of cases.
pub(super) trait Bench {
    /// One run of a case.
    ///
    /// # Errors
    /// [`Impossible`] when this machine cannot; anything else is a failure.
    fn measure(&self, case: &str, duration: Duration) -> Result<Measured>;

    /// What the case is divided by, run in turn with it.
    fn limit(&self) -> Option<(&str, &dyn Bench)> {
        None
    }

    /// What was checked while it was set up.
    fn proof(&self) -> Proof {
        Proof::default()
    }

    /// What a reader should know.
    fn note(&self) -> Option<String> {
        None
    }
}

/// What one run did, and what became of the kernel's pages before it.
pub(super) struct Measured {
    sample: Sample,
    cache: Option<KernelCache>,
}

impl From<Sample> for Measured {
    fn from(sample: Sample) -> Self {
        Self {
            sample,
            cache: None,
        }
    }
}

impl From<(Sample, KernelCache)> for Measured {
    fn from((sample, cache): (Sample, KernelCache)) -> Self {
        Self {
            sample,
            cache: Some(cache),
        }
    }
}

/// This machine or user cannot; the message says what is missing.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct Impossible(pub(super) String);

impl Plan<'_> {
    /// Measures those of `cases` that are wanted; they are called `group/case`. Nothing is set
    /// up when none is.
    ///
    /// # Errors
    /// When interrupted. What fails becomes rows that say so.
    pub(super) fn group<B: Bench>(
        &self,
        group: &str,
        cases: &[Case],
        set_up: impl FnOnce() -> Result<B>,
    ) -> Result<Vec<Row>> {
        let name = |case: &str| format!("{group}/{case}");
        let wanted = |case: &&Case| self.context.wanted.wants(&name(case.0));
        let cases: Vec<Case> = cases.iter().filter(wanted).copied().collect();
        if cases.is_empty() {
            return Ok(Vec::new());
        }
        interrupt::check()?;
        self.context.step(group);
        let bench = match set_up() {
            Ok(bench) => bench,
            Err(error) => {
                let row = |case: &Case| without(name(case.0), case.1, &error);
                return Ok(cases.iter().map(row).collect());
            }
        };
        let runs: Vec<Runs<'_>> = cases.iter().map(|case| Runs::new(&bench, case.0)).collect();
        let limits: Vec<Runs<'_>> = match bench.limit() {
            Some((_, limit)) => cases.iter().map(|case| Runs::new(limit, case.0)).collect(),
            None => Vec::new(),
        };
        let mut arms: Vec<Arm<'_>> = Vec::new();
        for (index, (case, _)) in cases.iter().enumerate() {
            let (duration, title) = (self.duration, name(case));
            for runs in [runs.get(index), limits.get(index)].into_iter().flatten() {
                let context = self.context;
                let title = title.clone();
                arms.push(Arm::new(title.clone(), move |round| {
                    context.step(format!("{title}, run {}", round + 1));
                    Ok(runs.run(duration))
                }));
            }
        }
        let samples = interleave(self.rounds, &mut arms)?;
        drop(arms);
        let mut samples = samples.into_iter();
        let mut rows = Vec::new();
        for (index, (case, figure)) in cases.iter().enumerate() {
            let values = samples.next().unwrap_or_default();
            let beside = limits.get(index).and_then(|_| samples.next());
            let failed = runs[index].take_error();
            let failed = failed.or_else(|| limits.get(index)?.take_error());
            if let Some(error) = failed {
                rows.push(without(name(case), *figure, &error));
                continue;
            }
            let mut row = Row::measured(super::SCENARIO, name(case), *figure, &values);
            if let (Some(beside), Some((limit, _))) = (beside, bench.limit()) {
                row = row.against(limit, *figure, &beside);
            }
            row.note = bench.note();
            rows.push(row.proved(Proof {
                kernel_cache: runs[index].state.borrow().cache.clone(),
                ..bench.proof()
            }));
        }
        Ok(rows)
    }
}

/// The runs of one case so far. A case that failed is not tried again.
struct Runs<'b> {
    bench: &'b dyn Bench,
    case: &'static str,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    error: Option<Error>,
    cache: Option<KernelCache>,
}

impl<'b> Runs<'b> {
    fn new(bench: &'b dyn Bench, case: &'static str) -> Self {
        Self {
            bench,
            case,
            state: RefCell::default(),
        }
    }

    fn run(&self, duration: Duration) -> Sample {
        let mut state = self.state.borrow_mut();
        if state.error.is_some() {
            return Sample::default();
        }
        match self.bench.measure(self.case, duration) {
            Ok(measured) => {
                state.cache = measured.cache;
                measured.sample
            }
            Err(error) => {
                state.error = Some(error);
                Sample::default()
            }
        }
    }

    fn take_error(&self) -> Option<Error> {
        self.state.borrow_mut().error.take()
    }
}

fn without(case: String, figure: Figure, error: &Error) -> Row {
    let status = if is_impossible(error) {
        Status::Impossible
    } else {
        Status::Failed
    };
    let why = millpond_process::run::chain(error);
    Row::without(super::SCENARIO, case, figure.name(), status, why)
}

fn is_impossible(error: &Error) -> bool {
    error.chain().any(|cause| {
        let denied = cause.downcast_ref::<MountError>().map(MountError::kind);
        cause.is::<Impossible>()
            || matches!(denied, Some(ErrorKind::Denied | ErrorKind::Unsupported))
    })
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;
    use crate::scenario::{CommonArgs, OutputArgs};

    struct Fake;

    impl Bench for Fake {
        fn measure(&self, case: &str, duration: Duration) -> Result<Measured> {
            match case {
                "fails" => bail!("the cable is out"),
                "cannot" => Err(Impossible("there is no cable".to_owned()).into()),
                _ => Ok(Sample {
                    elapsed: duration,
                    bytes: 10,
                    ..Sample::default()
                }
                .into()),
            }
        }

        fn limit(&self) -> Option<(&str, &dyn Bench)> {
            Some(("itself", self))
        }
    }

    fn rows(wanted: &[&str], set_up: impl FnOnce() -> Result<Fake>) -> Vec<Row> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _within = runtime.enter();
        let args = CommonArgs {
            seed: 1,
            runs: None,
            duration: None,
            quick: true,
            cases: wanted.iter().map(|&case| case.to_owned()).collect(),
            processes: false,
            work_dir: None,
            output: OutputArgs::default(),
        };
        let context = Context::new(&args).unwrap();
        let plan = Plan {
            context: &context,
            rounds: 2,
            duration: Duration::from_millis(1),
        };
        let cases = [("fails", BYTES), ("works", BYTES), ("cannot", READS)];
        plan.group("fake", &cases, set_up).unwrap()
    }

    #[test]
    fn one_failure_spoils_one_row() {
        let rows = rows(&[], || Ok(Fake));
        let found: Vec<_> = rows.iter().map(|row| (row.id(), row.status)).collect();
        assert_eq!(
            found,
            [
                ("limits/fake/fails/throughput".to_owned(), Status::Failed),
                ("limits/fake/works/throughput".to_owned(), Status::Measured),
                ("limits/fake/cannot/rate".to_owned(), Status::Impossible),
            ]
        );
        assert_eq!(rows[0].note.as_deref(), Some("the cable is out"));
        assert_eq!(rows[1].ratio.as_ref().unwrap().values, [1.0, 1.0]);
    }

    #[test]
    fn what_is_not_wanted_is_not_set_up_and_a_failed_set_up_is_all_cases() {
        assert!(rows(&["other"], || panic!("nobody wants it")).is_empty());
        let rows = rows(&["fake"], || bail!("no room"));
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row.status == Status::Failed));
    }
}
