//! Every goal, the worst first.

use maud::{Markup, html};

use super::number;
use super::page::breakable;
use super::view::{Judged, View};
use crate::record::GoalRow;

/// One table for one run, else the verdicts of all runs side by side.
pub(super) fn section(view: &View<'_>) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Goals" {
            @match &view.runs[..] {
                [run] => (table(&run.goals)),
                _ => (side_by_side(view)),
            }
        }
    }
}

fn table(goals: &[Judged]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th { "goal" }
                    th.number { "ratio" }
                    th.number { "demanded" }
                    th { "verdict" }
                    th.number { "figure" }
                    th.number { "limit" }
                    th { "note" }
                }
            }
            tbody {
                @for Judged { row, .. } in goals {
                    tr {
                        th scope="row" { (breakable(&row.id)) }
                        td.number { (ratio(row)) }
                        td.number { (demanded(row)) }
                        td { (verdict(row)) }
                        td.number { (optional(row.value, &row.unit)) }
                        td.number { (optional(row.limit, &row.unit)) }
                        td.note { (row.note) }
                    }
                }
            }
        }
    }
}

fn side_by_side(view: &View<'_>) -> Markup {
    // The goals of the first run that has any decide the order.
    let mut goals: Vec<&GoalRow> = Vec::new();
    for judged in view.runs.iter().flat_map(|run| &run.goals) {
        if !goals.iter().any(|goal| goal.id == judged.row.id) {
            goals.push(&judged.row);
        }
    }
    html! {
        table {
            thead {
                tr {
                    th { "goal" }
                    th.number { "demanded" }
                    @for run in &view.runs { th.number { (run.label) } }
                }
            }
            tbody {
                @for goal in goals {
                    tr {
                        th scope="row" { (breakable(&goal.id)) }
                        td.number { (demanded(goal)) }
                        @for run in &view.runs {
                            td.number {
                                @match run.goals.iter().find(|judged| judged.row.id == goal.id) {
                                    Some(judged) => {
                                        (ratio(&judged.row)) " " (verdict(&judged.row))
                                    }
                                    None => "–",
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn verdict(row: &GoalRow) -> Markup {
    html! {
        @if row.met {
            span.met { "✓ met" }
        } @else if row.ratio.is_some() {
            span.missed { "✗ missed" }
        } @else {
            span.muted { "no figure" }
        }
    }
}

pub(super) fn ratio(row: &GoalRow) -> String {
    row.ratio.map_or_else(|| "–".to_owned(), number::ratio)
}

/// `≥ 0.90`.
pub(super) fn demanded(row: &GoalRow) -> String {
    row.goal.replace(">=", "≥").replace("<=", "≤")
}

pub(super) fn optional(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "–".to_owned(), |value| number::quantity(value, unit))
}
