//! All scenarios, run one after the other for `all` and `check`.

use std::time::Instant;

use anyhow::Result;

use crate::goals::{Goal, judge};
use crate::measure::interrupt;
use crate::record::{GoalRow, Row, Status};
use crate::scenario::{CommonArgs, Context, Wanted};
use crate::{
    accelerators, checkpoint, epochs, faults, field, herd, limits, memory, peer, read, ring,
    small_files,
};

type Run = fn(&Context, CommonArgs) -> Result<Vec<Row>>;

/// Each scenario with its own defaults, in the order in which they run: what says most first.
const SCENARIOS: [(&str, Run); 12] = [
    ("read", |c, a| read::run(c, &read::ReadArgs::standard(a))),
    ("small-files", |c, a| {
        small_files::run(c, &small_files::SmallFilesArgs::standard(a))
    }),
    ("peer", |c, a| peer::run(c, &peer::PeerArgs::standard(a))),
    ("herd", |c, a| herd::run(c, &herd::HerdArgs::standard(a))),
    ("epochs", |c, a| {
        epochs::run(c, &epochs::EpochsArgs::standard(a))
    }),
    ("faults", |c, a| {
        faults::run(c, &faults::FaultsArgs::standard(a))
    }),
    ("memory", |c, a| {
        memory::run(c, &memory::MemoryArgs::standard(a))
    }),
    ("accelerators", |c, a| {
        accelerators::run(c, &accelerators::AcceleratorsArgs::standard(a))
    }),
    ("checkpoint", |c, a| {
        checkpoint::run(c, &checkpoint::CheckpointArgs::standard(a))
    }),
    ("ring", |c, a| ring::run(c, &ring::RingArgs::standard(a))),
    ("field", |c, a| {
        field::run(c, &field::FieldArgs::standard(a))
    }),
    ("limits", |c, a| {
        limits::run(c, &limits::LimitsArgs::standard(a))
    }),
];

/// What `all` and `check` measure.
#[derive(Debug)]
pub enum Plan {
    /// Every case of every scenario.
    Everything,
    /// Just the cases that the goals need.
    Goals,
}

/// Runs the scenarios, and holds what they found against `goals`. A scenario that fails
/// leaves a row that says so, and the others go on. After each of them `keep` is given all that
/// was found until then.
///
/// # Errors
/// When it is interrupted, or no working directory can be made; those of `keep`.
pub fn run(
    context: &Context,
    common: &CommonArgs,
    plan: &Plan,
    goals: &[Goal],
    keep: impl Fn(&[Row], &[GoalRow]) -> Result<()>,
) -> Result<(Vec<Row>, Vec<GoalRow>)> {
    let mut figures = Vec::new();
    let mut judged = Vec::new();
    for (name, scenario) in SCENARIOS {
        let cases = goals
            .iter()
            .filter(|goal| goal.scenario == name)
            .map(|goal| &goal.case);
        let wanted = match plan {
            Plan::Everything => Wanted::all(),
            Plan::Goals => Wanted::of(cases),
        };
        if matches!(plan, Plan::Goals) && wanted.cases().is_empty() {
            continue;
        }
        interrupt::check()?;
        context.step(name);
        let begun = Instant::now();
        let found = scenario(&context.with_wanted(wanted)?, common.clone());
        interrupt::check()?;
        tracing::info!(
            scenario = name,
            seconds = begun.elapsed().as_secs_f64(),
            "measured"
        );
        match found {
            Ok(rows) => figures.extend(rows),
            Err(error) => {
                tracing::warn!(scenario = name, error = format!("{error:#}"), "failed");
                figures.push(Row::without(
                    name,
                    "",
                    "",
                    Status::Failed,
                    format!("{error:#}"),
                ));
            }
        }
        judged = goals.iter().map(|goal| judge(goal, &figures)).collect();
        keep(&figures, &judged)?;
    }
    Ok((figures, judged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goals::Goals;

    #[test]
    fn every_goal_has_a_scenario() {
        for goal in Goals::built_in().unwrap().all() {
            let known = SCENARIOS.iter().any(|(name, _)| *name == goal.scenario);
            assert!(known, "{} needs {}", goal.id, goal.scenario);
        }
    }
}
