//! Runs as the report shows them: with names that tell them apart, each figure with the goal
//! that it decides.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::goals::{Comparison, Goal, Goals, judge};
use crate::measure::Spread;
use crate::record::{Better, GoalRow, Row, RunRecord, Status};

/// All runs.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) runs: Vec<Run<'a>>,
}

/// One run.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) record: &'a RunRecord,
    /// The run's label, and its number where several have the same.
    pub(super) label: String,
    /// Its goals, the worst first.
    pub(super) goals: Vec<Judged>,
    /// Its figures, in the order of the run.
    pub(super) entries: Vec<Entry<'a>>,
}

/// A goal as the run met it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) row: GoalRow,
    /// 1 just meets it, less misses it.
    pub(super) score: Option<f64>,
}

/// A figure with the goal that it decides.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) row: &'a Row,
    pub(super) goal: Option<Goal>,
}

impl<'a> View<'a> {
    pub(super) fn of(records: &'a [RunRecord]) -> Result<Self> {
        let goals = Goals::built_in()?;
        let labels = labels(records);
        let runs = records.iter().zip(labels);
        Ok(Self {
            runs: runs
                .map(|(record, label)| Run::of(record, label, goals.all()))
                .collect(),
        })
    }

    /// Whether there is something to set side by side.
    pub(super) const fn several(&self) -> bool {
        self.runs.len() > 1
    }

    /// The figures of all runs by name, in the order in which they come first; for each the
    /// entry of each run.
    pub(super) fn by_id(&self) -> Vec<(String, Vec<Option<&Entry<'a>>>)> {
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        let mut all: Vec<(String, Vec<Option<&Entry<'a>>>)> = Vec::new();
        for (number, run) in self.runs.iter().enumerate() {
            for entry in &run.entries {
                let id = entry.row.id();
                let place = *index.entry(id.clone()).or_insert_with(|| {
                    all.push((id, vec![None; self.runs.len()]));
                    all.len() - 1
                });
                all[place].1[number].get_or_insert(entry);
            }
        }
        all
    }
}

impl<'a> Run<'a> {
    fn of(record: &'a RunRecord, label: String, goals: &[Goal]) -> Self {
        let goal_of = |row: &Row| {
            let same = |goal: &&Goal| {
                (&goal.scenario, &goal.case, &goal.figure)
                    == (&row.scenario, &row.case, &row.figure)
            };
            goals.iter().find(same).cloned()
        };
        let entries: Vec<Entry<'_>> = record
            .figures
            .iter()
            .map(|row| Entry {
                row,
                goal: goal_of(row),
            })
            .collect();
        let judged: Vec<GoalRow> = if record.goals.is_empty() {
            // A scenario on its own decides the goals whose figures it took.
            let decided = entries.iter().filter_map(|entry| entry.goal.as_ref());
            decided.map(|goal| judge(goal, &record.figures)).collect()
        } else {
            record.goals.clone()
        };
        let mut goals: Vec<Judged> = judged
            .into_iter()
            .map(|row| Judged {
                score: score(&row, goals),
                row,
            })
            .collect();
        goals.sort_by(|a, b| {
            let key = |judged: &Judged| judged.score.unwrap_or(f64::MAX);
            a.row.met.cmp(&b.row.met).then(key(a).total_cmp(&key(b)))
        });
        Self {
            record,
            label,
            goals,
            entries,
        }
    }

    /// Goals that are met.
    pub(super) fn met(&self) -> usize {
        self.goals.iter().filter(|goal| goal.row.met).count()
    }

    /// Goals that were measured and missed.
    pub(super) fn missed(&self) -> usize {
        self.goals
            .iter()
            .filter(|goal| !goal.row.met && goal.row.ratio.is_some())
            .count()
    }

    /// Goals without a figure, which count as missed too.
    pub(super) fn without_figure(&self) -> usize {
        self.goals.len() - self.met() - self.missed()
    }
}

impl Entry<'_> {
    /// What the goal is about, or what is compared where there is none: the ratio to the
    /// limit, else the figure if it is a ratio itself.
    pub(super) fn ratio(&self) -> Option<&Spread> {
        let undivided = self
            .goal
            .as_ref()
            .is_some_and(|goal| goal.divided_by.is_none());
        let value = self.row.value.as_ref().filter(|_| self.row.unit == "ratio");
        let ratio = self.row.ratio.as_ref();
        if undivided {
            value.or(ratio)
        } else {
            ratio.or(value)
        }
    }

