//! A goal held against the figures of a run.

use super::file::Goal;
use crate::record::{GoalRow, Row, Status};

/// What `figures` say about `goal`. A figure that is missing counts as missed.
pub fn judge(goal: &Goal, figures: &[Row]) -> GoalRow {
    let found = figures.iter().find(|row| {
        row.scenario == goal.scenario && row.case == goal.case && row.figure == goal.figure
    });
    // A case that could not be measured has one row, whatever figures it would have had.
    let instead = || {
        figures.iter().find(|row| {
            row.scenario == goal.scenario
                && row.status != Status::Measured
                && goal.case.starts_with(&row.case)
        })
    };
    match found.filter(|row| row.status == Status::Measured) {
        Some(row) => of_figure(goal, row),
        None => missed(goal, found.or_else(instead)),
    }
}

fn of_figure(goal: &Goal, row: &Row) -> GoalRow {
    let value = row.value.as_ref();
    let decisive = match goal.divided_by {
        Some(_) => row.ratio.as_ref(),
        None => value,
    };
    let ratio = decisive.map(|spread| spread.median);
    let mut notes = Vec::new();
    if let Some(spread) = decisive
        && spread.values.len() > 1
    {
        notes.push(format!("{:.3} to {:.3}", spread.min, spread.max));
    }
    if ratio.is_none() {
        notes.push("nothing to divide it by was measured".to_owned());
    }
    let failed = row.detail.errors > 0 || row.proof.mismatches.unwrap_or(0) > 0;
    if failed {
        notes.push("reads failed or differed, so the figure does not count".to_owned());
    }
    notes.extend(row.note.clone());
    GoalRow {
        id: goal.id.clone(),
        value: value.map(|value| value.median),
        unit: row.unit.clone(),
        limit: row.limit.as_ref().map(|limit| limit.value.median),
        ratio,
        goal: text(goal),
        met: !failed && ratio.is_some_and(|ratio| goal.comparison.holds(ratio, goal.value)),
        note: notes.join("; "),
    }
}

fn missed(goal: &Goal, row: Option<&Row>) -> GoalRow {
    let why = row.and_then(|row| row.note.clone());
    let note = match row.map(|row| row.status) {
        Some(Status::NotBuilt) => why.unwrap_or_else(|| "not built yet".to_owned()),
        Some(Status::Impossible) => format!("impossible here: {}", why.unwrap_or_default()),
        Some(Status::Failed) => format!("failed: {}", why.unwrap_or_default()),
        Some(Status::Measured) | None => "not measured".to_owned(),
    };
    GoalRow {
        id: goal.id.clone(),
        value: None,
        unit: String::new(),
        limit: None,
        ratio: None,
        goal: text(goal),
        met: false,
        note,
    }
}

fn text(goal: &Goal) -> String {
    format!("{} {:.2}", goal.comparison.sign(), goal.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goals::Goals;
    use crate::measure::Spread;
    use crate::record::Better;

    fn goal(divided: bool) -> Goal {
        let divided = if divided { "divided_by = \"x\"\n" } else { "" };
        let text = format!(
            "[[goal]]\nid = \"a.b\"\nscenario = \"s\"\ncase = \"c/d\"\nfigure = \"f\"\n\
             comparison = \">=\"\nvalue = 0.9\n{divided}"
        );
        Goals::parse(&text).unwrap().all()[0].clone()
    }

    fn row(value: f64) -> Row {
        Row::of("s", "c/d", "f", "GB/s", Better::Higher, Spread::once(value))
    }

    #[test]
    fn a_ratio_decides_where_something_divides() {
        let judged = judge(
            &goal(true),
            &[row(5.0).against_value("limit", Spread::once(10.0))],
        );
        assert_eq!(
            (judged.value, judged.limit, judged.ratio),
            (Some(5.0), Some(10.0), Some(0.5))
        );
        assert!(!judged.met);
        assert!(
            judge(
                &goal(true),
                &[row(9.5).against_value("x", Spread::once(10.0))]
            )
            .met
        );
        assert!(
            !judge(&goal(true), &[row(5.0)]).met,
            "without a limit nothing is met"
        );
        assert!(judge(&goal(false), &[row(5.0)]).met);
    }

    #[test]
    fn a_figure_with_errors_or_wrong_bytes_does_not_count() {
        let mut bad = row(5.0);
        bad.detail.errors = 1;
        assert!(!judge(&goal(false), &[bad]).met);
        let mut bad = row(5.0);
        bad.proof.mismatches = Some(1);
        assert!(!judge(&goal(false), &[bad]).met);
    }

    #[test]
    fn what_was_not_measured_is_missed_and_says_why() {
        let none = judge(&goal(false), &[]);
        assert!(!none.met && none.note == "not measured");
        let whole_group = Row::without("s", "c", "f", Status::NotBuilt, "no such thing yet");
        let not_built = judge(&goal(false), &[whole_group]);
        assert!(!not_built.met);
        assert_eq!(not_built.note, "no such thing yet");
    }
}