    /// Whether the ratio is the better the more it is.
    pub(super) fn higher_is_better(&self) -> bool {
        match &self.goal {
            Some(goal) => goal.comparison == Comparison::AtLeast,
            None => self.row.better == Better::Higher,
        }
    }

    /// The goal for [`ratio`](Self::ratio), where it is about a ratio.
    pub(super) fn goal_value(&self) -> Option<f64> {
        let goal = self.goal.as_ref()?;
        (goal.divided_by.is_some() || self.row.unit == "ratio").then_some(goal.value)
    }

    /// Whether the goal is met; `None` without a goal or a figure.
    pub(super) fn met(&self) -> Option<bool> {
        let goal = self.goal.as_ref()?;
        let ratio = self.ratio()?;
        let sound = self.row.detail.errors == 0 && self.row.proof.mismatches.unwrap_or(0) == 0;
        Some(sound && goal.comparison.holds(ratio.median, self.goal_value()?))
    }

    /// How good it is, for "worst first": 1 is as good as the goal, or as the limit where
    /// there is no goal.
    pub(super) fn score(&self) -> Option<f64> {
        let ratio = self.ratio()?.median;
        let sense = if self.higher_is_better() {
            Comparison::AtLeast
        } else {
            Comparison::AtMost
        };
        Some(sense.score(ratio, self.goal_value().unwrap_or(1.0)))
    }

    /// Whether there is a figure.
    pub(super) fn is_measured(&self) -> bool {
        self.row.status == Status::Measured && self.row.value.is_some()
    }

    /// What it is divided by.
    pub(super) fn limit_name(&self) -> Option<&str> {
        self.row.limit.as_ref().map(|limit| limit.name.as_str())
    }
}

fn score(row: &GoalRow, goals: &[Goal]) -> Option<f64> {
    let goal = goals.iter().find(|goal| goal.id == row.id)?;
    Some(goal.comparison.score(row.ratio?, goal.value))
}

fn labels(records: &[RunRecord]) -> Vec<String> {
    let shared = |label: &str| {
        records
            .iter()
            .filter(|record| record.label == label)
            .count()
            > 1
    };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut labels = Vec::with_capacity(records.len());
    for RunRecord { label, .. } in records {
        let number = seen.entry(label).or_default();
        *number += 1;
        labels.push(if shared(label) {
            format!("{label} #{number}")
        } else {
            label.clone()
        });
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Recorder;

    fn record(label: &str, rows: Vec<Row>) -> RunRecord {
        Recorder::start().record(label, BTreeMap::new(), rows)
    }

    fn balance(value: f64) -> Row {
        let value = Spread::once(value);
        Row::of(
            "ring",
            "balance/10",
            "max-over-mean",
            "ratio",
            Better::Lower,
            value,
        )
    }

    #[test]
    fn runs_of_the_same_name_are_told_apart() {
        let records = [
            record("a", vec![]),
            record("b", vec![]),
            record("a", vec![]),
        ];
        assert_eq!(labels(&records), ["a #1", "b", "a #2"]);
    }

    #[test]
    fn a_scenario_on_its_own_decides_its_goals() {
        let records = [
            record("a", vec![balance(1.05)]),
            record("b", vec![balance(1.5)]),
        ];
        let view = View::of(&records).unwrap();
        assert_eq!((view.runs[0].met(), view.runs[0].missed()), (1, 0));
        assert_eq!((view.runs[1].met(), view.runs[1].missed()), (0, 1));
        assert_eq!(view.runs[1].entries[0].met(), Some(false));
        assert!(view.runs[0].entries[0].score() > view.runs[1].entries[0].score());
    }

    #[test]
    fn figures_of_several_runs_meet_by_name() {
        let other = Row::of("s", "c", "f", "GB/s", Better::Higher, Spread::once(1.0));
        let records = [
            record("a", vec![balance(1.0)]),
            record("b", vec![other, balance(1.0)]),
        ];
        let view = View::of(&records).unwrap();
        let by_id = view.by_id();
        let shape: Vec<_> = by_id
            .iter()
            .map(|(id, runs)| (id.as_str(), runs[0].is_some(), runs[1].is_some()))
            .collect();
        assert_eq!(
            shape,
            [
                ("ring/balance/10/max-over-mean", true, true),
                ("s/c/f", false, true)
            ]
        );
    }

    #[test]
    fn wrong_bytes_miss_every_goal() {
        let mut row = balance(1.0);
        row.proof.mismatches = Some(1);
        let records = [record("a", vec![row])];
        assert_eq!(
            View::of(&records).unwrap().runs[0].entries[0].met(),
            Some(false)
        );
    }
}
